// Ops that measures another Ops: where the time of a step goes, operation by operation and shape by shape. It
// waits for the device before and after every operation; what the least of operations takes that way, zero()
// of one number, is measured first and left out of every time. On a GPU that is a kernel's start and the wait
// for it: times of a few microseconds remain uncertain by about as much.
#pragma once

#include <map>
#include <string>

#include "kernels/ops.h"

namespace flasheva {

class TimedOps : public Ops {
 public:
  // All calls of one operation with one shape.
  struct Total {
    std::int64_t calls = 0;
    double seconds = 0;  // 0 where they take no longer than the least of operations
    double bytes = 0;    // of the tensors named in the calls, each once
    // Of linear layers and of attention, as model FLOPs: of attention's backward pass the logits once again,
    // and nothing else that a kernel computes twice.
    double flops = 0;
  };

  explicit TimedOps(Ops& ops);

  // By "operation shape", the shape being (N, I, O) of a linear layer and the first tensor's elsewhere.
  const std::map<std::string, Total>& totals() const { return totals_; }
  void clear() { totals_.clear(); }

  Device device() const override { return ops_.device(); }
  DeviceMemory allocate(std::size_t bytes) override { return ops_.allocate(bytes); }
  std::size_t device_memory_taken() override { return ops_.device_memory_taken(); }
  void copy(Tensor out, Tensor in) override;
  DeviceMemory allocate_on_host(std::size_t bytes) override { return ops_.allocate_on_host(bytes); }
  void start_copy(Tensor out, Tensor in) override;
  void synchronize() override { ops_.synchronize(); }
  void lend_scratch(const ScratchMemory& memory) override { ops_.lend_scratch(memory); }
  int multiprocessors() const override { return ops_.multiprocessors(); }
  void allow_tf32(bool allowed) override { ops_.allow_tf32(allowed); }
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
  template <class Call>
  double seconds_of(const Call& call);
  template <class Call>
  void measure(const char* operation, const Shape& shape, double bytes, double flops, const Call& call);
  template <class Call>
  void measure(const char* operation, const Shape& shape, std::initializer_list<Tensor> tensors, double flops,
               const Call& call);

  Ops& ops_;
  double seconds_of_least_ = 0;
  std::map<std::string, Total> totals_;
};

}  // namespace flasheva
