// What the CPU's operations take while they run: as much as a plan foresees, and nothing where it is lent.
#include <gtest/gtest.h>

#include <deque>
#include <functional>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/scratch_sizes.h"
#include "tests/support/tensors.h"

namespace flasheva {
namespace {

// Tensors of zeros for one call.
class Zeros {
 public:
  explicit Zeros(DType type) : type(type), acc(accumulation_type(type)) {}
  Tensor of(DType dtype, Shape shape) { return tensors_.emplace_back(TestTensor::zeros(dtype, shape)); }
  Tensor operator()(Shape shape) { return of(type, shape); }

  const DType type, acc;

 private:
  std::deque<TestTensor> tensors_;
};

struct Case {
  std::string name;
  std::function<void(Ops&, Zeros&)> run;
  std::function<ScratchBytes(DType)> foreseen;
};

void PrintTo(const Case& tested, std::ostream* out) { *out << tested.name; }

Case linear_forward(const std::string& name, LinearSizes sizes) {
  return {name,
          [=](Ops& ops, Zeros& zeros) {
            const auto [N, I, O] = sizes;
            ops.linear_forward(zeros({N, O}), zeros({N, I}), zeros({O, I}), zeros({O}));
          },
          [=](DType type) { return linear_forward_scratch(type, sizes, true); }};
}

Case linear_backward(const std::string& name, LinearSizes sizes) {
  return {name,
          [=](Ops& ops, Zeros& zeros) {
            const auto [N, I, O] = sizes;
            ops.linear_backward_input(zeros({N, I}), zeros({N, O}), zeros({O, I}));
            ops.linear_backward_weight(zeros.of(zeros.acc, {O, I}), {}, zeros({N, O}), zeros({N, I}));
          },
          [=](DType type) { return linear_backward_scratch(type, sizes); }};
}

constexpr std::int64_t B = 2, H = 3, T = 70, P = 8, C = T / P;
const Visibility visibility{AttentionKind::eva, WindowKind::block, ChunkVisibility::outside_window, 16, P};

struct AttentionTensors {
  Tensor out, log_sum_exp, q, k, v, kappa, beta;

  AttentionTensors(Zeros& zeros, std::int64_t d)
      : out(zeros({B, T, H * d})), log_sum_exp(zeros.of(zeros.acc, {B, H, T})) {
    for (Tensor* x : {&q, &k, &v}) *x = zeros({B, H, T, d});
    for (Tensor* x : {&kappa, &beta}) *x = zeros({B, H, C, d});
  }
};

// The forward pass takes the chunks that its queries see.
Case attention_forward(std::int64_t d) {
  return {"attention_forward_" + std::to_string(d),
          [=](Ops& ops, Zeros& zeros) {
            const AttentionTensors x(zeros, d);
            ops.attention_forward(x.out, x.log_sum_exp, x.q, x.k, x.v, x.kappa, x.beta, {}, {visibility});
          },
          [=](DType type) {
            return attention_forward_scratch(type, {B, H, T, T, visibility.visible_chunks(T - 1), d});
          }};
}

Case attention_backward(std::int64_t d) {
  return {"attention_backward_" + std::to_string(d),
          [=](Ops& ops, Zeros& zeros) {
            const AttentionTensors x(zeros, d), dx(zeros, d);
            ops.attention_backward(dx.q, dx.k, dx.v, dx.kappa, dx.beta, {}, dx.out, x.out, x.log_sum_exp, x.q,
                                   x.k, x.v, x.kappa, x.beta, {}, {visibility});
          },
          [=](DType type) {
            return attention_backward_scratch(type, {B, H, T, T, C, d});
          }};
}

constexpr std::int64_t d_of_summaries = 20;
const ChunkSummaryConfig summary_config{P, Adapter::linear, Proposal::qk, {}};
const summary::Problem summary_problem{B, H, T, C, P, d_of_summaries, summary_config};

EvaParameters adapters(Zeros& zeros, DType type) {
  EvaParameters parameters;
  for (Tensor* x : {&parameters.key_weight, &parameters.query_weight})
    *x = zeros.of(type, {d_of_summaries, d_of_summaries});
  for (Tensor* x : {&parameters.key_bias, &parameters.query_bias}) *x = zeros.of(type, {d_of_summaries});
  return parameters;
}

const Case summary_forward{"summary_forward",
                           [](Ops& ops, Zeros& zeros) {
                             const AttentionTensors x(zeros, d_of_summaries);
                             ops.qkv_summary_forward(x.q, x.k, x.v, x.kappa, x.beta,
                                                     zeros({B, T, 3 * H * d_of_summaries}), {}, {},
                                                     adapters(zeros, zeros.type), summary_config);
                           },
                           [](DType type) { return summary_forward_scratch(type, summary_problem); }};

const Case summary_backward{"summary_backward",
                            [](Ops& ops, Zeros& zeros) {
                              const AttentionTensors x(zeros, d_of_summaries), dx(zeros, d_of_summaries);
                              ops.qkv_summary_backward(zeros({B, T, 3 * H * d_of_summaries}),
                                                       adapters(zeros, zeros.acc), dx.q, dx.k, dx.v, dx.kappa,
                                                       dx.beta, x.q, x.k, x.v, {}, {},
                                                       adapters(zeros, zeros.type), summary_config);
                            },
                            [](DType type) { return summary_backward_scratch(type, summary_problem); }};

const Case layernorm_backward{"layernorm_backward",
                              [](Ops& ops, Zeros& zeros) {
                                const NormGradients norm{zeros.of(zeros.acc, {40}), zeros.of(zeros.acc, {40}),
                                                         zeros({7, 40}), zeros({40})};
                                ops.layernorm_backward(zeros({7, 40}), norm, {}, zeros({7, 40}),
                                                       zeros.of(zeros.acc, {7}), zeros.of(zeros.acc, {7}));
                              },
                              [](DType type) { return layernorm_backward_scratch(type, 40); }};

const Case squares{"squares", [](Ops& ops, Zeros& zeros) { ops.sum_of_squares(zeros({40000})); },
                   [](DType) { return squares_scratch(40000); }};

// A row of dout of 512 or 4224 elements lies so that it is copied.
const Case cases[] = {linear_forward("one_row", {1, 40, 50}),
                      linear_forward("few_rows", {33, 1100, 50}),
                      linear_forward("many_rows", {70, 40, 50}),
                      linear_backward("linear_backward", {70, 40, 50}),
                      linear_backward("spread", {80, 256, 512}),
                      linear_backward("spread_in_slices", {16, 32, 4224}),
                      attention_forward(20),
                      attention_forward(64),
                      attention_forward(7),
                      attention_backward(20),
                      attention_backward(64),
                      attention_backward(7),
                      summary_forward,
                      summary_backward,
                      layernorm_backward,
                      squares};

class CpuScratchTest : public testing::TestWithParam<Case> {
 protected:
  // What the operation takes of its own where so much is lent.
  std::size_t taken(DType type, const ScratchBytes& lent) {
    const Shape rows = thread_rows(lent.of_a_thread);
    const DeviceMemory shared = ops_.allocate(static_cast<std::size_t>(lent.shared)),
                       of_threads = ops_.allocate(static_cast<std::size_t>(rows.size()));
    const Tensor none;
    ops_.lend_scratch({lent.shared > 0 ? Tensor{shared.get(), DType::u8, {lent.shared}, Device::cpu} : none,
                       rows.size() > 0 ? Tensor{of_threads.get(), DType::u8, rows, Device::cpu} : none});
    Zeros zeros(type);
    GetParam().run(ops_, zeros);
    const std::size_t bytes = ops_.own_scratch_bytes();
    ops_.lend_scratch({});
    return bytes;
  }

  CpuOps ops_{3};
};

TEST_P(CpuScratchTest, IsWhatAPlanForesees) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    const auto [shared, of_a_thread] = GetParam().foreseen(type);
    const auto rows = static_cast<std::size_t>(thread_rows(of_a_thread).size());
    EXPECT_EQ(taken(type, {}), static_cast<std::size_t>(shared) + rows) << name_of(type);
    EXPECT_EQ(taken(type, {shared, of_a_thread}), 0u) << name_of(type);
    if (shared > 0) {
      EXPECT_EQ(taken(type, {shared - 1, of_a_thread}), static_cast<std::size_t>(shared)) << name_of(type);
    }
    if (of_a_thread > 0) {
      EXPECT_EQ(taken(type, {shared, 0}), rows) << name_of(type);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Operations, CpuScratchTest, testing::ValuesIn(cases),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace flasheva
