// A model, loaded to compute logits and losses, or to generate.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/host_staging.h"
#include "src/config/config.h"
#include "src/model/gpt_neox.h"
#include "src/model/initialize.h"
#include "src/model/scratch.h"
#include "src/model/token_staging.h"

namespace flasheva {

// Of each target of a batch (N); 0 where it does not count.
struct TokenLosses {
  std::span<const float> nats;
  std::span<const std::uint8_t> correct;  // 1: the target had the largest logit, first of equals
};

// A model's weights in the device's memory, ready to be computed with.
class LoadedModel {
 public:
  // Of a model or checkpoint folder. Error{data} where it is broken.
  LoadedModel(const std::filesystem::path& folder, Ops& ops, Precision precision);
  // With random weights, to measure speed.
  LoadedModel(const ModelConfig& config, Ops& ops, Precision precision, std::uint64_t seed);
  ~LoadedModel() { ops_.lend_scratch({}); }
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  const ModelConfig& config() const { return config_; }
  DType compute_type() const { return compute_; }
  std::size_t weight_bytes() const;

 protected:
  Ops& ops_;
  ModelConfig config_;
  DType compute_;
  ParameterTable parameters_;
  GptNeoX network_;
  ScratchMemory scratch_;  // of operations, lent to ops_

 private:
  void fill(const std::function<void(const MasterFilled&)>& fill_masters);

  std::unique_ptr<Buffer> weights_;
};

// Logits and losses of whole sequences. Tokens, targets, masks and logits are in host memory.
class InferenceModel : public LoadedModel {
 public:
  // `largest`: the largest batch it will see. `advice`: what the error says where there is no memory for it.
  InferenceModel(const std::filesystem::path& folder, Ops& ops, Precision precision, Extent largest,
                 const std::string& advice);

  // out (rows, V), of the compute type, = logits of the last `rows` tokens of the batch; tokens (N) int32.
  void logits(Tensor out, Tensor tokens, Extent extent);
  LossSums evaluate(const TokenBatch& batch, AttentionErrors* errors = nullptr);
  // Valid until the next call of any.
  TokenLosses token_losses(const TokenBatch& batch);

 private:
  TokenStaging tokens_;
  HostStaging losses_, correct_;
  std::unique_ptr<Buffer> memory_;
};

}  // namespace flasheva
