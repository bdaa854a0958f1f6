// flasheva convert SRC DST: writes a Hugging Face folder, with another attention where flags ask for it.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/commands/commands.h"
#include "src/commands/device_options.h"
#include "src/commands/verify_export.h"
#include "src/config/config.h"
#include "src/core/error.h"
#include "src/io/model_card.h"
#include "src/io/model_folder.h"
#include "src/model/initialize.h"

namespace flasheva {

namespace {

// A flag and the key of model.attention that it sets.
struct AttentionFlag {
  const char* flag;
  const char* key;
  const char* description;
};
constexpr AttentionFlag attention_flags[] = {
    {"--attention", "default", "full, sliding or eva: the kind of every layer"},
    {"--window", "window", "W, tokens attended exactly"},
    {"--chunk", "chunk", "P, tokens a summary stands for"},
    {"--window-kind", "window_kind", "block or sliding"},
    {"--chunk-visibility", "chunk_visibility", "outside_window or all_past"},
    {"--adapter", "adapter", "none, linear, linear_layernorm or learned"},
    {"--proposal", "proposal", "qk, k or zero"},
    {"--chunk-bias", "chunk_bias", "none, log_chunk or learned"},
};

struct Options {
  std::string source, destination, dtype;
  std::vector<std::string> attention = std::vector<std::string>(std::size(attention_flags));
  std::vector<std::string> layers;  // 0=full, or "3={kind: eva, window: 128}"
  std::string noise_clip;
  bool verify = false;
  std::string python = "python3";
  DeviceOptions device;
};

// The flags as the YAML of model.attention; nothing where none was given.
std::optional<AttentionSettings> settings_of(const Options& options) {
  std::string yaml;
  for (std::size_t i = 0; i < std::size(attention_flags); ++i)
    if (!options.attention[i].empty())
      yaml += fmt::format("{}: {}\n", attention_flags[i].key, options.attention[i]);
  if (!options.layers.empty()) yaml += "layers:\n";
  for (const std::string& layer : options.layers) {
    const std::size_t equals = layer.find('=');
    if (equals == std::string::npos)
      fail(ExitCode::usage, "--layers {}: write LAYER=KIND, such as 0=full", layer);
    yaml += fmt::format("  {}: {}\n", layer.substr(0, equals), layer.substr(equals + 1));
  }
  if (!options.noise_clip.empty()) yaml += fmt::format("noise: {{clip: {}}}\n", options.noise_clip);
  if (yaml.empty()) return std::nullopt;
  return parse_attention_settings(yaml, "convert");
}

std::optional<StoredType> type_named(const std::string& dtype) {
  if (dtype == "float32") return StoredType::F32;
  if (dtype == "float16") return StoredType::F16;
  if (dtype == "bfloat16") return StoredType::BF16;
  return std::nullopt;
}

bool is_floating(StoredType type) {
  return type == StoredType::F32 || type == StoredType::F16 || type == StoredType::BF16 ||
         type == StoredType::F64;
}

// The tensors to write, and the memory of those that had to be made.
struct Converted {
  NamedTensors tensors;
  std::vector<std::unique_ptr<std::vector<std::byte>>> owned;
};

// `started`: the values of those that no file has; must outlive what is returned.
Converted convert_tensors(const SafetensorsReader& file, const ParameterTable& parameters,
                          std::map<std::string, std::vector<float>>& started,
                          std::optional<StoredType> type) {
  Converted out;
  const StoredType usual = file.at("gpt_neox.embed_in.weight").dtype;
  for (const Parameter& parameter : parameters.all()) {
    const auto found = started.find(parameter.name);
    const bool anew = found != started.end();
    StoredTensor tensor =
        anew ? stored(view_of(found->second.data(), parameter.shape)) : file.at(parameter.name);
    const StoredType wanted = type                                                     ? *type
                              : anew && is_floating(usual) && usual != StoredType::F64 ? usual
                                                                                       : tensor.dtype;
    if (tensor.dtype != wanted) {
      out.owned.push_back(std::make_unique<std::vector<std::byte>>(convert_elements(tensor, wanted)));
      tensor.dtype = wanted;
      tensor.data = *out.owned.back();
    }
    out.tensors.emplace_back(parameter.name, tensor);
  }
  return out;
}

// The record of the source's training, and whether its attention is another now.
nlohmann::json record_of(const Options& options, const ModelConfig& before, const ModelConfig& now) {
  nlohmann::json record = training_record_of(options.source);
  if (now.attention != before.attention || now.eva != before.eva) record["attention_replaced"] = true;
  return record;
}

// Compares what was written with transformers, and says so in its card.
void verify(const Options& options, const ModelConfig& config) {
  const auto ops = options.device.make_ops();
  const Verification verification = verify_export(options.destination, options.python, *ops);
  for (const Verification::Row& row : verification.rows)
    fmt::print("transformers {} {:<12} largest difference {:.2e}, relative (L2) {:.2e}, bound {:.2e}\n",
               verification.transformers, row.name, row.max_abs, row.relative_l2, verification.bound);
  require_within_bound(options.destination, verification);
  add_to_model_card(options.destination, config, verification);
}

void run(const Options& options) {
  check_model_folder_destination(options.destination);
  const ModelConfig before = read_model_config(options.source);
  ModelConfig config = before;
  if (const auto settings = settings_of(options)) apply_attention(config, *settings, "convert");

  ParameterTable parameters(config);
  std::vector<float> master(static_cast<std::size_t>(parameters.largest()));
  parameters.share_master(view_of(master.data(), {parameters.largest()}));
  std::map<std::string, std::vector<float>> started;
  const auto keep_new = [&](const Parameter& parameter, bool anew) {
    if (anew) started[parameter.name].assign(master.begin(), master.begin() + parameter.shape.size());
  };
  const SwapReport report =
      load_parameters(parameters, config, before, options.source, *make_cpu_ops(), keep_new);

  const SafetensorsReader file{std::filesystem::path(options.source)};
  const Converted converted = convert_tensors(file, parameters, started, type_named(options.dtype));
  write_model_folder(options.destination, config, converted.tensors, options.source,
                     record_of(options, before, config));
  fmt::print("{}: {} tensors, {} new, {} dropped\n", options.destination, converted.tensors.size(),
             report.started.size(), report.dropped.size());
  if (options.verify) verify(options, config);
}

}  // namespace

void add_convert(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      program.add_subcommand("convert", "Write a Hugging Face folder, with other attention if asked");
  command->add_option("SRC", options->source, "model or checkpoint folder")->required();
  command->add_option("DST", options->destination, "folder to write")->required();
  for (std::size_t i = 0; i < std::size(attention_flags); ++i)
    command->add_option(attention_flags[i].flag, options->attention[i], attention_flags[i].description);
  command->add_option("--layers", options->layers, "LAYER=KIND, or LAYER={kind: eva, window: 128}; several");
  command->add_option("--noise-clip", options->noise_clip, "bound on each component of the noise");
  command->add_option("--dtype", options->dtype, "float32, float16 or bfloat16; default: as stored")
      ->check(CLI::IsMember({"float32", "float16", "bfloat16"}));
  command->option_defaults()->always_capture_default();
  CLI::Option* verify = command->add_flag("--verify", options->verify,
                                          "compare the logits of Hugging Face transformers with ours");
  command->add_option("--python", options->python, "of --verify: a Python with transformers")->needs(verify);
  options->device.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace flasheva
