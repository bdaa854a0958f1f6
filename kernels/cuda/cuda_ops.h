// The CUDA backend: the files of cpu/ as .cu, one operation each, forward above backward; matrix products
// through cuBLASLt (gemm.h). All work is on one stream.
#pragma once

#include <memory>

#include "kernels/cuda/device_scratch.h"
#include "kernels/cuda/owned.h"
#include "kernels/ops.h"

namespace flasheva {

class CudaGemm;  // gemm.h

class CudaOps final : public Ops {
 public:
  explicit CudaOps(int gpu);
  ~CudaOps() override;

  // On which the operations happen, in their order.
  cudaStream_t stream() const { return stream_; }

  Device device() const override { return Device::cuda; }
  DeviceMemory allocate(std::size_t bytes) override;
  std::size_t device_memory_taken() override;
  void copy(Tensor out, Tensor in) override;
  DeviceMemory allocate_on_host(std::size_t bytes) override;
  void start_copy(Tensor out, Tensor in) override;
  void synchronize() override;
  void lend_scratch(const ScratchMemory& memory) override;
  int multiprocessors() const override { return multiprocessors_; }
  void allow_tf32(bool allowed) override;
  void replay(std::unique_ptr<OperationGraph>& graph, const std::function<void()>& body) override;
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
  int multiprocessors_ = 0;
  CudaStream stream_;
  CudaMemory<int> bad_token_;  // 1 once a token was beyond the vocabulary, 2 a place beyond a cache
  DeviceMemory bad_token_on_host_{nullptr, nullptr};
  DeviceScratch products_workspace_;
  std::unique_ptr<CudaGemm> gemm_;
  DeviceScratch scratch_;  // of all other operations
};

}  // namespace flasheva
