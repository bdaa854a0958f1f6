#include "src/inference/inference_model.h"

#include "src/io/model_folder.h"
#include "src/model/initialize.h"

namespace flasheva {

InferenceModel::InferenceModel(const std::filesystem::path& folder, Ops& ops, Precision precision,
                               Extent largest)
    : ops_(ops),
      config_(read_model_config(folder)),
      compute_(precision == Precision::bf16 ? DType::bf16 : DType::f32),
      parameters_(config_),
      network_(config_, parameters_) {
  MemoryPlan masters;
  parameters_.plan_masters(masters, DType::f32);
  masters_ = std::make_unique<Buffer>(masters.bytes());
  masters_->bind(masters);
  load_parameters(parameters_, config_, config_, folder);

  MemoryPlan plan;
  parameters_.plan_weights(plan, compute_);
  network_.plan(plan, largest, compute_, false);
  memory_ = std::make_unique<Buffer>(plan.bytes());
  memory_->bind(plan);
  network_.prepare();
  for (Parameter& parameter : parameters_.all())
    if (compute_ != DType::f32) ops_.cast(parameter.weight, parameter.master);
}

void InferenceModel::logits(Tensor out, Tensor tokens, Extent extent) {
  network_.logits({ops_, extent, {}}, out, tokens);
}

LossSums InferenceModel::evaluate(const TokenBatch& batch) {
  return network_.evaluate({ops_, batch.extent, {}}, batch);
}

}  // namespace flasheva
