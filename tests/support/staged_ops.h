// Ops whose tensors are in host memory, over a device that has memory of its own: every argument is copied
// there, and back. It lets one suite of tests serve every device.
#pragma once

#include <map>
#include <memory>
#include <type_traits>
#include <vector>

#include "kernels/ops.h"

namespace flasheva {

class StagedOps final : public Ops {
 private:
  // The copies of one call's arguments. Arguments that are the same memory stay the same.
  class Staging {
   public:
    explicit Staging(Ops& ops) : ops_(ops) {}
    Tensor operator()(Tensor host);
    EvaParameters operator()(EvaParameters parameters);
    LayerCache operator()(LayerCache cache);
    Norm operator()(const Norm& norm) {
      return {(*this)(norm.out), (*this)(norm.weight), (*this)(norm.bias)};
    }
    NormGradients operator()(const NormGradients& norm) {
      return {(*this)(norm.dweight), (*this)(norm.dbias), (*this)(norm.dout), (*this)(norm.weight)};
    }
    ChunkSummaryConfig operator()(ChunkSummaryConfig config) {
      config.noise.place = (*this)(config.noise.place);
      return config;
    }
    std::vector<Tensor> operator()(std::span<const Tensor> tensors) {
      std::vector<Tensor> staged;
      for (const Tensor& tensor : tensors) staged.push_back((*this)(tensor));
      return staged;
    }
    CachePlaces operator()(const CachePlaces& places) {
      return {(*this)(places.sequences), (*this)(places.positions)};
    }
    void copy_back();

   private:
    struct Copy {
      Tensor host, device;
      DeviceMemory memory;
    };
    Ops& ops_;
    std::map<void*, Copy> copies_;
  };

  template <class Call>
  auto staged(const Call& call) {
    Staging on(*ops_);
    if constexpr (std::is_void_v<decltype(call(on))>) {
      call(on);
      on.copy_back();
    } else {
      const auto result = call(on);
      on.copy_back();
      return result;
    }
  }

 public:
  explicit StagedOps(std::unique_ptr<Ops> ops) : ops_(std::move(ops)) {}

  Device device() const override { return Device::cpu; }
  DeviceMemory allocate(std::size_t bytes) override { return allocate_host_memory(bytes); }
  void copy(Tensor out, Tensor in) override {
    staged([&](Staging& on) { ops_->copy(on(out), on(in)); });
  }
  DeviceMemory allocate_on_host(std::size_t bytes) override { return allocate(bytes); }
  void start_copy(Tensor out, Tensor in) override { copy(out, in); }
  void synchronize() override { ops_->synchronize(); }
  void lend_scratch(const ScratchMemory&) override {}  // the device has no use for host memory
  void allow_tf32(bool allowed) override { ops_->allow_tf32(allowed); }

  void zero(Tensor out) override {
    return staged([&](Staging& on) { return ops_->zero(on(out)); });
  }
  void cast(Tensor out, Tensor in) override {
    return staged([&](Staging& on) { return ops_->cast(on(out), on(in)); });
  }
  void fill_normal(Tensor out, double standard_deviation, std::uint64_t seed, std::uint32_t stream) override {
    return staged([&](Staging& on) { return ops_->fill_normal(on(out), standard_deviation, seed, stream); });
  }
  void embedding_forward(Tensor out, Tensor tokens, Tensor table) override {
    return staged([&](Staging& on) { return ops_->embedding_forward(on(out), on(tokens), on(table)); });
  }
  void embedding_backward(Tensor dtable, Tensor dout, Tensor tokens) override {
    return staged([&](Staging& on) { return ops_->embedding_backward(on(dtable), on(dout), on(tokens)); });
  }
  void layernorm_forward(const Norm& norm, const Norm& second, Tensor mean, Tensor rstd, Tensor x,
                         double eps) override {
    return staged([&](Staging& on) {
      return ops_->layernorm_forward(on(norm), on(second), on(mean), on(rstd), on(x), eps);
    });
  }
  void layernorm_backward(Tensor dx, const NormGradients& norm, const NormGradients& second, Tensor x,
                          Tensor mean, Tensor rstd) override {
    return staged([&](Staging& on) {
      return ops_->layernorm_backward(on(dx), on(norm), on(second), on(x), on(mean), on(rstd));
    });
  }
  void linear_forward(Tensor out, Tensor x, Tensor weight, Tensor bias) override {
    return staged([&](Staging& on) { return ops_->linear_forward(on(out), on(x), on(weight), on(bias)); });
  }
  void linear_backward_input(Tensor dx, Tensor dout, Tensor weight) override {
    return staged([&](Staging& on) { return ops_->linear_backward_input(on(dx), on(dout), on(weight)); });
  }
  void linear_backward_weight(Tensor dweight, Tensor dbias, Tensor dout, Tensor x) override {
    return staged(
        [&](Staging& on) { return ops_->linear_backward_weight(on(dweight), on(dbias), on(dout), on(x)); });
  }
  void gelu_forward(Tensor out, Tensor x) override {
    return staged([&](Staging& on) { return ops_->gelu_forward(on(out), on(x)); });
  }
  void gelu_backward(Tensor dx, Tensor dbias, Tensor dout, Tensor x) override {
    return staged([&](Staging& on) { return ops_->gelu_backward(on(dx), on(dbias), on(dout), on(x)); });
  }
  void residual(Tensor out, Tensor x, Tensor a, Tensor b) override {
    return staged([&](Staging& on) { return ops_->residual(on(out), on(x), on(a), on(b)); });
  }
  void qkv_rotary_forward(Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor cosine, Tensor sine) override {
    return staged([&](Staging& on) {
      return ops_->qkv_rotary_forward(on(q), on(k), on(v), on(qkv), on(cosine), on(sine));
    });
  }
  void qkv_rotary_backward(Tensor dqkv, Tensor dq, Tensor dk, Tensor dv, Tensor cosine,
                           Tensor sine) override {
    return staged([&](Staging& on) {
      return ops_->qkv_rotary_backward(on(dqkv), on(dq), on(dk), on(dv), on(cosine), on(sine));
    });
  }
  void qkv_summary_forward(Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor qkv, Tensor cosine,
                           Tensor sine, const EvaParameters& parameters,
                           const ChunkSummaryConfig& config) override {
    return staged([&](Staging& on) {
      return ops_->qkv_summary_forward(on(q), on(k), on(v), on(kappa), on(beta), on(qkv), on(cosine),
                                       on(sine), on(parameters), on(config));
    });
  }
  void qkv_summary_backward(Tensor dqkv, const EvaParameters& gradients, Tensor dq, Tensor dk, Tensor dv,
                            Tensor dkappa, Tensor dbeta, Tensor q, Tensor k, Tensor v, Tensor cosine,
                            Tensor sine, const EvaParameters& parameters,
                            const ChunkSummaryConfig& config) override {
    return staged([&](Staging& on) {
      return ops_->qkv_summary_backward(on(dqkv), on(gradients), on(dq), on(dk), on(dv), on(dkappa),
                                        on(dbeta), on(q), on(k), on(v), on(cosine), on(sine), on(parameters),
                                        on(config));
    });
  }
  void attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa,
                         Tensor beta, Tensor chunk_bias, const AttentionConfig& config) override {
    return staged([&](Staging& on) {
      return ops_->attention_forward(on(out), on(log_sum_exp), on(q), on(k), on(v), on(kappa), on(beta),
                                     on(chunk_bias), config);
    });
  }
  void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dkappa, Tensor dbeta, Tensor dchunk_bias,
                          Tensor dout, Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v,
                          Tensor kappa, Tensor beta, Tensor chunk_bias,
                          const AttentionConfig& config) override {
    return staged([&](Staging& on) {
      return ops_->attention_backward(on(dq), on(dk), on(dv), on(dkappa), on(dbeta), on(dchunk_bias),
                                      on(dout), on(out), on(log_sum_exp), on(q), on(k), on(v), on(kappa),
                                      on(beta), on(chunk_bias), config);
    });
  }
  void cache_append(Tensor q, const LayerCache& cache, Tensor qkv, Tensor cosine, Tensor sine,
                    const CachePlaces& places) override {
    return staged([&](Staging& on) {
      return ops_->cache_append(on(q), on(cache), on(qkv), on(cosine), on(sine), on(places));
    });
  }
  void chunk_summary_cached(const LayerCache& cache, const EvaParameters& parameters,
                            const ChunkSummaryConfig& config, const CachePlaces& places) override {
    return staged([&](Staging& on) {
      return ops_->chunk_summary_cached(on(cache), on(parameters), on(config), on(places));
    });
  }
  void attention_cached(Tensor out, Tensor q, const LayerCache& cache, Tensor chunk_bias,
                        const AttentionConfig& config, const CachePlaces& places) override {
    return staged([&](Staging& on) {
      return ops_->attention_cached(on(out), on(q), on(cache), on(chunk_bias), config, on(places));
    });
  }
  void cache_store(const LayerCache& cache, std::int64_t sequence, std::int64_t first_position, Tensor q,
                   Tensor k, Tensor v, Tensor kappa, Tensor beta) override {
    return staged([&](Staging& on) {
      return ops_->cache_store(on(cache), sequence, first_position, on(q), on(k), on(v), on(kappa), on(beta));
    });
  }
  void cache_window(Tensor keys, Tensor values, const LayerCache& cache, std::int64_t sequence,
                    std::int64_t first_position, Tensor k, Tensor v) override {
    return staged([&](Staging& on) {
      return ops_->cache_window(on(keys), on(values), on(cache), sequence, first_position, on(k), on(v));
    });
  }
  void cross_entropy_forward(Tensor losses, Tensor correct, Tensor logits, Tensor targets,
                             Tensor mask) override {
    return staged([&](Staging& on) {
      return ops_->cross_entropy_forward(on(losses), on(correct), on(logits), on(targets), on(mask));
    });
  }
  void cross_entropy_backward(Tensor logits, Tensor losses, Tensor targets, Tensor mask,
                              Tensor scale) override {
    return staged([&](Staging& on) {
      return ops_->cross_entropy_backward(on(logits), on(losses), on(targets), on(mask), on(scale));
    });
  }
  void most_likely(Tensor tokens, Tensor logits) override {
    return staged([&](Staging& on) { return ops_->most_likely(on(tokens), on(logits)); });
  }
  void first_not_finite(Tensor first, std::span<const Tensor> tensors) override {
    staged([&](Staging& on) { ops_->first_not_finite(on(first), on(tensors)); });
  }
  void sums_of_squares(std::span<double> sums, std::span<const Tensor> tensors) override {
    staged([&](Staging& on) { ops_->sums_of_squares(sums, on(tensors)); });
  }
  double squared_distance(Tensor x, Tensor y) override {
    return staged([&](Staging& on) { return ops_->squared_distance(on(x), on(y)); });
  }
  void adamw(std::span<const AdamWParameter> parameters, const AdamWConfig& config) override {
    staged([&](Staging& on) {
      std::vector<AdamWParameter> staged_parameters;
      for (const AdamWParameter& p : parameters)
        staged_parameters.push_back(
            {on(p.weight), on(p.low_precision), on(p.m), on(p.v), on(p.gradient), p.weight_decay});
      ops_->adamw(staged_parameters, config);
    });
  }

 private:
  std::unique_ptr<Ops> ops_;
};

}  // namespace flasheva
