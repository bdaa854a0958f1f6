// A model folder or checkpoint, loaded to compute logits and losses.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "kernels/buffer.h"
#include "src/config/config.h"
#include "src/model/gpt_neox.h"

namespace flasheva {

class InferenceModel {
 public:
  // `largest`: the largest batch it will see. Error{data} for a broken folder.
  InferenceModel(const std::filesystem::path& folder, Ops& ops, Precision precision, Extent largest);

  const ModelConfig& config() const { return config_; }
  DType compute_type() const { return compute_; }

  // out (rows, V) = logits of the last `rows` tokens of the batch; tokens (N) int32.
  void logits(Tensor out, Tensor tokens, Extent extent);
  LossSums evaluate(const TokenBatch& batch);

 private:
  Ops& ops_;
  ModelConfig config_;
  DType compute_;
  ParameterTable parameters_;
  GptNeoX network_;
  std::unique_ptr<Buffer> masters_, memory_;
};

}  // namespace flasheva
