// Which algorithm a matrix product takes, and what is asked and measured for it: in the simulator, where each
// takes as long as a test says.
#include <cublasLt.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "kernels/cuda/error.h"
#include "tests/support/device_tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

using simulator::algorithms;
using testing::ElementsAre;

// Their places in the simulator's list. `again` gives the bits of `first`, what is `in_parts` must not be
// taken for 16-bit results. What is added `backwards` gives other bits, though on the operands of these tests
// in bfloat16 of 3 of 90,000 results, and sometimes of none.
enum { in_parts, first, backwards, again };

class PlansTest : public testing::Test {
 protected:
  PlansTest() {
    for (auto& algorithm : algorithms) algorithm.milliseconds = 8;
    simulator::heuristics = 0;
  }
  ~PlansTest() override { algorithms = before_; }

  // out (rows, 300) = x (rows, 64) weight^T, so large that algorithms are compared. Gives how often each was
  // started for it.
  std::vector<int> multiply(std::int64_t rows, DType dtype = DType::f16) {
    return multiply(random(dtype, {rows, 64}), random(dtype, {300, 64}));
  }
  std::vector<int> multiply(Tensor x, Tensor weight, Tensor bias = {}) {
    const DeviceTensor out(*ops_, x.dtype, {x.dim(0), weight.dim(0)});
    return starts_of([&] { ops_->linear_forward(out, x, weight, bias); });
  }

  static std::vector<int> starts_of(const std::function<void()>& product) {
    for (auto& algorithm : algorithms) algorithm.starts = 0;
    product();
    std::vector<int> starts;
    for (const auto& algorithm : algorithms) starts.push_back(algorithm.starts);
    return starts;
  }

  std::unique_ptr<Ops> ops_ = make_device_ops();

  DeviceTensor random(DType dtype, Shape shape, double scale = 1) {
    TestTensor values = TestTensor::random(dtype, shape, generator_, scale);
    return DeviceTensor(*ops_, values.view());
  }

 private:
  const decltype(algorithms) before_ = algorithms;
  std::mt19937_64 generator_ = generator_of_inputs(8);
};

TEST_F(PlansTest, AShapeIsPlannedOnce) {
  multiply(300);
  EXPECT_EQ(simulator::heuristics, 1);
  for (int i = 0; i < 3; ++i) EXPECT_THAT(multiply(300), ElementsAre(0, 1, 0, 0));
  EXPECT_EQ(simulator::heuristics, 1);
}

// A trial each for the bits, and one measurement each of those that give the right ones; the first one's time
// is also taken to say how often the others are repeated. The last start is the product itself.
TEST_F(PlansTest, EveryOtherShapeAndTypeIsPlannedAnew) {
  multiply(300);  // the first plan of all warms up, for as long as it takes
  algorithms[again].milliseconds = 4;
  EXPECT_THAT(multiply(301), ElementsAre(0, 3, 1, 3));
  EXPECT_EQ(simulator::heuristics, 2);
  multiply(301, DType::bf16);
  EXPECT_EQ(simulator::heuristics, 3);
  EXPECT_THAT(multiply(300), ElementsAre(0, 1, 0, 0));
  EXPECT_THAT(multiply(301), ElementsAre(0, 0, 0, 1));
  EXPECT_EQ(simulator::heuristics, 3);
}

// Others are faster still, with other bits or losing parts of sums.
TEST_F(PlansTest, TheFastestOfThoseThatGiveTheSameBitsIsTaken) {
  algorithms[in_parts].milliseconds = algorithms[backwards].milliseconds = 1;
  algorithms[again].milliseconds = 4;
  multiply(300);
  EXPECT_THAT(multiply(300), ElementsAre(0, 0, 0, 1));
  algorithms[again].milliseconds = 12;
  multiply(301);
  EXPECT_THAT(multiply(301), ElementsAre(0, 1, 0, 0));
  algorithms[again].milliseconds = 7.9;  // hardly faster, as measured
  multiply(302);
  EXPECT_THAT(multiply(302), ElementsAre(0, 1, 0, 0));
}

// Operands that would hide in which order an algorithm adds: few terms in bfloat16, zeros, and NaN.
TEST_F(PlansTest, WhatIsMultipliedDoesNotDecide) {
  struct Case {
    DType dtype;
    std::int64_t terms;
    double scale;
    bool bias;
  };
  algorithms[backwards].milliseconds = 1;
  algorithms[again].milliseconds = 4;
  for (const auto& [dtype, terms, scale, bias] : {Case{DType::bf16, 8, 1, false},
                                                  {DType::bf16, 64, 1, true},
                                                  {DType::bf16, 64, 0, false},
                                                  {DType::f16, 64, std::nan(""), true},
                                                  {DType::f32, 8, 0, true}}) {
    const DeviceTensor x = random(dtype, {300, terms}, scale), weight = random(dtype, {300, terms}),
                       row = random(dtype, {300});
    const Tensor added = bias ? row : Tensor{};
    multiply(x, weight, added);
    EXPECT_THAT(multiply(x, weight, added), ElementsAre(0, 0, 0, 1))
        << name_of(dtype) << ", " << terms << " terms times " << scale;
    ops_ = make_device_ops();  // that has no plans
  }
}

// The same where products are added to what is there; sums in parts lose nothing then.
TEST_F(PlansTest, WhatIsAddedToDoesNotDecide) {
  algorithms[backwards].milliseconds = 1;
  algorithms[again].milliseconds = 4;
  for (const double scale : {1.0, 0.0}) {
    ops_ = make_device_ops();
    const DeviceTensor x = random(DType::bf16, {64, 300}, scale), dout = random(DType::bf16, {64, 301}),
                       gradient(*ops_, DType::f32, {301, 300});
    ops_->fill_normal(gradient, 1, 1, 1);
    const auto product = [&] { ops_->linear_backward_weight(gradient, {}, dout, x); };
    product();
    EXPECT_THAT(starts_of(product), ElementsAre(0, 0, 0, 1)) << "terms times " << scale;
  }
}

TEST_F(PlansTest, AnAlgorithmThatIsNotSupportedIsPassedOver) {
  algorithms[again].milliseconds = 4;
  algorithms[again].start = CUBLAS_STATUS_NOT_SUPPORTED;
  multiply(300);
  EXPECT_THAT(multiply(300), ElementsAre(0, 1, 0, 0));
  algorithms[again].start = CUBLAS_STATUS_SUCCESS;
  for (const cublasStatus_t status : {CUBLAS_STATUS_NOT_SUPPORTED, CUBLAS_STATUS_INVALID_VALUE}) {
    algorithms[again].check = status;
    const std::int64_t rows = 301 + status;
    EXPECT_EQ(multiply(rows)[again], 0);
    EXPECT_THAT(multiply(rows), ElementsAre(0, 1, 0, 0));
  }
  algorithms[first].start = CUBLAS_STATUS_NOT_SUPPORTED;  // then the next one's bits count
  multiply(400);
  EXPECT_THAT(multiply(400), ElementsAre(0, 0, 1, 0));
}

// Of a product too small to be measured, it shows when it is begun.
TEST_F(PlansTest, AnAlgorithmThatRefusesToStartIsReplaced) {
  algorithms[first].start = CUBLAS_STATUS_NOT_SUPPORTED;
  for (int i = 0; i < 2; ++i) EXPECT_THAT(multiply(100), ElementsAre(0, 0, 1, 0));
  for (auto& algorithm : algorithms) algorithm.start = CUBLAS_STATUS_NOT_SUPPORTED;
  EXPECT_THAT([&] { multiply(101); },
              testing::ThrowsMessage<CudaError>(testing::HasSubstr("CUBLAS_STATUS_NOT_SUPPORTED")));
}

// One that can do 33 rows and not a single one is taken for neither: each would have other bits beside
// others.
TEST_F(PlansTest, FewRowsHaveOneAlgorithm) {
  algorithms[first].fewest_columns = 2;
  for (const std::int64_t rows : {33, 1, 63}) EXPECT_THAT(multiply(rows), ElementsAre(0, 0, 1, 0)) << rows;
  EXPECT_THAT(multiply(64), ElementsAre(0, 1, 0, 0));
}

TEST_F(PlansTest, AShapeWithoutAnAlgorithmIsRefusedInWords) {
  for (auto& algorithm : algorithms) algorithm.check = CUBLAS_STATUS_NOT_SUPPORTED;
  EXPECT_THAT([&] { multiply(300); },
              testing::ThrowsMessage<CudaError>(testing::HasSubstr("no product of 300 x 64 by 64 x 300")));
}

}  // namespace
}  // namespace flasheva
