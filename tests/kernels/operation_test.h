// One way to test every operation that has a backward. An Operation says how to run it and what the same
// formula gives when it is done plainly in bfloat16 or float16; GradientTest and PrecisionTest
// (operation_test.cpp) check it on the sizes that each operation's own file lists:
//
//     INSTANTIATE_TEST_SUITE_P(Gelu, GradientTest, testing::ValuesIn(cases), name_of_parameter);
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {

using Tensors = std::map<std::string, TestTensor>;
using Scalars = std::map<std::string, double>;

struct Operation {
  std::string name;

  // Runs forward and backward with `inputs`, held in float64 (or int32, uint8) but representable in `dtype`.
  // Gives the outputs by name and the gradient of input X as dX; what the operation adds to ("+=") begins at
  // `begin` everywhere. The gradient of output Y is the input dY.
  std::function<Tensors(Ops&, DType, const Tensors& inputs, const Scalars&, double begin)> run;
  std::vector<std::string> added;  // which of them are "+="

  // The same results from the plain formula, every intermediate rounded by `r`, products and sums
  // accumulated in full precision and rounded once: what an eager framework gives.
  std::function<Tensors(const Tensors& inputs, const Scalars&, const RoundTo& r)> plain;
};

// An operation on inputs of one size.
struct OperationCase {
  std::string name;
  const Operation* operation;
  std::function<Tensors(std::mt19937_64&)> inputs;
  Scalars scalars;
  double float32_bound = 1e-5;  // relative; 1e-4 where sums are long
};

class OperationTest : public testing::TestWithParam<OperationCase> {
 protected:
  Tensors run(DType dtype, const Tensors& inputs, double begin = 0) {
    return operation().run(*ops_, dtype, inputs, test_case().scalars, begin);
  }
  // In float64 on the CPU: what other types and devices are compared with.
  Tensors run_exactly(const Tensors& inputs) {
    return operation().run(*cpu_, DType::f64, inputs, test_case().scalars, 0);
  }
  // The case's inputs rounded to `dtype`, held in float64.
  Tensors inputs(DType dtype) const;

  const OperationCase& test_case() const { return GetParam(); }
  const Operation& operation() const { return *test_case().operation; }

 private:
  std::unique_ptr<Ops> ops_ = make_test_ops(), cpu_ = make_cpu_ops(2);
};

// Small cases: every element of every input is moved.
class GradientTest : public OperationTest {};
// Awkward and large cases.
class PrecisionTest : public OperationTest {};

// "rows_3_width_7" in the names of tests.
std::string name_of_parameter(const testing::TestParamInfo<OperationCase>& info);

// Relative error, but of the plain norm where the reference is 0 by construction.
double error_of(const TestTensor& x, const TestTensor& reference);

TestTensor filled(DType dtype, Shape shape, double value);

}  // namespace flasheva
