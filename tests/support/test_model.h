// A whole model with its memory, ready to compute: what model and training tests start from.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "src/io/model_folder.h"
#include "src/model/gpt_neox.h"
#include "src/model/initialize.h"

namespace flasheva {

class TestModel {
 public:
  // Loads `folder` with masters of `masters`, computing in `compute`, for batches up to `largest`.
  TestModel(const std::filesystem::path& folder, DType masters, DType compute, Extent largest,
            const std::vector<std::string>& train = {"all"})
      : config(read_model_config(folder)),
        parameters(config),
        network(config, parameters),
        ops(make_cpu_ops()) {
    MemoryPlan plan;
    parameters.plan_masters(plan, masters);
    masters_ = std::make_unique<Buffer>(plan.bytes());
    masters_->bind(plan);
    load_parameters(parameters, config, config, folder);
    parameters.select(train);

    MemoryPlan rest;
    parameters.plan_weights(rest, compute);
    parameters.plan_gradients(rest);
    network.plan(rest, largest, compute, true);
    memory_ = std::make_unique<Buffer>(rest.bytes());
    memory_->bind(rest);
    network.prepare();
    if (compute == DType::bf16)
      for (Parameter& parameter : parameters.all()) ops->cast(parameter.weight, parameter.master);
  }

  ModelConfig config;
  ParameterTable parameters;
  GptNeoX network;
  std::unique_ptr<Ops> ops;

 private:
  std::unique_ptr<Buffer> masters_, memory_;
};

}  // namespace flasheva
