// The first values of a model's parameters: from scratch, from a model folder, and of the EVA tensors that a
// swap of attention adds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "src/model/parameters.h"

namespace flasheva {

// Called as soon as a parameter's master has its value, before the next one is filled. `anew`: the value
// comes from no folder.
using MasterFilled = std::function<void(Parameter& parameter, bool anew)>;
inline void keep_master(Parameter& /*parameter*/, bool /*anew*/) {}

// Weights N(0, initializer_range), biases 0, norms 1; EVA tensors as initialize_eva does.
void initialize_from_scratch(ParameterTable& parameters, const ModelConfig& config, Ops& ops,
                             std::uint64_t seed, const MasterFilled& filled = keep_master);

// What a swap changed, for the log.
struct SwapReport {
  std::vector<std::string> started;  // EVA tensors that start anew
  std::vector<std::string> dropped;  // tensors of the folder that the model no longer uses
};

// Masters = the folder's tensors. `before` is the folder's own config, the table's the one after the swap:
// EVA tensors of layers that were not `eva` before start anew, all others must be there. Error{data} names
// what is missing or misshapen.
SwapReport load_parameters(ParameterTable& parameters, const ModelConfig& config, const ModelConfig& before,
                           const std::filesystem::path& folder, Ops& ops,
                           const MasterFilled& filled = keep_master);

}  // namespace flasheva
