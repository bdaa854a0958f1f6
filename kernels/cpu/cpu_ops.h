// The CPU backend. One file an operation, forward above backward; matrix products through oneDNN (gemm.h),
// OpenMP over the rest.
#pragma once

#include <memory>

#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/scratch.h"
#include "kernels/ops.h"

namespace flasheva {

class Gemm;  // gemm.h

class CpuOps final : public Ops {
 public:
  // `threads` > 0 sets the number of OpenMP threads, oneDNN's too, of the whole process. Tests choose how
  // attention multiplies bfloat16.
  explicit CpuOps(int threads, Bf16Products = best_bf16_products());
  ~CpuOps() override;

  Device device() const override { return Device::cpu; }
  DeviceMemory allocate(std::size_t bytes) override { return allocate_host_memory(bytes); }
  void copy(Tensor out, Tensor in) override;
  DeviceMemory allocate_on_host(std::size_t bytes) override { return allocate_host_memory(bytes); }
  void start_copy(Tensor out, Tensor in) override { copy(out, in); }
  void synchronize() override {}
  void lend_scratch(const ScratchMemory& memory) override { scratch_.lend(memory); }
  // What operations have taken beside what was lent.
  std::size_t own_scratch_bytes() const { return scratch_.own_bytes(); }
  void zero(Tensor out) override;
  void cast(Tensor out, Tensor in) override;
  void fill_normal(Tensor out, double standard_deviation, std::uint64_t seed, std::uint32_t stream) override;

  void embedding_forward(Tensor out, Tensor tokens, Tensor table) override;
  void embedding_backward(Tensor dtable, Tensor dout, Tensor tokens) override;

  void layernorm_forward(const Norm& norm, const Norm& second, Tensor mean, Tensor rstd, Tensor x,
                         double eps) override;
  void layernorm_backward(Tensor dx, const NormGradients& norm, const NormGradients& second, Tensor x,
                          Tensor mean, Tensor rstd) override;

  void linear_forward(Tensor out, Tensor x, Tensor weight, Tensor bias) override;
  void linear_backward_input(Tensor dx, Tensor dout, Tensor weight) override;
  void linear_backward_weight(Tensor dweight, Tensor dbias, Tensor dout, Tensor x) override;

  void gelu_forward(Tensor out, Tensor x) override;
  void gelu_backward(Tensor dx, Tensor dbias, Tensor dout, Tensor x) override;
  void residual(Tensor out, Tensor x, Tensor a, Tensor b) override;

  void qkv_rotary_forward(Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor cosine, Tensor sine) override;
  void qkv_rotary_backward(Tensor dqkv, Tensor dq, Tensor dk, Tensor dv, Tensor cosine, Tensor sine) override;

  void qkv_summary_forward(Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor qkv, Tensor cosine,
                           Tensor sine, const EvaParameters& parameters,
                           const ChunkSummaryConfig& config) override;
  void qkv_summary_backward(Tensor dqkv, const EvaParameters& gradients, Tensor dq, Tensor dk, Tensor dv,
                            Tensor dkappa, Tensor dbeta, Tensor q, Tensor k, Tensor v, Tensor cosine,
                            Tensor sine, const EvaParameters& parameters,
                            const ChunkSummaryConfig& config) override;

  void attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa,
                         Tensor beta, Tensor chunk_bias, const AttentionConfig& config) override;
  void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dkappa, Tensor dbeta, Tensor dchunk_bias,
                          Tensor dout, Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v,
                          Tensor kappa, Tensor beta, Tensor chunk_bias,
                          const AttentionConfig& config) override;

  void cache_append(Tensor q, const LayerCache& cache, Tensor qkv, Tensor cosine, Tensor sine,
                    const CachePlaces& places) override;
  void chunk_summary_cached(const LayerCache& cache, const EvaParameters& parameters,
                            const ChunkSummaryConfig& config, const CachePlaces& places) override;
  void attention_cached(Tensor out, Tensor q, const LayerCache& cache, Tensor chunk_bias,
                        const AttentionConfig& config, const CachePlaces& places) override;
  void cache_store(const LayerCache& cache, std::int64_t sequence, std::int64_t first_position, Tensor q,
                   Tensor k, Tensor v, Tensor kappa, Tensor beta) override;
  void cache_window(Tensor keys, Tensor values, const LayerCache& cache, std::int64_t sequence,
                    std::int64_t first_position, Tensor k, Tensor v) override;

  void cross_entropy_forward(Tensor losses, Tensor correct, Tensor logits, Tensor targets,
                             Tensor mask) override;
  void cross_entropy_backward(Tensor logits, Tensor losses, Tensor targets, Tensor mask,
                              Tensor scale) override;
  void most_likely(Tensor tokens, Tensor logits) override;
  void first_not_finite(Tensor first, std::span<const Tensor> tensors) override;

  void sums_of_squares(std::span<double> sums, std::span<const Tensor> tensors) override;
  double squared_distance(Tensor x, Tensor y) override;
  void adamw(std::span<const AdamWParameter> parameters, const AdamWConfig& config) override;

 private:
  CpuScratch scratch_;
  std::unique_ptr<Gemm> gemm_;
  Bf16Products bf16_products_;
};

}  // namespace flasheva
