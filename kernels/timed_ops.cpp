#include "kernels/timed_ops.h"

#include <algorithm>
#include <array>
#include <chrono>

namespace flasheva {

namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string label(const char* operation, const Shape& shape) {
  std::string text = operation;
  for (int i = 0; i < shape.rank(); ++i) text.append(i == 0 ? " " : "x").append(std::to_string(shape[i]));
  return text;
}

double bytes_of(std::initializer_list<Tensor> tensors) {
  double bytes = 0;
  for (const Tensor& tensor : tensors)
    if (tensor) bytes += static_cast<double>(tensor.bytes());
  return bytes;
}

double product_flops(const Shape& shape) { return 2.0 * static_cast<double>(shape.size()); }

// `per_pair` and dimension of a head: over every query of q (B, H, T, d), each token and chunk that it sees.
double attention_flops(double per_pair, const Tensor& q, const AttentionConfig& config) {
  std::int64_t pairs = 0;
  for (std::int64_t n = config.first_query; n < config.first_query + q.dim(2); ++n)
    pairs += n - config.visibility.first_token(n) + 1 + config.visibility.visible_chunks(n);
  return per_pair * static_cast<double>(q.dim(0) * q.dim(1) * q.dim(3)) * static_cast<double>(pairs);
}

}  // namespace

TimedOps::TimedOps(Ops& ops) : ops_(ops) {
  const DeviceMemory memory = ops_.allocate(sizeof(float));
  const Tensor number{memory.get(), DType::f32, {1}, ops_.device()};
  std::array<double, 15> seconds;
  for (double& taken : seconds) taken = seconds_of([&] { ops_.zero(number); });
  std::sort(seconds.begin(), seconds.end());
  seconds_of_least_ = seconds[seconds.size() / 2];
}

template <class Call>
double TimedOps::seconds_of(const Call& call) {
  ops_.synchronize();
  const double start = seconds_now();
  call();
  ops_.synchronize();
  return seconds_now() - start;
}

template <class Call>
void TimedOps::measure(const char* operation, const Shape& shape, std::initializer_list<Tensor> tensors,
                       double flops, const Call& call) {
  measure(operation, shape, bytes_of(tensors), flops, call);
}

template <class Call>
void TimedOps::measure(const char* operation, const Shape& shape, double bytes, double flops,
                       const Call& call) {
  const double seconds = seconds_of(call) - seconds_of_least_;
  Total& total = totals_[label(operation, shape)];
  ++total.calls;
  total.seconds += std::max(seconds, 0.0);
  total.bytes += bytes;
  total.flops += flops;
}

void TimedOps::copy(Tensor out, Tensor in) {
  measure("copy", {}, {out, in}, 0, [&] { ops_.copy(out, in); });
}

void TimedOps::start_copy(Tensor out, Tensor in) {
  measure("copy", {}, {out, in}, 0, [&] { ops_.start_copy(out, in); });
}

void TimedOps::zero(Tensor out) {
  measure("zero", {}, {out}, 0, [&] { ops_.zero(out); });
}

void TimedOps::cast(Tensor out, Tensor in) {
  measure("cast", {}, {out, in}, 0, [&] { ops_.cast(out, in); });
}

void TimedOps::fill_normal(Tensor out, double standard_deviation, std::uint64_t seed, std::uint32_t stream) {
  measure("fill_normal", {}, {out}, 0, [&] { ops_.fill_normal(out, standard_deviation, seed, stream); });
}

// A token's row alone is read, not the table.
void TimedOps::embedding_forward(Tensor out, Tensor tokens, Tensor table) {
  measure("embedding_forward", out.shape, {out, out, tokens}, 0,
          [&] { ops_.embedding_forward(out, tokens, table); });
}

void TimedOps::embedding_backward(Tensor dtable, Tensor dout, Tensor tokens) {
  measure("embedding_backward", dout.shape, {dout, dout, tokens}, 0,
          [&] { ops_.embedding_backward(dtable, dout, tokens); });
}

void TimedOps::layernorm_forward(const Norm& norm, const Norm& second, Tensor mean, Tensor rstd, Tensor x,
                                 double eps) {
  measure("layernorm_forward", x.shape, {norm.out, second.out, x}, 0,
          [&] { ops_.layernorm_forward(norm, second, mean, rstd, x, eps); });
}

void TimedOps::layernorm_backward(Tensor dx, const NormGradients& norm, const NormGradients& second, Tensor x,
                                  Tensor mean, Tensor rstd) {
  measure("layernorm_backward", x.shape, {dx, dx, norm.dout, second.dout, x}, 0,
          [&] { ops_.layernorm_backward(dx, norm, second, x, mean, rstd); });
}

void TimedOps::linear_forward(Tensor out, Tensor x, Tensor weight, Tensor bias) {
  const Shape shape{x.dim(0), x.dim(1), weight.dim(0)};
  measure("linear_forward", shape, {out, x, weight}, product_flops(shape),
          [&] { ops_.linear_forward(out, x, weight, bias); });
}

void TimedOps::linear_backward_input(Tensor dx, Tensor dout, Tensor weight) {
  const Shape shape{dx.dim(0), dx.dim(1), weight.dim(0)};
  measure("linear_backward_input", shape, {dx, dout, weight}, product_flops(shape),
          [&] { ops_.linear_backward_input(dx, dout, weight); });
}

void TimedOps::linear_backward_weight(Tensor dweight, Tensor dbias, Tensor dout, Tensor x) {
  const Shape shape = dweight ? Shape{x.dim(0), x.dim(1), dout.dim(1)} : dout.shape;
  measure(dweight ? "linear_backward_weight" : "linear_backward_bias", shape, {dweight, dweight, dout, x},
          dweight ? product_flops(shape) : 0, [&] { ops_.linear_backward_weight(dweight, dbias, dout, x); });
}

void TimedOps::gelu_forward(Tensor out, Tensor x) {
  measure("gelu_forward", x.shape, {out, x}, 0, [&] { ops_.gelu_forward(out, x); });
}

void TimedOps::gelu_backward(Tensor dx, Tensor dbias, Tensor dout, Tensor x) {
  measure("gelu_backward", x.shape, {dx, dout, x}, 0, [&] { ops_.gelu_backward(dx, dbias, dout, x); });
}

void TimedOps::residual(Tensor out, Tensor x, Tensor a, Tensor b) {
  measure("residual", x.shape, {out, x, a, b}, 0, [&] { ops_.residual(out, x, a, b); });
}

void TimedOps::qkv_rotary_forward(Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor cosine, Tensor sine) {
  measure("qkv_rotary_forward", q.shape, {q, k, v, qkv}, 0,
          [&] { ops_.qkv_rotary_forward(q, k, v, qkv, cosine, sine); });
}

void TimedOps::qkv_rotary_backward(Tensor dqkv, Tensor dq, Tensor dk, Tensor dv, Tensor cosine, Tensor sine) {
  measure("qkv_rotary_backward", dq.shape, {dqkv, dq, dk, dv}, 0,
          [&] { ops_.qkv_rotary_backward(dqkv, dq, dk, dv, cosine, sine); });
}

void TimedOps::qkv_summary_forward(Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor qkv,
                                   Tensor cosine, Tensor sine, const EvaParameters& parameters,
                                   const ChunkSummaryConfig& config) {
  measure("qkv_summary_forward", q.shape, {q, k, v, kappa, beta, qkv}, 0,
          [&] { ops_.qkv_summary_forward(q, k, v, kappa, beta, qkv, cosine, sine, parameters, config); });
}

void TimedOps::qkv_summary_backward(Tensor dqkv, const EvaParameters& gradients, Tensor dq, Tensor dk,
                                    Tensor dv, Tensor dkappa, Tensor dbeta, Tensor q, Tensor k, Tensor v,
                                    Tensor cosine, Tensor sine, const EvaParameters& parameters,
                                    const ChunkSummaryConfig& config) {
  measure("qkv_summary_backward", q.shape, {dqkv, dq, dk, dv, dkappa, dbeta, q, k, v}, 0, [&] {
    ops_.qkv_summary_backward(dqkv, gradients, dq, dk, dv, dkappa, dbeta, q, k, v, cosine, sine, parameters,
                              config);
  });
}

void TimedOps::attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa,
                                 Tensor beta, Tensor chunk_bias, const AttentionConfig& config) {
  measure("attention_forward", q.shape, {out, q, k, v, kappa, beta}, attention_flops(4, q, config),
          [&] { ops_.attention_forward(out, log_sum_exp, q, k, v, kappa, beta, chunk_bias, config); });
}

void TimedOps::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dkappa, Tensor dbeta,
                                  Tensor dchunk_bias, Tensor dout, Tensor out, Tensor log_sum_exp, Tensor q,
                                  Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor chunk_bias,
                                  const AttentionConfig& config) {
  measure("attention_backward", q.shape, {dq, dk, dv, dkappa, dbeta, dout, out, q, k, v, kappa, beta},
          attention_flops(10, q, config), [&] {
            ops_.attention_backward(dq, dk, dv, dkappa, dbeta, dchunk_bias, dout, out, log_sum_exp, q, k, v,
                                    kappa, beta, chunk_bias, config);
          });
}

void TimedOps::cache_append(Tensor q, const LayerCache& cache, Tensor qkv, Tensor cosine, Tensor sine,
                            const CachePlaces& places) {
  measure("cache_append", qkv.shape, {qkv, qkv}, 0,
          [&] { ops_.cache_append(q, cache, qkv, cosine, sine, places); });
}

void TimedOps::chunk_summary_cached(const LayerCache& cache, const EvaParameters& parameters,
                                    const ChunkSummaryConfig& config, const CachePlaces& places) {
  measure("chunk_summary_cached", places.positions.shape, {}, 0,
          [&] { ops_.chunk_summary_cached(cache, parameters, config, places); });
}

// Its bytes depend on the positions; they are not counted.
void TimedOps::attention_cached(Tensor out, Tensor q, const LayerCache& cache, Tensor chunk_bias,
                                const AttentionConfig& config, const CachePlaces& places) {
  measure("attention_cached", q.shape, {}, 0,
          [&] { ops_.attention_cached(out, q, cache, chunk_bias, config, places); });
}

void TimedOps::cache_store(const LayerCache& cache, std::int64_t sequence, std::int64_t first_position,
                           Tensor q, Tensor k, Tensor v, Tensor kappa, Tensor beta) {
  measure("cache_store", k.shape, {k, k, v, v}, 0,
          [&] { ops_.cache_store(cache, sequence, first_position, q, k, v, kappa, beta); });
}

void TimedOps::cache_window(Tensor keys, Tensor values, const LayerCache& cache, std::int64_t sequence,
                            std::int64_t first_position, Tensor k, Tensor v) {
  measure("cache_window", keys.shape, {keys, keys, values, values}, 0,
          [&] { ops_.cache_window(keys, values, cache, sequence, first_position, k, v); });
}

void TimedOps::cross_entropy_forward(Tensor losses, Tensor correct, Tensor logits, Tensor targets,
                                     Tensor mask) {
  measure("cross_entropy_forward", logits.shape, {logits}, 0,
          [&] { ops_.cross_entropy_forward(losses, correct, logits, targets, mask); });
}

void TimedOps::cross_entropy_backward(Tensor logits, Tensor losses, Tensor targets, Tensor mask,
                                      Tensor scale) {
  measure("cross_entropy_backward", logits.shape, {logits, logits}, 0,
          [&] { ops_.cross_entropy_backward(logits, losses, targets, mask, scale); });
}

void TimedOps::most_likely(Tensor tokens, Tensor logits) {
  measure("most_likely", logits.shape, {tokens, logits}, 0, [&] { ops_.most_likely(tokens, logits); });
}

// The last of them is read, as all are finite but in the worst of steps.
void TimedOps::first_not_finite(Tensor first, std::span<const Tensor> tensors) {
  const Tensor last = tensors.empty() ? Tensor{} : tensors.back();
  measure("first_not_finite", last.shape, {last}, 0, [&] { ops_.first_not_finite(first, tensors); });
}

void TimedOps::sums_of_squares(std::span<double> sums, std::span<const Tensor> tensors) {
  double bytes = 0;
  for (const Tensor& x : tensors) bytes += static_cast<double>(x.bytes());
  measure("sums_of_squares", {}, bytes, 0, [&] { ops_.sums_of_squares(sums, tensors); });
}

double TimedOps::squared_distance(Tensor x, Tensor y) {
  double sum = 0;
  measure("squared_distance", {}, {x, y}, 0, [&] { sum = ops_.squared_distance(x, y); });
  return sum;
}

void TimedOps::adamw(std::span<const AdamWParameter> parameters, const AdamWConfig& config) {
  double bytes = 0;
  for (const AdamWParameter& p : parameters)
    bytes += bytes_of({p.weight, p.weight, p.low_precision, p.m, p.m, p.v, p.v, p.gradient});
  measure("adamw", {}, bytes, 0, [&] { ops_.adamw(parameters, config); });
}

}  // namespace flasheva
