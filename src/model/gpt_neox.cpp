#include "src/model/gpt_neox.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace flasheva {

namespace {

// Logits of one slice: so many that the head's weights are read few times, few beside a whole batch. On a GPU
// more: for each slice it reads and writes the whole float32 gradient of the head, and products with few rows
// do not fill it.
std::int64_t most_slice_rows(Device device, std::int64_t vocab_size) {
  constexpr std::int64_t multiple = 64;
  const std::int64_t elements = device == Device::cpu ? 40'000'000 : 256'000'000;
  return std::max(multiple, elements / vocab_size / multiple * multiple);
}

// Slices of about the same number of rows, for a short last one would be a slow product, and of a multiple of
// 64: with 682 rows oneDNN is 30 % slower than with 683 or 704 (AVX-512).
std::int64_t slice_rows(std::int64_t rows, std::int64_t most) {
  constexpr std::int64_t multiple = 64;
  const std::int64_t slices = (rows + most - 1) / most;
  const std::int64_t even = (rows + slices - 1) / slices;
  return std::min(rows, (even + multiple - 1) / multiple * multiple);
}

double sum_of(const Tensor& x) {  // in host memory
  double sum = 0;
  for (std::int64_t i = 0; i < x.size(); ++i)
    sum += x.dtype == DType::f64 ? x.as<double>()[i] : static_cast<double>(x.as<float>()[i]);
  return sum;
}

// table (positions, R) = function(t base^(-i / R)).
template <class Function>
void fill_rotary(Tensor table, double base, const Function& function) {
  const std::int64_t R = table.dim(1);
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < R; ++i)
    frequencies.push_back(std::pow(base, -static_cast<double>(i) / static_cast<double>(R)));
  const auto fill = [&]<class T>(T* out) {
    for (std::int64_t t = 0; t < table.dim(0); ++t)
      for (const double frequency : frequencies)
        *out++ = static_cast<T>(function(static_cast<double>(t) * frequency));
  };
  if (table.dtype == DType::f64)
    fill(table.as<double>());
  else
    fill(table.as<float>());
}

}  // namespace

std::int64_t head_slice_rows(Device device, std::int64_t rows, std::int64_t largest,
                             std::int64_t vocab_size) {
  return slice_rows(rows, slice_rows(largest, most_slice_rows(device, vocab_size)));
}

GptNeoX::GptNeoX(const ModelConfig& config, ParameterTable& parameters)
    : config_(config),
      embed_in_(parameters.at("gpt_neox.embed_in.weight")),
      embed_out_(parameters.at("embed_out.weight")),
      final_norm_(parameters, "gpt_neox.final_layer_norm", config.layer_norm_eps) {
  for (int layer = 0; layer < config.num_hidden_layers; ++layer)
    blocks_.push_back(std::make_unique<Block>(
        CoreArguments{config, parameters, fmt::format("gpt_neox.layers.{}", layer), layer}));
}

void GptNeoX::plan(MemoryPlan& plan, Device device, Extent largest, DType compute, bool training,
                   Recompute recompute) {
  const std::int64_t N = largest.rows(), V = config_.vocab_size;
  plan_activations(plan, largest, largest.tokens, compute, training, recompute);
  plan.add(head_logits_, "logits of a slice", compute, {slice_rows(N, most_slice_rows(device, V)), V});
  plan.add(losses_, "workspace", accumulation_type(compute), {N});
  plan.add(correct_, "workspace", DType::u8, {N});
}

void GptNeoX::plan_generation(MemoryPlan& plan, std::vector<LayerCache>& cache, Extent cached,
                              std::int64_t segment, DType compute) {
  plan_activations(plan, {1, std::max(segment, cached.sequences)}, cached.tokens, compute, false,
                   Recompute::none);
  cache.resize(blocks_.size());
  std::int64_t before = 0;  // tokens of before a segment that it can see, in any layer that keeps a ring
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    blocks_[layer]->plan_cache(plan, cache[layer], cached, compute);
    const LayerAttention& attention = config_.attention[layer];
    if (attention.kind != AttentionKind::full)
      before = std::max(before, std::min(cached.tokens, attention.window + attention.chunk));
  }
  if (before == 0 || cached.tokens <= segment) return;
  for (Tensor* tensor : {&work_.window_keys, &work_.window_values})
    plan.add(*tensor, "workspace", compute, {before + segment, config_.hidden_size});
}

void GptNeoX::plan_activations(MemoryPlan& plan, Extent largest, std::int64_t positions, DType compute,
                               bool training, Recompute recompute) {
  const std::int64_t N = largest.rows(), D = config_.hidden_size;
  const DType acc = accumulation_type(compute);
  recompute_ = recompute;
  graphs_.clear();

  const ActivationGroups kept = training ? kept_with(recompute) : ActivationGroups{};
  saved_.assign(blocks_.size(), {});
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer)
    blocks_[layer]->plan(plan, saved_[layer], largest, compute, kept);
  const auto fewer_chunks = [&](const auto& a, const auto& b) {
    return a->chunks(largest.tokens) < b->chunks(largest.tokens);
  };
  const Block& most_chunks = **std::max_element(blocks_.begin(), blocks_.end(), fewer_chunks);
  most_chunks.plan(plan, shared_, largest, compute, shared_beside(kept));
  const std::int64_t chunks = most_chunks.chunks(largest.tokens);
  plan_workspace(plan, work_, config_, largest, chunks, compute, training);

  cosine_ = sine_ = Tensor{};
  if (const std::int64_t R = config_.rotary_dims() / 2; R > 0) {
    plan.add(cosine_, "rotary tables", acc, {positions, R});
    plan.add(sine_, "rotary tables", acc, {positions, R});
  }
  plan.add(output_, "activations", compute, {N, D});
  plan.add(final_mean_, "activations", acc, {N});
  plan.add(final_rstd_, "activations", acc, {N});
  plan.add(final_normed_, "activations", compute, {N, D});
  head_logits_ = losses_ = correct_ = Tensor{};
  dx_ = first_not_finite_ = Tensor{};
  if (!training) return;
  plan.add(dx_, "workspace", compute, {N, D});
  plan.add(first_not_finite_, "workspace", DType::i32, {1});
}

void GptNeoX::prepare(Ops& ops) {
  for (BlockActivations& saved : saved_) share(saved, shared_);
  if (!cosine_) return;
  const auto write = [&](const Tensor& table, const auto& function) {
    host_.write(ops, table, [&](Tensor host) { fill_rotary(host, config_.rotary_emb_base, function); });
  };
  write(cosine_, [](double angle) { return std::cos(angle); });
  write(sine_, [](double angle) { return std::sin(angle); });
}

void GptNeoX::embed(const PassContext& pass, Tensor tokens) {
  pass.ops.embedding_forward(saved_[0].input.rows(0, pass.extent.rows()), tokens, embed_in_.weight);
}

template <class Step>
void GptNeoX::run_blocks(const PassContext& pass, const Step& step) {
  const std::int64_t N = pass.extent.rows();
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const bool last = layer + 1 == blocks_.size();
    step(layer, (last ? output_ : saved_[layer + 1].input).rows(0, N));
  }
  final_norm_.forward(pass.ops, final_normed_.rows(0, N), final_mean_.rows(0, N), final_rstd_.rows(0, N),
                      output_.rows(0, N));
}

void GptNeoX::forward_blocks(const PassContext& pass, AttentionErrors* errors) {
  run_blocks(pass, [&](std::size_t layer, Tensor out) {
    blocks_[layer]->forward(pass, out, saved_[layer], work_, cosine_, sine_);
    if (errors != nullptr) errors->add(pass, layer, saved_[layer], work_);
  });
}

void GptNeoX::logits(const PassContext& pass, Tensor out, Tensor tokens) {
  embed(pass, tokens);
  forward_blocks(pass);
  const std::int64_t rows = out.dim(0);
  pass.ops.linear_forward(out, final_normed_.rows(pass.extent.rows() - rows, rows), embed_out_.weight, {});
}

void GptNeoX::prefill(const PassContext& pass, Tensor logits, Tensor tokens,
                      const std::vector<LayerCache>& cache, const PromptSegment& segment) {
  embed(pass, tokens);
  run_blocks(pass, [&](std::size_t layer, Tensor out) {
    blocks_[layer]->prefill(pass, out, saved_[layer], work_, cosine_, sine_, cache[layer], segment);
  });
  if (logits)
    pass.ops.linear_forward(logits, final_normed_.rows(pass.extent.tokens - 1, 1), embed_out_.weight, {});
}

void GptNeoX::decode(const PassContext& pass, Tensor logits, Tensor tokens,
                     const std::vector<LayerCache>& cache, const CachePlaces& places) {
  embed(pass, tokens);
  run_blocks(pass, [&](std::size_t layer, Tensor out) {
    blocks_[layer]->decode(pass, out, saved_[layer], work_, cosine_, sine_, cache[layer], places);
  });
  pass.ops.linear_forward(logits, final_normed_.rows(0, pass.extent.sequences), embed_out_.weight, {});
}

LossSums GptNeoX::evaluate(const PassContext& pass, const TokenBatch& batch, AttentionErrors* errors) {
  const std::int64_t N = batch.extent.rows(), slice = slice_rows(N, head_logits_.dim(0));
  embed(pass, batch.tokens);
  forward_blocks(pass, errors);
  for (std::int64_t first = 0; first < N; first += slice) {
    const std::int64_t rows = std::min(slice, N - first);
    const Tensor slice_logits = head_logits_.rows(0, rows);
    pass.ops.linear_forward(slice_logits, final_normed_.rows(first, rows), embed_out_.weight, {});
    pass.ops.cross_entropy_forward(losses_.rows(first, rows), correct_.rows(first, rows), slice_logits,
                                   batch.targets.rows(first, rows),
                                   batch.mask ? batch.mask.rows(first, rows) : Tensor{});
  }
  LossSums sums{sum_of(host_.read(pass.ops, losses_.rows(0, N))), 0};
  const Tensor correct = host_.read(pass.ops, correct_.rows(0, N));
  for (std::int64_t i = 0; i < N; ++i) sums.correct += correct.as<std::uint8_t>()[i];
  return sums;
}

bool GptNeoX::trained_up_to(std::size_t layer) const {
  const auto end = blocks_.begin() + static_cast<std::ptrdiff_t>(layer) + 1;
  return embed_in_.trained ||
         std::any_of(blocks_.begin(), end, [](const auto& block) { return block->trained(); });
}

void GptNeoX::forward_backward(const PassContext& pass, const TokenBatch& batch, Tensor scale,
                               const LayerDone& layer_done) {
  PassGraphs& graphs = graphs_[{pass.extent.sequences, pass.extent.tokens, static_cast<bool>(batch.mask)}];
  const bool below_head = trained_up_to(blocks_.size() - 1);
  pass.ops.replay(graphs.losses, [&] {
    embed(pass, batch.tokens);
    forward_blocks(pass);
    backward_head(pass, batch, scale, below_head || final_norm_.trained());
    find_not_finite(pass);
  });
  if (layer_done) layer_done(config_.num_hidden_layers);
  if (below_head) backward_blocks(pass, graphs, layer_done);
  if (!embed_in_.trained) return;
  pass.ops.replay(graphs.embedding, [&] {
    pass.ops.embedding_backward(embed_in_.gradient, dx_.rows(0, pass.extent.rows()), batch.tokens);
  });
}

// Leaves the gradient of the last block's output in dx_.
void GptNeoX::backward_head(const PassContext& pass, const TokenBatch& batch, Tensor scale,
                            bool input_gradient) {
  const std::int64_t N = batch.extent.rows(), slice = slice_rows(N, head_logits_.dim(0));
  for (std::int64_t first = 0; first < N; first += slice) {
    const std::int64_t rows = std::min(slice, N - first);
    const Tensor normed = final_normed_.rows(first, rows), slice_logits = head_logits_.rows(0, rows);
    pass.ops.linear_forward(slice_logits, normed, embed_out_.weight, {});
    pass.ops.cross_entropy_backward(slice_logits, losses_.rows(first, rows), batch.targets.rows(first, rows),
                                    batch.mask ? batch.mask.rows(first, rows) : Tensor{}, scale);
    if (embed_out_.trained) pass.ops.linear_backward_weight(embed_out_.gradient, {}, slice_logits, normed);
    if (input_gradient)
      pass.ops.linear_backward_input(work_.branch1.rows(first, rows), slice_logits, embed_out_.weight);
  }
  if (input_gradient) {
    const Tensor dx = dx_.rows(0, N);
    pass.ops.zero(dx);
    final_norm_.backward(pass.ops, dx, work_.branch1.rows(0, N), output_.rows(0, N), final_mean_.rows(0, N),
                         final_rstd_.rows(0, N));
  }
}

// What goes into each block, what comes out of the last, and the losses.
void GptNeoX::find_not_finite(const PassContext& pass) {
  std::vector<Tensor> tensors;
  for (const BlockActivations& saved : saved_) tensors.push_back(saved.input.rows(0, pass.extent.rows()));
  for (const Tensor& last : {output_, losses_}) tensors.push_back(last.rows(0, pass.extent.rows()));
  pass.ops.first_not_finite(first_not_finite_, tensors);
}

void GptNeoX::backward_blocks(const PassContext& pass, PassGraphs& graphs, const LayerDone& layer_done) {
  for (std::size_t layer = blocks_.size(); layer-- > 0 && trained_up_to(layer);) {
    pass.ops.replay(graphs.blocks[layer], [&] { backward_block(pass, layer); });
    if (layer_done) layer_done(static_cast<int>(layer));
  }
}

void GptNeoX::backward_block(const PassContext& pass, std::size_t layer) {
  const bool input_gradient = layer > 0 ? trained_up_to(layer - 1) : embed_in_.trained;
  if (layer + 1 < blocks_.size())  // the last block's are still there
    blocks_[layer]->rebuild(pass, saved_[layer], work_, cosine_, sine_, recompute_);
  blocks_[layer]->backward(pass, dx_.rows(0, pass.extent.rows()), input_gradient, saved_[layer], work_,
                           cosine_, sine_);
}

}  // namespace flasheva
