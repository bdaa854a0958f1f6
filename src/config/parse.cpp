#include <cmath>
#include <set>
#include <utility>

#include "src/config/attention_settings.h"
#include "src/config/config.h"
#include "src/config/yaml_reader.h"
#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/text.h"

namespace flasheva {

namespace {

RunConfig read_run(const YamlNode& node, const std::string& path) {
  const Section section(node, path, {.required = {"output"}, .optional = {"name", "seed", "device"}});
  RunConfig run;
  section.read("output", run.output);
  const std::filesystem::path folder = run.output.has_filename() ? run.output : run.output.parent_path();
  run.name = folder.filename().string();
  section.read("name", run.name);
  section.read("seed", run.seed);
  section.read("device", run.device);
  return run;
}

// Keys and meaning are those of a GPT-NeoX config.json.
// `attention` stays empty.
ModelConfig read_architecture(const YamlNode& node, const std::string& path) {
  const Section section(node, path,
                        {.required = {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                                      "intermediate_size"},
                         .optional = {"rotary_pct", "rotary_emb_base", "layer_norm_eps",
                                      "use_parallel_residual", "initializer_range", "max_position_embeddings",
                                      "bos_token_id", "eos_token_id", "hidden_act"}});
  ModelConfig model;
  section.read("vocab_size", model.vocab_size);
  section.read("hidden_size", model.hidden_size, 1, max_layer_size);
  section.read("num_hidden_layers", model.num_hidden_layers, 1, max_layers);
  section.read("num_attention_heads", model.num_attention_heads, 1, max_layer_size);
  section.read("intermediate_size", model.intermediate_size, 1, max_layer_size);
  section.read("rotary_pct", model.rotary_pct, above_zero_to_one);
  section.read("rotary_emb_base", model.rotary_emb_base, above_zero);
  section.read("layer_norm_eps", model.layer_norm_eps, above_zero);
  section.read("use_parallel_residual", model.use_parallel_residual);
  section.read("initializer_range", model.initializer_range, above_zero);
  section.read("max_position_embeddings", model.max_position_embeddings);
  section.read("bos_token_id", model.bos_token_id, 0, model.vocab_size - 1);
  section.read("eos_token_id", model.eos_token_id, 0, model.vocab_size - 1);
  if (const YamlNode* activation = section.find("hidden_act"))
    read_choice(*activation, section.path("hidden_act"), {"gelu"});  // the exact one (erf)

  const Place& place = section.place({"hidden_size", "num_attention_heads", "rotary_pct"});
  validate(model, place.text() + ": " + path, ExitCode::usage);
  return model;
}

ModelSection read_model(const YamlNode& node, const std::string& path) {
  const Section section(node, path, {.required = {}, .optional = {"from", "architecture", "attention"}});
  ModelSection model;
  const YamlNode* architecture = section.find("architecture");
  const YamlNode* attention = section.find("attention");
  if ((section.find("from") == nullptr) == (architecture == nullptr))
    fail_at(node.place, "model: give either from (a model folder) or architecture (to start from scratch)");
  section.read("from", model.from);
  if (attention != nullptr) model.attention = read_attention(*attention, section.path("attention"));
  if (architecture == nullptr) return model;

  model.architecture = read_architecture(*architecture, section.path("architecture"));
  ModelConfig resolved = *model.architecture;
  if (attention != nullptr) apply_attention(resolved, *model.attention, attention->place.text());
  return model;
}

DataSection read_data(const YamlNode& node, const std::string& path) {
  const Section section(node, path,
                        {.required = {"train", "sequence_length"}, .optional = {"validation", "shuffle"}});
  DataSection data;
  section.read("train", data.train);
  const YamlNode* validation = section.find("validation");
  if (validation != nullptr && validation->kind != YamlNode::Kind::null)
    section.read("validation", data.validation);
  section.read("sequence_length", data.sequence_length);
  section.read("shuffle", data.shuffle);
  return data;
}

BatchSection read_batch(const YamlNode& node, const std::string& path) {
  const Section section(node, path, {.required = {"sequences"}, .optional = {"micro", "recompute"}});
  BatchSection batch;
  section.read("sequences", batch.sequences);
  section.read("micro", batch.micro);
  section.read("recompute", batch.recompute);
  return batch;
}

OptimizerConfig read_optimizer(const YamlNode& node, const std::string& path) {
  const Section section(node, path,
                        {.required = {"lr"}, .optional = {"betas", "eps", "weight_decay", "clip"}});
  OptimizerConfig optimizer;
  section.read("lr", optimizer.lr, above_zero);
  if (const YamlNode* betas = section.find("betas")) {
    check_list(*betas, section.path("betas"));
    const std::vector<YamlNode>& values = betas->items;
    if (values.size() != 2)
      fail_at(betas->place,
              fmt::format("{}: expected two numbers, found {}", section.path("betas"), values.size()));
    optimizer.beta1 = read_number(values[0], section.path("betas.0"), from_zero_below_one);
    optimizer.beta2 = read_number(values[1], section.path("betas.1"), from_zero_below_one);
  }
  section.read("eps", optimizer.eps, above_zero);
  section.read("weight_decay", optimizer.weight_decay, at_least_zero);
  section.read("clip", optimizer.clip, at_least_zero);
  return optimizer;
}

ScheduleConfig read_schedule(const YamlNode& node, const std::string& path) {
  const Section section(node, path, {.required = {}, .optional = {"kind", "warmup", "min_lr_ratio"}});
  ScheduleConfig schedule;
  section.read("kind", schedule.kind);
  section.read("warmup", schedule.warmup, 0);
  section.read("min_lr_ratio", schedule.min_lr_ratio, from_zero_to_one);
  return schedule;
}

// A phase cut short by an override, for a trial, may end within its warmup; the file itself may not say so.
void check_warmup(const PhaseConfig& phase, const YamlNode& schedule, const Place& steps,
                  const std::string& path) {
  if (phase.schedule.warmup <= phase.steps || steps.in_override()) return;
  const YamlNode* warmup = schedule.find("warmup");
  fail_at(warmup->place, fmt::format("{}.schedule.warmup is {}; the phase has {} steps", path,
                                     phase.schedule.warmup, phase.steps));
}

// The bits of a float32 number times a power of two are its own.
void read_power_of_two(const Section& section, const std::string& key, double& out) {
  constexpr NumberRange range = {.low = 1, .high = LossScaleConfig::largest, .text = "from 1 to 16777216"};
  section.read(key, out, range);
  int exponent = 0;
  if (std::frexp(out, &exponent) != 0.5)
    fail_at(section.find(key)->place,
            fmt::format("{} is {}; it must be a power of two", section.path(key), out));
}

LossScaleConfig read_loss_scale(const YamlNode& node, const std::string& path, Precision precision) {
  const Section section(
      node, path, {.required = {}, .optional = {"initial", "growth_interval", "hysteresis", "minimum"}});
  if (precision != Precision::fp16)
    fail_at(node.place, fmt::format("{}: only precision fp16 scales its loss; this phase has {}", path,
                                    to_string(precision)));
  LossScaleConfig scale;
  read_power_of_two(section, "initial", scale.initial);
  section.read("growth_interval", scale.growth_interval);
  section.read("hysteresis", scale.hysteresis);
  read_power_of_two(section, "minimum", scale.minimum);
  if (scale.minimum > scale.initial)
    fail_at(section.place({"minimum", "initial"}),
            fmt::format("{}: minimum {} is above initial {}", path, scale.minimum, scale.initial));
  return scale;
}

PhaseConfig read_phase(const YamlNode& node, const std::string& path) {
  const Section section(node, path,
                        {.required = {"name", "steps", "train", "optimizer"},
                         .optional = {"precision", "tf32", "schedule", "loss_scale"}});
  PhaseConfig phase;
  section.read("name", phase.name);
  section.read("steps", phase.steps);
  section.read("precision", phase.precision);
  section.read("tf32", phase.tf32);
  if (phase.tf32 && phase.precision != Precision::fp32)
    fail_at(section.find("tf32")->place,
            fmt::format("{}: only precision fp32 has products for it; this phase has {}",
                        section.path("tf32"), to_string(phase.precision)));
  const YamlNode& train = *section.find("train");
  check_list(train, section.path("train"));
  for (const YamlNode& pattern : train.items)
    phase.train.push_back(read_text(pattern, section.path("train")));
  phase.optimizer = read_optimizer(*section.find("optimizer"), section.path("optimizer"));
  if (const YamlNode* schedule = section.find("schedule")) {
    phase.schedule = read_schedule(*schedule, section.path("schedule"));
    check_warmup(phase, *schedule, section.place({"steps"}), path);
  }
  if (const YamlNode* scale = section.find("loss_scale"))
    phase.loss_scale = read_loss_scale(*scale, section.path("loss_scale"), phase.precision);
  return phase;
}

std::vector<PhaseConfig> read_phases(const YamlNode& node, const std::string& path) {
  std::vector<PhaseConfig> phases;
  std::set<std::string> names;
  std::int64_t steps = 0;  // of the whole run
  check_list(node, path);
  for (const YamlNode& entry : node.items) {
    PhaseConfig phase = read_phase(entry, fmt::format("{}.{}", path, phases.size()));
    if (!names.insert(phase.name).second)
      fail_at(entry.find("name")->place, fmt::format("{}.{}.name: a phase before it is named '{}' too", path,
                                                     phases.size(), printable(phase.name)));
    steps += phase.steps;
    if (steps > max_integer)
      fail_at(entry.find("steps")->place, fmt::format("{}: more than {} steps in all", path, max_integer));
    phases.push_back(std::move(phase));
  }
  return phases;
}

CheckpointSection read_checkpoint(const YamlNode& node, const std::string& path) {
  const Section section(node, path, {.required = {}, .optional = {"every", "keep"}});
  CheckpointSection checkpoint;
  section.read("every", checkpoint.every);
  section.read("keep", checkpoint.keep, 2);  // one more than the newest, should that one be damaged
  return checkpoint;
}

EvaluateSection read_evaluate(const YamlNode& node, const std::string& path) {
  const Section section(node, path, {.required = {}, .optional = {"every", "batches"}});
  EvaluateSection evaluate;
  section.read("every", evaluate.every);
  section.read("batches", evaluate.batches);
  return evaluate;
}

DistributedSection read_distributed(const YamlNode& node, const std::string& path) {
  const Section section(
      node, path,
      {.required = {}, .optional = {"timeout", "shard_optimizer", "shard_gradients", "reduce_dtype"}});
  DistributedSection distributed;
  section.read("timeout", distributed.timeout, above_zero);
  section.read("shard_optimizer", distributed.shard_optimizer);
  section.read("shard_gradients", distributed.shard_gradients);
  section.read("reduce_dtype", distributed.reduce_dtype);
  if (distributed.reduce_dtype == Precision::fp16)
    fail_at(section.place({"reduce_dtype"}),
            fmt::format("{} is fp16, which sums over ranks overflow; fp32 and bf16 are possible",
                        section.path("reduce_dtype")));
  if (distributed.shard_gradients) distributed.shard_optimizer = true;  // there is nothing else to update
  return distributed;
}

GuardsSection read_guards(const YamlNode& node, const std::string& path) {
  const Section section(
      node, path,
      {.required = {},
       .optional = {"max_skips", "spike_action", "spike_window", "spike_threshold", "weights_every"}});
  GuardsSection guards;
  section.read("max_skips", guards.max_skips, 0);
  section.read("spike_action", guards.spike_action);
  section.read("spike_window", guards.spike_window, 8);
  section.read("spike_threshold", guards.spike_threshold, above_zero);
  section.read("weights_every", guards.weights_every);
  return guards;
}

LogSection read_log(const YamlNode& node, const std::string& path) {
  const Section section(node, path, {.required = {}, .optional = {"every", "layers_every", "tensorboard"}});
  LogSection log;
  section.read("every", log.every);
  section.read("layers_every", log.layers_every);
  section.read("tensorboard", log.tensorboard);
  return log;
}

Config read_config(const YamlNode& root) {
  const Section section(root, "",
                        {.required = {"run", "model", "data", "batch", "phases"},
                         .optional = {"checkpoint", "evaluate", "distributed", "guards", "log"}});
  Config config;
  config.run = read_run(*section.find("run"), "run");
  config.model = read_model(*section.find("model"), "model");
  config.data = read_data(*section.find("data"), "data");
  config.batch = read_batch(*section.find("batch"), "batch");
  config.phases = read_phases(*section.find("phases"), "phases");
  if (const YamlNode* node = section.find("checkpoint"))
    config.checkpoint = read_checkpoint(*node, "checkpoint");
  if (const YamlNode* node = section.find("evaluate")) config.evaluate = read_evaluate(*node, "evaluate");
  if (const YamlNode* node = section.find("distributed"))
    config.distributed = read_distributed(*node, "distributed");
  if (const YamlNode* node = section.find("guards")) config.guards = read_guards(*node, "guards");
  if (const YamlNode* node = section.find("log")) config.log = read_log(*node, "log");
  return config;
}

}  // namespace

Config parse_config(const std::string& text, const std::string& name,
                    const std::vector<std::string>& overrides) {
  YamlNode root = parse_yaml(text, name);
  check_map(root, "");
  for (const std::string& assignment : overrides) apply_override(root, assignment);
  return read_config(root);
}

Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  std::string text;
  try {
    text = read_text_file(path, max_yaml_bytes);
  } catch (const Error& error) {
    throw Error(ExitCode::usage, error.what());  // a wrong command line, not damaged data
  }
  return parse_config(text, path.string(), overrides);
}

}  // namespace flasheva
