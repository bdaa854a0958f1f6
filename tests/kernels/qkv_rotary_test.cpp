#include <cmath>

#include "tests/kernels/operation_test.h"
#include "tests/kernels/operations.h"

namespace flasheva {
namespace {

Tensors run(Ops& ops, DType dtype, const Tensors& in, const Scalars&, double) {
  TestTensor qkv = in.at("qkv").converted(dtype), dq = in.at("dq").converted(dtype),
             dk = in.at("dk").converted(dtype), dv = in.at("dv").converted(dtype);
  const DType acc = accumulation_type(dtype);
  TestTensor cosine = in.count("cosine") ? in.at("cosine").converted(acc) : TestTensor();
  TestTensor sine = in.count("sine") ? in.at("sine").converted(acc) : TestTensor();
  TestTensor q(dtype, dq.shape()), k = q, v = q, dqkv(dtype, qkv.shape());
  ops.qkv_rotary_forward(q, k, v, qkv, cosine, sine);
  ops.qkv_rotary_backward(dqkv, dq, dk, dv, cosine, sine);
  return {{"q", q}, {"k", k}, {"v", v}, {"dqkv", dqkv}};
}

// x (d) from `from` on, turned by the angles of position t, each product and sum rounded.
void rotate_plainly(TestTensor& out, std::int64_t into, const TestTensor& x, std::int64_t from,
                    const Tensors& in, std::int64_t t, double direction, std::int64_t head_dim,
                    const RoundTo& r) {
  const std::int64_t half = in.count("cosine") ? in.at("cosine").shape()[1] : 0;
  for (std::int64_t i = 0; i < head_dim; ++i) out.set(into + i, x.get(from + i));
  for (std::int64_t i = 0; i < half; ++i) {
    const double cosine = in.at("cosine").get(t * half + i),
                 sine = direction * in.at("sine").get(t * half + i);
    const double x1 = x.get(from + i), x2 = x.get(from + half + i);
    out.set(into + i, r(r(x1 * cosine) - r(x2 * sine)));
    out.set(into + half + i, r(r(x2 * cosine) + r(x1 * sine)));
  }
}

Tensors plain(const Tensors& in, const Scalars&, const RoundTo& r) {
  const TestTensor &qkv = in.at("qkv"), &dq = in.at("dq");
  const std::int64_t B = dq.shape()[0], H = dq.shape()[1], T = dq.shape()[2], d = dq.shape()[3];
  TestTensor q(DType::f64, dq.shape()), k = q, v = q, dqkv(DType::f64, qkv.shape());
  Tensors without_rotation;
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t h = 0; h < H; ++h)
      for (std::int64_t t = 0; t < T; ++t) {
        const std::int64_t fused = ((b * T + t) * H + h) * 3 * d, split = ((b * H + h) * T + t) * d;
        rotate_plainly(q, split, qkv, fused, in, t, 1, d, r);
        rotate_plainly(k, split, qkv, fused + d, in, t, 1, d, r);
        rotate_plainly(v, split, qkv, fused + 2 * d, without_rotation, t, 1, d, r);
        rotate_plainly(dqkv, fused, dq, split, in, t, -1, d, r);
        rotate_plainly(dqkv, fused + d, in.at("dk"), split, in, t, -1, d, r);
        rotate_plainly(dqkv, fused + 2 * d, in.at("dv"), split, without_rotation, t, -1, d, r);
      }
  return {{"q", q}, {"k", k}, {"v", v}, {"dqkv", dqkv}};
}

}  // namespace

const Operation qkv_rotary{"qkv_rotary", run, {}, plain};

namespace {

// `rotary` dimensions turn; the tables are two positions longer than the sequence.
OperationCase sized(std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t d, std::int64_t rotary) {
  const auto inputs = [=](std::mt19937_64& g) {
    Tensors tensors{{"qkv", TestTensor::random(DType::f64, {B, T, 3 * H * d}, g)}};
    for (const char* name : {"dq", "dk", "dv"})
      tensors[name] = TestTensor::random(DType::f64, {B, H, T, d}, g);
    if (rotary == 0) return tensors;
    const std::int64_t half = rotary / 2;
    TestTensor cosine(DType::f64, {T + 2, half}), sine = cosine;
    for (std::int64_t i = 0; i < cosine.size(); ++i) {
      const double angle =
          static_cast<double>(i / half) * std::pow(1e4, -static_cast<double>(i % half) / half);
      cosine.set(i, std::cos(angle));
      sine.set(i, std::sin(angle));
    }
    tensors["cosine"] = cosine;
    tensors["sine"] = sine;
    return tensors;
  };
  const std::string name = "B " + std::to_string(B) + " T " + std::to_string(T) + " H " + std::to_string(H) +
                           " d " + std::to_string(d) + " rotary " + std::to_string(rotary);
  return {name, &qkv_rotary, inputs, {}};
}

INSTANTIATE_TEST_SUITE_P(QkvRotary, GradientTest,
                         testing::Values(sized(1, 1, 1, 2, 2), sized(2, 3, 2, 5, 4), sized(2, 3, 1, 3, 0)),
                         name_of_parameter);
INSTANTIATE_TEST_SUITE_P(QkvRotary, PrecisionTest,
                         testing::Values(sized(1, 1, 1, 1, 0), sized(1, 7, 3, 5, 2), sized(3, 17, 2, 33, 32),
                                         sized(2, 33, 1, 64, 64), sized(2, 300, 2, 64, 16)),
                         name_of_parameter);

TEST(QkvRotaryTest, RefusesWrongShapesAndTypes) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor q = TestTensor::zeros(DType::f32, {1, 2, 3, 4}), qkv = TestTensor::zeros(DType::f32, {1, 3, 24});
  TestTensor table = TestTensor::zeros(DType::f32, {3, 2}),
             short_table = TestTensor::zeros(DType::f32, {2, 2});
  TestTensor wide_table = TestTensor::zeros(DType::f32, {3, 3}), narrow(DType::f32, {1, 3, 23});
  ops->qkv_rotary_forward(q, q, q, qkv, table, table);
  EXPECT_THROW(ops->qkv_rotary_forward(q, q, q, narrow, table, table), std::logic_error);
  EXPECT_THROW(ops->qkv_rotary_forward(q, q, q, qkv, table, {}), std::logic_error);
  EXPECT_THROW(ops->qkv_rotary_forward(q, q, q, qkv, short_table, short_table), std::logic_error);
  EXPECT_THROW(ops->qkv_rotary_backward(qkv, q, q, q, wide_table, wide_table), std::logic_error);
}

}  // namespace
}  // namespace flasheva
