#include "src/model/initialize.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include "kernels/host_staging.h"
#include "src/core/error.h"
#include "src/core/text.h"
#include "src/io/model_folder.h"
#include "src/io/safetensors.h"

namespace flasheva {

namespace {

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

void set(const Tensor& tensor, std::int64_t i, double value) {
  if (tensor.dtype == DType::f64)
    tensor.as<double>()[i] = value;
  else
    tensor.as<float>()[i] = static_cast<float>(value);
}

void fill(const Tensor& tensor, double value) {
  for (std::int64_t i = 0; i < tensor.size(); ++i) set(tensor, i, value);
}

// The number N of `gpt_neox.layers.N.`, or -1.
std::int64_t layer_of(const std::string& name) {
  constexpr std::string_view prefix = "gpt_neox.layers.";
  return name.rfind(prefix, 0) == 0 ? std::stoll(name.substr(prefix.size())) : -1;
}

bool is_eva_tensor(const std::string& name) { return name.find(".attention.eva.") != std::string::npos; }

// Adapters start as the identity, mu and phi at 0 (uniform pooling), a learned chunk bias at log P. `master`:
// of `parameter`, in host memory.
void initialize_eva(const Tensor& master, const Parameter& parameter, const ModelConfig& config) {
  fill(master, 0);
  if (ends_with(parameter.name, "_proj.weight"))
    for (std::int64_t i = 0; i < master.dim(0); ++i) set(master, i * master.dim(1) + i, 1);
  if (ends_with(parameter.name, "_norm.weight")) fill(master, 1);
  if (ends_with(parameter.name, ".chunk_bias"))
    fill(master, std::log(static_cast<double>(
                     config.attention[static_cast<std::size_t>(layer_of(parameter.name))].chunk)));
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
                    [&](Tensor host) { fill(host, ends_with(parameter.name, "norm.weight") ? 1 : 0); });
    filled(parameter, /*anew=*/true);
  }
}

SwapReport load_parameters(ParameterTable& parameters, const ModelConfig& config, const ModelConfig& before,
                           const std::filesystem::path& folder, Ops& ops, const MasterFilled& filled) {
  const SafetensorsReader file(folder);
  HostStaging staging;
  SwapReport report;
  for (Parameter& parameter : parameters.all()) {
    const std::int64_t layer = layer_of(parameter.name);
    const bool was_eva =
        layer >= 0 && before.attention[static_cast<std::size_t>(layer)].kind == AttentionKind::eva;
    const bool anew = is_eva_tensor(parameter.name) && !was_eva;
    if (anew) report.started.push_back(parameter.name);
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
