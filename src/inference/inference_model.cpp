#include "src/inference/inference_model.h"

#include "src/io/model_folder.h"
#include "src/model/planned_memory.h"

namespace flasheva {

LoadedModel::LoadedModel(const std::filesystem::path& folder, Ops& ops, Precision precision)
    : ops_(ops),
      config_(read_model_config(folder)),
      compute_(flasheva::compute_type(precision)),
      parameters_(config_),
      network_(config_, parameters_) {
  fill([&](const MasterFilled& filled) {
    load_parameters(parameters_, config_, config_, folder, ops_, filled);
  });
}

LoadedModel::LoadedModel(const ModelConfig& config, Ops& ops, Precision precision, std::uint64_t seed)
    : ops_(ops),
      config_(config),
      compute_(flasheva::compute_type(precision)),
      parameters_(config_),
      network_(config_, parameters_) {
  fill(
      [&](const MasterFilled& filled) { initialize_from_scratch(parameters_, config_, ops_, seed, filled); });
}

// In float32 the weights are the masters. Otherwise each master is rounded as soon as it is filled and gives
// its memory to the next, so that a device has to hold little more than the weights.
void LoadedModel::fill(const std::function<void(const MasterFilled&)>& fill_masters) {
  const char* advice = "the weights are too large for this device";
  const bool rounded = compute_ != DType::f32;
  MemoryPlan plan;
  if (rounded)
    parameters_.plan_weights(plan, compute_);
  else
    parameters_.plan_masters(plan, DType::f32);
  weights_ = std::make_unique<Buffer>(memory_for(plan, plan.bytes(), ops_, advice));
  weights_->bind(plan);
  if (!rounded) return fill_masters([](Parameter& parameter, bool) { parameter.weight = parameter.master; });

  Tensor master;
  MemoryPlan passing;
  passing.add(master, "a master, float32", DType::f32, {parameters_.largest()});
  Buffer memory = memory_for(passing, passing.bytes(), ops_, advice);
  memory.bind(passing);
  parameters_.share_master(master);
  fill_masters([&](Parameter& parameter, bool) {
    ops_.cast(parameter.weight, parameter.master);
    parameter.master = {};
  });
}

std::size_t LoadedModel::weight_bytes() const {
  std::size_t bytes = 0;
  for (const Parameter& parameter : parameters_.all()) bytes += parameter.weight.bytes();
  return bytes;
}

InferenceModel::InferenceModel(const std::filesystem::path& folder, Ops& ops, Precision precision,
                               Extent largest, const std::string& advice)
    : LoadedModel(folder, ops, precision) {
  MemoryPlan plan;
  network_.plan(plan, ops.device(), largest, compute_, false);
  tokens_.plan(plan, ops.device(), largest.rows());
  plan_forward_scratch(plan, scratch_, ops, config_, largest, compute_);
  memory_ = std::make_unique<Buffer>(memory_for(plan, plan.bytes(), ops, advice));
  memory_->bind(plan);
  ops_.lend_scratch(scratch_);
  network_.prepare(ops_);
}

void InferenceModel::logits(Tensor out, Tensor tokens, Extent extent) {
  const PassContext pass{ops_, extent, {}};
  if (ops_.device() == Device::cpu) return network_.logits(pass, out, tokens);
  const DeviceMemory memory = ops_.allocate(out.bytes());
  const Tensor there{memory.get(), out.dtype, out.shape, ops_.device()};
  network_.logits(pass, there, tokens_.on_device(ops_, {extent, tokens, {}, {}}).tokens);
  ops_.copy(out, there);
}

LossSums InferenceModel::evaluate(const TokenBatch& batch, AttentionErrors* errors) {
  return network_.evaluate({ops_, batch.extent, {}}, tokens_.on_device(ops_, batch), errors);
}

TokenLosses InferenceModel::token_losses(const TokenBatch& batch) {
  evaluate(batch);
  const std::int64_t N = batch.extent.rows();
  const Tensor nats = losses_.read(ops_, network_.losses().rows(0, N));
  const Tensor correct = correct_.read(ops_, network_.correct().rows(0, N));
  return {{nats.as<float>(), static_cast<std::size_t>(N)},
          {correct.as<std::uint8_t>(), static_cast<std::size_t>(N)}};
}

}  // namespace flasheva
