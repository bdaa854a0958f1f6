#include "src/io/model_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "src/config/config.h"
#include "src/core/error.h"
#include "src/core/file.h"

namespace flasheva {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

// The last folder of a path that says something: `runs/pythia-70m/model` and
// `runs/pythia-70m/checkpoints/step-000001000` are pythia-70m.
std::string name_of_model(fs::path path) {
  path = path.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "models/x/"
  if (path.filename() == "model") path = path.parent_path();
  if (path.parent_path().filename() == "checkpoints") path = path.parent_path().parent_path();
  return path.filename().string();
}

std::string file_name_in(const json& section, const char* key) {
  return fs::path(section.value(key, "")).filename().string();
}

// The last value of `key` in the lines of each phase.
void add_losses(json& phases, const std::string& metrics) {
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    const json entry = json::parse(line, nullptr, false);
    if (!entry.is_object() || !entry.contains("phase")) continue;
    for (json& phase : phases)
      for (const char* key : {"loss", "validation_loss"})
        if (phase["name"] == entry["phase"] && entry.contains(key)) phase[key] = entry[key];
  }
}

// --- Markdown ------------------------------------------------------------------------------------------

std::string front_matter(const json& training, const ModelConfig& config) {
  std::string out = "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- gpt_neox\n";
  if (!config.full_attention_everywhere()) out += "- flasheva\n- custom_code\n- linear-attention\n";
  if (const std::string base = training.value("base_model", ""); !base.empty())
    out += fmt::format("base_model: {}\n", json(base).dump());
  return out + "---\n";
}

std::string how_to_load(const std::string& name, const ModelConfig& config) {
  const bool plain = config.full_attention_everywhere();
  return fmt::format(
      "\n## How to load it\n\n"
      "    from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
      "    model = AutoModelForCausalLM.from_pretrained(\"{0}\"{1})\n"
      "    tokenizer = AutoTokenizer.from_pretrained(\"{0}\"{1})  # where the folder has one\n\n"
      "Works with transformers 4.57 and 5{2}.\n",
      name, plain ? "" : ", trust_remote_code=True",
      plain ? ""
            : "; the modeling file beside this one is plain PyTorch, and `generate` decodes with a cache");
}

std::string geometry_of(const LayerAttention& layer, const EvaConfig& eva) {
  if (layer.kind == AttentionKind::full) return "full | every token |";
  if (layer.kind == AttentionKind::sliding) return fmt::format("sliding | the last {} |", layer.window);
  return fmt::format("eva | {} window of {} | {} tokens", to_string(eva.window_kind), layer.window,
                     layer.chunk);
}

// One row for layers that follow one another and are alike.
std::string attention_table(const ModelConfig& config) {
  std::string out = fmt::format(
      "\n## Attention\n\n{} layers, hidden size {}, {} heads, vocabulary {}.\n\n"
      "| layers | kind | exact tokens | a summary for each |\n| --- | --- | --- | --- |\n",
      config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.vocab_size);
  for (std::size_t i = 0; i < config.attention.size();) {
    std::size_t end = i + 1;
    while (end < config.attention.size() && config.attention[end] == config.attention[i]) ++end;
    const std::string layers = end - i == 1 ? fmt::format("{}", i) : fmt::format("{} - {}", i, end - 1);
    out += fmt::format("| {} | {} |\n", layers, geometry_of(config.attention[i], config.eva));
    i = end;
  }
  const bool any_eva = std::any_of(config.attention.begin(), config.attention.end(),
                                   [](const auto& layer) { return layer.kind == AttentionKind::eva; });
  if (any_eva)
    out += fmt::format("\nChunks seen: {}; adapter {}, proposal {}, chunk bias {}.\n",
                       to_string(config.eva.chunk_visibility), to_string(config.eva.adapter),
                       to_string(config.eva.proposal), to_string(config.eva.chunk_bias));
  return out;
}

std::string loss_in(const json& phase, const char* key) {
  return phase.contains(key) && phase[key].is_number() ? fmt::format("{:.4f}", phase[key].get<double>()) : "";
}

std::string training_section(const json& training) {
  if (!training.contains("phases")) return "\n## Training\n\nNothing is recorded.\n";
  std::string out = fmt::format("\n## Training\n\nBy flasheva, {} optimizer steps in all, on `{}`",
                                training.value("step", std::int64_t{0}), training.value("data", ""));
  out += fmt::format(": sequences of {} tokens, {} a step, seed {}.\n\n",
                     training.value("sequence_length", std::int64_t{0}),
                     training.value("batch", std::int64_t{0}), training.value("seed", std::uint64_t{0}));
  out +=
      "| phase | steps | precision | trained | lr | schedule | last loss | validation loss |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
  for (const json& phase : training.at("phases"))
    out += fmt::format("| {} | {} | {} | {} | {:g} | {} | {} | {} |\n", phase.value("name", ""),
                       phase.value("steps", std::int64_t{0}), phase.value("precision", ""),
                       fmt::join(phase.at("train").get<std::vector<std::string>>(), ", "),
                       phase.value("lr", 0.0), phase.value("schedule", ""), loss_in(phase, "loss"),
                       loss_in(phase, "validation_loss"));
  const std::string validation = training.value("validation", "");
  out += fmt::format("\nLosses are in nats a token{}.\n",
                     validation.empty() ? "" : ", those of validation on `" + validation + "`");
  if (training.value("attention_replaced", false))
    out += "\nThe attention was replaced after this training, and nothing has been trained since.\n";
  return out;
}

std::string verification_section(const Verification* verification) {
  if (verification == nullptr)
    return "\n## Verified\n\nNot yet: `flasheva convert SRC DST --verify` compares the logits of "
           "transformers "
           "with flasheva's.\n";
  std::string out = fmt::format(
      "\n## Verified\n\nLogits of transformers {} (torch {}) against flasheva's, both computed in float32; "
      "relative differences may be {:.1e}:\n\n| | largest difference | relative difference (L2) |\n"
      "| --- | --- | --- |\n",
      verification->transformers, verification->torch, verification->bound);
  for (const Verification::Row& row : verification->rows)
    out += fmt::format("| {} | {:.2e} | {:.2e} |\n", row.name, row.max_abs, row.relative_l2);
  return out;
}

std::string limits(const ModelConfig& config) {
  std::string out = fmt::format(
      "\n## Limits\n\nIt writes on from a text and follows no instructions. Trained lengths are those above; "
      "`max_position_embeddings` is {}.",
      config.max_position_embeddings);
  if (!config.full_attention_everywhere())
    out +=
        " What has left a layer's window is seen through summaries alone, or not at all. The cache cannot go "
        "back: assisted generation is refused.";
  return out + "\n";
}

}  // namespace

json training_record(const json& config, std::int64_t step, const fs::path& metrics,
                     std::uint64_t metrics_bytes) {
  const json& data = config.at("data");
  json record = {{"data", file_name_in(data, "train")},
                 {"validation", file_name_in(data, "validation")},
                 {"sequence_length", data.at("sequence_length")},
                 {"batch", config.at("batch").at("sequences")},
                 {"seed", config.at("run").at("seed")},
                 {"step", step},
                 {"phases", json::array()}};
  if (config.at("model").contains("from"))
    record["base_model"] = name_of_model(config["model"]["from"].get<std::string>());
  for (const json& phase : config.at("phases"))
    record["phases"].push_back({{"name", phase.at("name")},
                                {"steps", phase.at("steps")},
                                {"precision", phase.at("precision")},
                                {"train", phase.at("train")},
                                {"lr", phase.at("optimizer").at("lr")},
                                {"schedule", phase.at("schedule").at("kind")}});
  if (fs::exists(metrics)) add_losses(record["phases"], read_text_file(metrics).substr(0, metrics_bytes));
  return record;
}

json training_record_of(const fs::path& folder) {
  json record = {{"base_model", name_of_model(folder)}};
  try {
    if (fs::exists(folder / "training.json")) {
      record = json::parse(read_text_file(folder / "training.json"));
    } else if (fs::exists(folder / "state.json")) {
      const json state = json::parse(read_text_file(folder / "state.json"));
      record = training_record(state.at("config"), state.at("step"), folder / "../../metrics.jsonl",
                               state.at("metrics_bytes"));
    }
    training_section(record);  // shows here what is damaged
    return record;
  } catch (const json::exception&) {
    fail(ExitCode::data, "{}: training.json or state.json is damaged; remove it or take another folder",
         folder.string());
  }
}

std::string model_card(const std::string& name, const ModelConfig& config, const std::string& torch_dtype,
                       const json& training, const Verification* verification) {
  return front_matter(training, config) +
         fmt::format("\n# {}\n\nA GPT-NeoX language model{}, stored in {}.\n", name,
                     config.full_attention_everywhere() ? "" : " with FlashEVA attention", torch_dtype) +
         how_to_load(name, config) + attention_table(config) + training_section(training) +
         verification_section(verification) + limits(config);
}

void add_to_model_card(const fs::path& folder, const ModelConfig& config, const Verification& verification) {
  const json stored = json::parse(read_text_file(folder / "config.json"));
  const std::string name = fs::absolute(folder / ".").lexically_normal().parent_path().filename().string();
  write_file_atomically(folder / "README.md", model_card(name, config, stored.at("torch_dtype"),
                                                         training_record_of(folder), &verification));
}

}  // namespace flasheva
