#include "src/model/initialize.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "kernels/host_staging.h"
#include "src/core/error.h"
#include "src/core/text.h"
#include "src/io/model_folder.h"
#include "src/io/safetensors.h"

namespace flasheva {

namespace {

void set(const Tensor& tensor, std::int64_t i, double value) {
  if (tensor.dtype == DType::f64)
    tensor.as<double>()[i] = value;
  else
    tensor.as<float>()[i] = static_cast<float>(value);
}

void fill(const Tensor& tensor, double value) {
  for (std::int64_t i = 0; i < tensor.size(); ++i) set(tensor, i, value);
}

const LayerAttention& attention_of(const ModelConfig& config, int layer) {
  return config.attention[static_cast<std::size_t>(layer)];
}

[[noreturn]] void fail_without_eva_tensor(const std::string& name, const std::filesystem::path& file) {
  fail(ExitCode::data,
       "{}: tensor {} is missing; a layer that is eva keeps the adapter, proposal and chunk_bias it was "
       "trained "
       "with, unless `flasheva convert --attention full` comes first",
       file.string(), name);
}

bool is_eva_tensor(const std::string& name) { return name.find(".attention.eva.") != std::string::npos; }

// Adapters start as the identity, mu and phi at 0 (uniform pooling), a learned chunk bias at log P. `master`:
// of `parameter`, in host memory.
void initialize_eva(const Tensor& master, const Parameter& parameter, const ModelConfig& config) {
  fill(master, 0);
  if (parameter.name.ends_with("_proj.weight"))
    for (std::int64_t i = 0; i < master.dim(0); ++i) set(master, i * master.dim(1) + i, 1);
  if (parameter.name.ends_with("_norm.weight")) fill(master, 1);
  if (parameter.name.ends_with(".chunk_bias"))
    fill(master, std::log(static_cast<double>(attention_of(config, layer_of(parameter.name).value()).chunk)));
}

}  // namespace

void initialize_from_scratch(ParameterTable& parameters, const ModelConfig& config, Ops& ops,
                             std::uint64_t seed, const MasterFilled& filled) {
  std::uint32_t stream = 0;
  HostStaging staging;
  for (Parameter& parameter : parameters.all()) {
    const std::uint32_t own_stream = stream++;
    if (is_eva_tensor(parameter.name))
      staging.write(ops, parameter.master, [&](Tensor host) { initialize_eva(host, parameter, config); });
    else if (parameter.shape.rank() >= 2)
      ops.fill_normal(parameter.master, config.initializer_range, seed, own_stream);
    else
      staging.write(ops, parameter.master,
                    [&](Tensor host) { fill(host, parameter.name.ends_with("norm.weight") ? 1 : 0); });
    filled(parameter, /*anew=*/true);
  }
}

SwapReport load_parameters(ParameterTable& parameters, const ModelConfig& config, const ModelConfig& before,
                           const std::filesystem::path& folder, Ops& ops, const MasterFilled& filled) {
  const SafetensorsReader file(folder);
  HostStaging staging;
  SwapReport report;
  for (Parameter& parameter : parameters.all()) {
    const std::optional<int> layer = layer_of(parameter.name);
    const bool was_eva = layer && attention_of(before, *layer).kind == AttentionKind::eva;
    const bool anew = is_eva_tensor(parameter.name) && !was_eva;
    if (anew) report.started.push_back(parameter.name);
    if (!anew && is_eva_tensor(parameter.name) && !file.contains(parameter.name))
      fail_without_eva_tensor(parameter.name, file.path());
    staging.write(ops, parameter.master, [&](Tensor host) {
      if (anew)
        initialize_eva(host, parameter, config);
      else
        load_tensor(host, file.at(parameter.name),
                    fmt::format("{}: tensor {}", file.path().string(), parameter.name));
    });
    filled(parameter, anew);
  }
  for (const auto& [name, stored] : file.tensors())
    if (parameters.find(name) == nullptr && !is_legacy_buffer(name)) report.dropped.push_back(name);
  for (const std::string& name : report.dropped)
    if (!is_eva_tensor(name))
      fail(ExitCode::data, "{}: tensor {} does not belong to this model; is config.json the right one?",
           file.path().string(), printable(name));
  return report;
}

}  // namespace flasheva
