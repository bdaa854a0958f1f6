#include "src/inference/inference_model.h"

#include "src/io/model_folder.h"
#include "src/model/initialize.h"

namespace flasheva {

LoadedModel::LoadedModel(const std::filesystem::path& folder, Ops& ops, Precision precision)
    : ops_(ops),
      config_(read_model_config(folder)),
      compute_(precision == Precision::bf16 ? DType::bf16 : DType::f32),
      parameters_(config_),
      network_(config_, parameters_) {
  take_memory();
  load_parameters(parameters_, config_, config_, folder, ops_);
  round_weights();
}

LoadedModel::LoadedModel(const ModelConfig& config, Ops& ops, Precision precision, std::uint64_t seed)
    : ops_(ops),
      config_(config),
      compute_(precision == Precision::bf16 ? DType::bf16 : DType::f32),
      parameters_(config_),
      network_(config_, parameters_) {
  take_memory();
  initialize_from_scratch(parameters_, config_, ops, seed);
  round_weights();
}

void LoadedModel::take_memory() {
  MemoryPlan masters, weights;
  parameters_.plan_masters(masters, DType::f32);
  masters_ = std::make_unique<Buffer>(masters.bytes());
  masters_->bind(masters);
  parameters_.plan_weights(weights, compute_);
  weights_ = std::make_unique<Buffer>(weights.bytes());
  weights_->bind(weights);
}

void LoadedModel::round_weights() {
  if (compute_ == DType::f32) return;  // the weights are the masters
  for (Parameter& parameter : parameters_.all()) {
    ops_.cast(parameter.weight, parameter.master);
    parameter.master = {};
  }
  masters_.reset();
}

std::size_t LoadedModel::weight_bytes() const {
  std::size_t bytes = 0;
  for (const Parameter& parameter : parameters_.all()) bytes += parameter.weight.bytes();
  return bytes;
}

InferenceModel::InferenceModel(const std::filesystem::path& folder, Ops& ops, Precision precision,
                               Extent largest)
    : LoadedModel(folder, ops, precision) {
  MemoryPlan plan;
  network_.plan(plan, largest, compute_, false);
  memory_ = std::make_unique<Buffer>(plan.bytes());
  memory_->bind(plan);
  network_.prepare(ops_);
}

void InferenceModel::logits(Tensor out, Tensor tokens, Extent extent) {
  network_.logits({ops_, extent, {}}, out, tokens);
}

LossSums InferenceModel::evaluate(const TokenBatch& batch, AttentionErrors* errors) {
  return network_.evaluate({ops_, batch.extent, {}}, batch, errors);
}

TokenLosses InferenceModel::token_losses(const TokenBatch& batch) {
  evaluate(batch);
  const auto N = static_cast<std::size_t>(batch.extent.rows());
  return {{network_.losses().as<float>(), N}, {network_.correct().as<std::uint8_t>(), N}};
}

}  // namespace flasheva
