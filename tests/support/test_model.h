// A whole model with its memory on the device under test, ready to compute: what model and training tests
// start from.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "src/io/model_folder.h"
#include "src/model/gpt_neox.h"
#include "src/model/initialize.h"
#include "src/model/token_staging.h"
#include "tests/support/device_tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {

class TestModel {
 public:
  // Loads `folder` with masters of `masters`, computing in `compute`, for batches up to `largest`.
  TestModel(const std::filesystem::path& folder, DType masters, DType compute, Extent largest,
            const std::vector<std::string>& train = {"all"}, Recompute recompute = Recompute::none)
      : ops(make_device_ops()),
        config(read_model_config(folder)),
        parameters(config),
        network(config, parameters) {
    MemoryPlan plan;
    parameters.plan_masters(plan, masters);
    masters_ = std::make_unique<Buffer>(plan.bytes(), *ops);
    masters_->bind(plan);
    load_parameters(parameters, config, config, folder, *ops);
    parameters.select(train);

    MemoryPlan rest;
    parameters.plan_weights(rest, compute);
    parameters.plan_gradients(rest);
    network.plan(rest, ops->device(), largest, compute, true, recompute);
    tokens_.plan(rest, ops->device(), largest.rows());
    rest.add(noise_place, "noise", DType::i32, {2});
    rest.add(scale_, "scale", accumulation_type(compute), {1});
    memory_ = std::make_unique<Buffer>(rest.bytes(), *ops);
    memory_->bind(rest);
    network.prepare(*ops);
    if (is_low_precision(compute))
      for (Parameter& parameter : parameters.all()) ops->cast(parameter.weight, parameter.master);
  }

  // A batch in host memory, where the model can read it.
  TokenBatch on_device(const TokenBatch& host) { return tokens_.on_device(*ops, host); }
  // The summed losses of a batch on the device, in nats; gradients += scale x theirs.
  double forward_backward(const PassContext& pass, const TokenBatch& batch, double scale) {
    TestTensor value(scale_.dtype, {1});
    value.set(0, scale);
    ops->copy(scale_, value);
    network.forward_backward(pass, batch, scale_);
    const TestTensor losses = values_of(network.losses().rows(0, batch.extent.rows()));
    double nats = 0;
    for (std::int64_t i = 0; i < losses.size(); ++i) nats += losses.get(i);
    return nats;
  }
  // The values of one of its tensors.
  TestTensor values_of(const Tensor& tensor) const { return copy_of(*ops, tensor); }

  std::unique_ptr<Ops> ops;
  ModelConfig config;
  ParameterTable parameters;
  GptNeoX network;
  Tensor noise_place;  // (2), of step 0 and sequence 0

 private:
  TokenStaging tokens_;
  Tensor scale_;  // (1)
  std::unique_ptr<Buffer> masters_, memory_;
};

}  // namespace flasheva
