#include "tests/kernels/operation_test.h"

namespace flasheva {
namespace {

Tensors run(Ops& ops, DType dtype, const Tensors& in, const Scalars&, double) {
  TestTensor x = in.at("x").converted(dtype), a = in.at("a").converted(dtype),
             b = in.at("b").converted(dtype);
  TestTensor three(dtype, x.shape()), two(dtype, x.shape()), in_place = x;
  ops.residual(three, x, a, b);
  ops.residual(two, x, a, {});
  ops.residual(in_place, in_place, a, b);
  return {{"x + a + b", three}, {"x + a", two}, {"in place", in_place}};
}

Tensors plain(const Tensors& in, const Scalars&, const RoundTo& r) {
  const TestTensor &x = in.at("x"), &a = in.at("a"), &b = in.at("b");
  TestTensor three(DType::f64, x.shape()), two(DType::f64, x.shape());
  for (std::int64_t i = 0; i < x.size(); ++i) {
    two.set(i, r(x.get(i) + a.get(i)));
    three.set(i, r(two.get(i) + b.get(i)));
  }
  return {{"x + a + b", three}, {"x + a", two}, {"in place", three}};
}

const Operation residual{"residual", run, {}, plain};

OperationCase sized(std::int64_t rows, std::int64_t width) {
  const auto inputs = [=](std::mt19937_64& g) -> Tensors {
    return {{"x", TestTensor::random(DType::f64, {rows, width}, g)},
            {"a", TestTensor::random(DType::f64, {rows, width}, g)},
            {"b", TestTensor::random(DType::f64, {rows, width}, g)}};
  };
  return {"rows " + std::to_string(rows) + " width " + std::to_string(width), &residual, inputs, {}};
}

INSTANTIATE_TEST_SUITE_P(Residual, PrecisionTest,
                         testing::Values(sized(1, 1), sized(3, 7), sized(17, 33), sized(300, 300)),
                         name_of_parameter);

TEST(ResidualTest, AddsExactly) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor x = filled(DType::f32, {3}, 1), a = filled(DType::f32, {3}, 20),
             b = filled(DType::f32, {3}, 300);
  TestTensor out(DType::f32, {3});
  ops->residual(out, x, a, b);
  EXPECT_EQ(out.get(2), 321);
  ops->residual(out, x, a, {});
  EXPECT_EQ(out.get(2), 21);
}

TEST(ResidualTest, RefusesWrongShapesAndTypes) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor x(DType::f32, {5}), shorter(DType::f32, {4}), half(DType::bf16, {5});
  EXPECT_THROW(ops->residual(x, x, shorter, {}), std::logic_error);
  EXPECT_THROW(ops->residual(x, x, x, half), std::logic_error);
  EXPECT_THROW(ops->residual(x, x, {}, x), std::logic_error);
}

}  // namespace
}  // namespace flasheva
