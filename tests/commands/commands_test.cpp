// Every command's good path, on a model of 40 thousand parameters that the program itself trains.
#include <gtest/gtest.h>

#include "tests/commands/workspace.h"
#include "tests/support/fixtures.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Commands : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    space = std::make_unique<Workspace>();
    expect_done({"train", space->at("scratch.yaml")});
    expect_done({"train", space->at("tune.yaml")});
  }
  static void TearDownTestSuite() { space.reset(); }

  static std::string pretrained() { return space->at("pretrained/model"); }
  static std::string tuned() { return space->at("tuned/model"); }

  static nlohmann::json evaluate(const std::string& model, const std::string& data,
                                 const Arguments& more = {"--sequence-length", "32"}) {
    Arguments arguments = {"evaluate", model, "--data", space->at(data), "--json", space->at("figures.json")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    expect_done(arguments);
    return read_json(space->at("figures.json"));
  }

  static std::vector<std::int32_t> some_tokens(std::size_t count) {
    std::vector<std::int32_t> tokens;
    for (const char c : some_text(count, 5)) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }

  static std::unique_ptr<Workspace> space;
};

std::unique_ptr<Workspace> Commands::space;

// ---- train

TEST_F(Commands, TrainFromScratchLearnsAndLeavesAModelFolder) {
  const std::vector<double> losses = space->column("pretrained", "loss");
  ASSERT_EQ(losses.size(), 12u);
  EXPECT_NEAR(losses.front(), std::log(256), 0.1);  // weights of 0.02: every byte nearly as likely
  EXPECT_LT(losses.back(), losses.front() - 0.5);
  EXPECT_EQ(space->column("pretrained", "validation_loss").size(), 3u);
  for (const double speed : space->column("pretrained", "tokens_per_second")) EXPECT_GT(speed, 0);
  for (const char* name : {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json"})
    EXPECT_TRUE(fs::exists(fs::path(pretrained()) / name)) << name;
  EXPECT_EQ(read_json(fs::path(pretrained()) / "config.json")["model_type"], "gpt_neox");
}

TEST_F(Commands, TrainSwapsAndTunesInTwoPhases) {
  ASSERT_EQ(space->column("tuned", "loss").size(), 12u);
  const nlohmann::json config = read_json(fs::path(tuned()) / "config.json");
  EXPECT_EQ(config["model_type"], "flasheva_gpt_neox");
  EXPECT_EQ(config["attention_layers"], nlohmann::json({"eva", "full"}));
  EXPECT_TRUE(fs::exists(fs::path(tuned()) / "modeling_flasheva_gpt_neox.py"));
  EXPECT_TRUE(fs::exists(fs::path(tuned()) / "tokenizer.json"));
}

TEST_F(Commands, TrainSaysThatItHasFinishedAndGoesOnWithThreadsAndOverrides) {
  const Result again = flasheva({"train", space->at("tune.yaml"), "--threads", "1", "--device", "cpu"});
  EXPECT_EQ(again.code, 0);
  EXPECT_THAT(again.err, HasSubstr("finished after 12 steps"));
  const std::string elsewhere = "run.output=" + space->at("short");
  expect_done({"train", space->at("tune.yaml"), elsewhere, "phases.0.steps=2", "phases.1.steps=1"});
  EXPECT_EQ(space->column("short", "loss").size(), 3u);
}

// Without AVX-512 a product of bfloat16 matrices is computed from widened operands.
TEST_F(Commands, TrainInBfloat16WithoutAvx512) {
  const Arguments both = {"train", space->at("tune.yaml"), "phases.0.precision=bf16"};
  Arguments narrow = both;
  narrow.push_back("run.output=" + space->at("avx2"));
  expect_done(narrow, {"DNNL_MAX_CPU_ISA=AVX2"});
  const std::vector<double> losses = space->column("avx2", "loss"), wide = space->column("tuned", "loss");
  ASSERT_EQ(losses.size(), wide.size());
  for (std::size_t i = 0; i < wide.size(); ++i) EXPECT_NEAR(losses[i], wide[i], 0.01 * wide[i]) << i;
}

// ---- evaluate

TEST_F(Commands, EvaluateEqualsTheRunsValidation) {
  const nlohmann::json figures = evaluate(pretrained(), "validation.h5");
  const double validation = space->column("pretrained", "validation_loss").back();
  EXPECT_NEAR(figures["loss"], validation, 1e-6 * validation);
  EXPECT_DOUBLE_EQ(figures["accuracy"], space->column("pretrained", "validation_accuracy").back());
  EXPECT_EQ(figures["tokens"], 20 * 32);
  EXPECT_NEAR(figures["perplexity"], std::exp(figures["loss"].get<double>()), 1e-9 * std::exp(validation));
  EXPECT_NEAR(figures["bits_per_byte"], figures["loss"].get<double>() / std::log(2), 1e-9);
  EXPECT_GT(figures["tokens_per_second"], 0);
}

TEST_F(Commands, EvaluateInBfloat16EqualsTheValidationOfABfloat16Phase) {
  const nlohmann::json figures =
      evaluate(tuned(), "one-batch.h5", {"--sequence-length", "32", "--precision", "bf16"});
  EXPECT_DOUBLE_EQ(figures["loss"], space->column("tuned", "validation_loss").back());
  EXPECT_NE(figures["loss"], evaluate(tuned(), "one-batch.h5")["loss"]);
}

// 20 whole sequences and 13 tokens more: the sum over all is the sum of both parts.
TEST_F(Commands, EvaluateCoversTheRemainder) {
  const std::string text = some_text(20 * 32 + 13 + 1, 2);
  write_text(space->at("long.txt"), text);
  write_text(space->at("rest.txt"), text.substr(20 * 32));
  space->prepare("long.txt", "long.h5");
  space->prepare("rest.txt", "rest.h5");
  const nlohmann::json all = evaluate(tuned(), "long.h5"), rest = evaluate(tuned(), "rest.h5"),
                       whole = evaluate(tuned(), "validation.h5");
  EXPECT_EQ(all["tokens"], 20 * 32 + 13);
  EXPECT_EQ(rest["tokens"], 13);
  for (const char* mean : {"loss", "accuracy"})
    EXPECT_NEAR(all[mean].get<double>() * (20 * 32 + 13),
                whole[mean].get<double>() * 20 * 32 + rest[mean].get<double>() * 13, 1e-3)
        << mean;
}

TEST_F(Commands, EvaluateWithoutTokenizerKnowsNoBytes) {
  fs::copy(pretrained(), space->folder / "no-tokenizer");
  fs::remove(space->folder / "no-tokenizer/tokenizer.json");
  EXPECT_TRUE(evaluate(space->at("no-tokenizer"), "validation.h5")["bits_per_byte"].is_null());
}

// Layer 1 keeps full attention.
TEST_F(Commands, EvaluateGivesTheAttentionErrorThatTheRunRecorded) {
  std::vector<nlohmann::json> recorded;
  std::ifstream file(space->folder / "tuned/metrics.jsonl");
  for (std::string line; std::getline(file, line);)
    if (const auto entry = nlohmann::json::parse(line); entry.contains("attention_error"))
      recorded.push_back(entry);
  ASSERT_EQ(recorded.size(), 3u);  // at the swap, and after each phase
  for (int i = 0; i < 3; ++i) EXPECT_EQ(recorded[i]["run_step"], 6 * i);

  const Arguments asked = {"--sequence-length", "32", "--precision", "bf16", "--attention-error"};
  const nlohmann::json error = evaluate(tuned(), "one-batch.h5", asked)["attention_error"];
  ASSERT_EQ(error.size(), 2u);
  const double expected = recorded[2]["attention_error"][0];
  EXPECT_GT(expected, 0.01);
  EXPECT_DOUBLE_EQ(error[0], expected);
  EXPECT_TRUE(error[1].is_null());
  EXPECT_TRUE(recorded[2]["attention_error"][1].is_null());
  EXPECT_FALSE(evaluate(tuned(), "validation.h5").contains("attention_error"));
}

TEST_F(Commands, TrainRecordsBitsPerByteMemoryAndTheMachine) {
  const std::vector<double> losses = space->column("pretrained", "validation_loss"),
                            bits = space->column("pretrained", "validation_bits_per_byte");
  ASSERT_EQ(bits.size(), losses.size());
  for (std::size_t i = 0; i < bits.size(); ++i)  // a token is a byte
    EXPECT_NEAR(bits[i], losses[i] / std::log(2), 1e-12 * bits[i]);
  for (const double bytes : space->column("pretrained", "peak_memory_bytes")) EXPECT_GT(bytes, 1e6);
  const nlohmann::json run = read_json(space->at("tuned/run.json"));
  EXPECT_EQ(run["config"]["data"]["sequence_length"], 32);
  EXPECT_GE(run["machine"]["cores"], 1);
  EXPECT_EQ(run["ranks"], 1);
}

// ---- logits

TEST_F(Commands, LogitsOfABatchAreThoseOfItsRows) {
  std::vector<std::int32_t> tokens = some_tokens(3 * 21);
  const std::vector<float> batch = space->logits(tuned(), tokens, 3);
  std::vector<float> rows;
  for (int row = 0; row < 3; ++row) {
    const std::vector<float> one =
        space->logits(tuned(), {tokens.begin() + 21 * row, tokens.begin() + 21 * (row + 1)});
    rows.insert(rows.end(), one.begin(), one.end());
  }
  EXPECT_LE(relative_difference(batch, rows), 1e-6);
  for (const auto& [precision, bound] : {std::pair{"bf16", 0.05}, {"fp16", 0.05 / 8}}) {
    const double difference =
        relative_difference(space->logits(tuned(), tokens, 3, {"--precision", precision}), batch);
    EXPECT_GT(difference, 1e-4) << precision;
    EXPECT_LT(difference, bound) << precision;
  }
}

// ---- convert

const std::map<std::string, std::string>& tensors_of(const std::string& folder) {
  static std::map<std::string, std::map<std::string, std::string>> cache;
  std::map<std::string, std::string>& tensors = cache[folder];
  tensors.clear();
  const SafetensorsReader file{fs::path(folder)};
  for (const auto& [name, tensor] : file.tensors())
    tensors[name] = {reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size()};
  return tensors;
}

TEST_F(Commands, ConvertToEvaWithAWindowOverAllTokensKeepsTheLogits) {
  expect_done(
      {"convert", pretrained(), space->at("wide"), "--attention", "eva", "--window", "64", "--chunk", "8"});
  const std::vector<std::int32_t> tokens = some_tokens(50);
  const std::vector<float> full = space->logits(pretrained(), tokens);
  EXPECT_LE(relative_difference(space->logits(space->at("wide"), tokens), full), 1e-6);
  expect_done(
      {"convert", pretrained(), space->at("narrow"), "--attention", "eva", "--window", "8", "--chunk", "4"});
  EXPECT_GE(relative_difference(space->logits(space->at("narrow"), tokens), full), 1e-4);
}

TEST_F(Commands, ConvertThereAndBackKeepsEveryStoredByte) {
  for (const char* dtype : {"float32", "float16", "bfloat16"}) {
    const std::string start = space->at(std::string("start-") + dtype), eva = start + "-eva",
                      back = start + "-back";
    expect_done({"convert", pretrained(), start, "--dtype", dtype});
    EXPECT_EQ(read_json(fs::path(start) / "config.json")["torch_dtype"], dtype);
    expect_done({"convert", start, eva, "--attention", "eva", "--window", "8", "--chunk", "4"});
    EXPECT_EQ(read_json(fs::path(eva) / "config.json")["torch_dtype"], dtype);
    const SafetensorsReader file{fs::path(eva)};
    for (const auto& [name, tensor] : file.tensors())
      EXPECT_EQ(tensor.dtype, SafetensorsReader(fs::path(start)).at("embed_out.weight").dtype) << name;
    expect_done({"convert", eva, back, "--attention", "full"});
    EXPECT_TRUE(tensors_of(start) == tensors_of(back)) << dtype;
    EXPECT_EQ(read_json(fs::path(back) / "config.json"), read_json(fs::path(start) / "config.json"));
    EXPECT_FALSE(fs::exists(fs::path(back) / "modeling_flasheva_gpt_neox.py"));
  }
}

TEST_F(Commands, ConvertTakesEveryKeyOfAttention) {
  const std::string there = space->at("every-key");
  expect_done({"convert",
               pretrained(),
               there,
               "--attention",
               "eva",
               "--layers",
               "0={kind: eva, window: 12, chunk: 6}",
               "--window",
               "16",
               "--chunk",
               "8",
               "--window-kind",
               "sliding",
               "--chunk-visibility",
               "all_past",
               "--adapter",
               "linear_layernorm",
               "--proposal",
               "k",
               "--chunk-bias",
               "learned",
               "--noise-clip",
               "1.5"});
  const nlohmann::json config = read_json(fs::path(there) / "config.json");
  EXPECT_EQ(config["attention_layers"], nlohmann::json({"eva", "eva"}));
  EXPECT_EQ(config["eva"], (nlohmann::json{{"window", 16},
                                           {"chunk", 8},
                                           {"window_kind", "sliding"},
                                           {"chunk_visibility", "all_past"},
                                           {"adapter", "linear_layernorm"},
                                           {"proposal", "k"},
                                           {"chunk_bias", "learned"},
                                           {"noise_clip", 1.5}}));
  EXPECT_EQ(config["eva_layers"], (nlohmann::json{{"0", {{"window", 12}, {"chunk", 6}}}}));
  for (const char* adapter : {"none", "linear", "learned"}) {
    const std::string folder = space->at(std::string("adapter-") + adapter);
    expect_done({"convert", pretrained(), folder, "--adapter", adapter, "--window", "8", "--chunk", "4"});
    EXPECT_EQ(space->logits(folder, some_tokens(20)).size(), 20u * 256);
  }
  expect_done({"convert", pretrained(), space->at("hybrid"), "--layers", "1=full", "--attention", "sliding"});
  EXPECT_EQ(read_json(space->folder / "hybrid/config.json")["attention_layers"],
            nlohmann::json({"sliding", "full"}));
}

// ---- a checkpoint is a model folder too

TEST_F(Commands, EveryCommandTakesACheckpoint) {
  const std::string checkpoint = space->at("tuned/checkpoints/step-000000012");
  EXPECT_EQ(evaluate(checkpoint, "validation.h5")["loss"], evaluate(tuned(), "validation.h5")["loss"]);
  EXPECT_EQ(space->logits(checkpoint, some_tokens(20)), space->logits(tuned(), some_tokens(20)));
  EXPECT_EQ(expect_done({"generate", checkpoint, "--prompt", "a", "--greedy", "--max-new-tokens", "3"}),
            expect_done({"generate", tuned(), "--prompt", "a", "--greedy", "--max-new-tokens", "3"}));
  expect_done({"convert", checkpoint, space->at("from-checkpoint")});
  EXPECT_TRUE(tensors_of(space->at("from-checkpoint")) == tensors_of(tuned()));
  EXPECT_FALSE(fs::exists(space->folder / "from-checkpoint/optimizer.safetensors"));
}

// ---- data, plan, info, bench

TEST_F(Commands, DataPrepareSplitsAndInspectDescribes) {
  EXPECT_THAT(expect_done({"data", "prepare", "--input", space->at("text.txt"), "--output", space->at("s.h5"),
                           "--tokenizer", "bytes", "--validation", "0.1"}),
              testing::AllOf(HasSubstr("s.h5: 4500 tokens"), HasSubstr("s-validation.h5: 500 tokens")));
  const std::string description = expect_done({"data", "inspect", space->at("s.h5")});
  for (const char* part : {"4500", "256", "bytes", "uint16"}) EXPECT_THAT(description, HasSubstr(part));
}

TEST_F(Commands, PlanPrintsPhasesAndMemoryAndWritesNothing) {
  const std::string plan =
      expect_done({"plan", space->at("tune.yaml"), "run.output=" + space->at("planned"), "batch.micro=1"});
  for (const char* part : {"phase attention_warmup: 6 steps, fp32", "phase full_finetune: 6 steps, bf16",
                           "activations", "gradients", "memory taken before step 0", "768 tokens",
                           "activations with batch.recompute: attention "})
    EXPECT_THAT(plan, HasSubstr(part));
  EXPECT_FALSE(fs::exists(space->folder / "planned"));
}

TEST_F(Commands, InfoNamesWhatMatters) {
  const std::string info = expect_done({"info"});
  for (const char* part : {"flasheva ", "oneDNN", "HDF5", "cores", "cuda", "-march="})
    EXPECT_THAT(info, HasSubstr(part));
}

void expect_speeds(const nlohmann::json& figures) {
  for (const char* key : {"gemm_peak_flops_per_second", "share_of_peak"})
    EXPECT_GT(figures.at(key), 0) << key;
}

// Neither plan nor bench reads the data, nor more of the model folder than its config.json. The large product
// that bench compares with takes seconds, so bfloat16, slower on some machines, is left to the attention's.
TEST_F(Commands, PlanAndBenchStepNeedTheConfigAlone) {
  fs::create_directories(space->folder / "bare");
  fs::copy(fs::path(pretrained()) / "config.json", space->folder / "bare/config.json");
  const Arguments config = {space->at("tune.yaml"), "model.from=" + space->at("bare"), "data.train=absent.h5",
                            "data.validation=absent.h5", "phases.1.precision=fp32"};
  const auto with_config = [&](Arguments arguments) {
    arguments.insert(arguments.end(), config.begin(), config.end());
    return arguments;
  };
  expect_done(with_config({"plan"}));
  for (const std::string phase : {"", "attention_warmup"}) {
    Arguments arguments = with_config({"bench", "step", "--steps", "2", "--json", space->at("b.json")});
    if (!phase.empty()) arguments.insert(arguments.end(), {"--phase", phase});
    const std::string table = expect_done(arguments);
    const nlohmann::json figures = read_json(space->folder / "b.json");
    EXPECT_EQ(figures["phase"], phase.empty() ? "full_finetune" : phase);
    for (const char* key : {"tokens_per_second", "model_flops_per_second"})
      EXPECT_GT(figures.at(key), 0) << key;
    expect_speeds(figures);
    for (const auto& [key, value] : figures.items()) EXPECT_THAT(table, HasSubstr(key));
  }
}

TEST_F(Commands, BenchDecodeComparesCaches) {
  const auto bench = [&](const std::string& kind) {
    expect_done({"bench", "decode", space->at("tune.yaml"), "model.from=" + pretrained(),
                 "data.train=absent.h5", "model.attention.layers={}", "model.attention.default=" + kind,
                 "--batch", "2", "--context", "500", "--new-tokens", "100", "--steps", "3", "--json",
                 space->at("b.json")});
    return read_json(space->folder / "b.json");
  };
  const nlohmann::json full = bench("full"), eva = bench("eva");
  for (const nlohmann::json& figures : {full, eva}) {
    for (const char* key : {"tokens_per_second", "peak_memory_bytes", "memory_peak_bytes_per_second",
                            "gemm_peak_flops_per_second", "limit_seconds_per_step", "share_of_limit"})
      EXPECT_GT(figures.at(key), 0) << key;
  }
  // Keys and values of 600 tokens, 2 sequences, 2 layers of hidden size 32; W 8 and 150 chunks of 4 tokens,
  // and 4 queries, where it is FlashEVA.
  EXPECT_EQ(full["cache_bytes"], 600 * 2 * 2 * 2 * 32 * 4);
  EXPECT_EQ(eva["cache_bytes"], (2 * (8 + 150) + 4) * 2 * 2 * 32 * 4);
  EXPECT_LT(eva["cache_bytes_read"], full["cache_bytes_read"]);
}
TEST_F(Commands, BenchStepSaysWhereTheTimeGoes) {
  const std::string table =
      expect_done({"bench", "step", "--steps", "2", "--operations", "--json", space->at("b.json"),
                   space->at("tune.yaml"), "model.from=" + pretrained()});
  const nlohmann::json figures = read_json(space->folder / "b.json");
  EXPECT_GT(figures["copy_peak_bytes_per_second"], 0);
  double seconds = 0;
  for (const nlohmann::json& row : figures["operations"]) {
    seconds += row["seconds"].get<double>();
    EXPECT_THAT(table, HasSubstr(row["operation"].get<std::string>()));
  }
  EXPECT_THAT(table, HasSubstr("qkv_summary_backward"));
  EXPECT_GT(seconds, 0);
}

TEST_F(Commands, BenchAttentionMeasuresEveryKind) {
  for (const char* kind : {"full", "sliding", "eva"}) {
    expect_done({"bench",       "attention", "--kind",      kind, "--heads",  "2",
                 "--head-dim",  "16",        "--tokens",    "70", "--window", "16",
                 "--chunk",     "8",         "--repeats",   "1",  "--json",   space->at("b.json"),
                 "--precision", "bf16",      "--operations"});
    const nlohmann::json figures = read_json(space->folder / "b.json");
    EXPECT_EQ(figures["kind"], kind);
    for (const char* key : {"milliseconds_forward", "milliseconds_backward", "copy_peak_bytes_per_second"})
      EXPECT_GT(figures.at(key), 0) << key;
    expect_speeds(figures);
    const double forward = figures["milliseconds_forward"], backward = figures["milliseconds_backward"];
    double flops = (forward + backward) * 1e-3 * figures["flops_per_second"].get<double>();
    for (const nlohmann::json& row : figures["operations"]) flops -= row["flops"].get<double>();
    EXPECT_NEAR(flops, 0, 0.5);
  }
}

TEST_F(Commands, HelpIsNoError) {
  for (const Arguments& command :
       {Arguments{"--help"}, Arguments{"train", "--help"}, Arguments{"bench", "step", "--help"}})
    EXPECT_THAT(expect_done(command), HasSubstr("--help"));
}

}  // namespace
}  // namespace flasheva
