#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>

#include "tests/config/example.h"

namespace flasheva {
namespace {

// One change of the minimal configuration and the whole line that it must end in.
struct BadInput {
  const char* name;
  const char* before;
  const char* after;
  const char* message;
};

void PrintTo(const BadInput& bad, std::ostream* out) { *out << bad.after; }

class ConfigError : public testing::TestWithParam<BadInput> {};

TEST_P(ConfigError, NamesPlaceAndKey) {
  const BadInput& bad = GetParam();
  std::string yaml = minimal_yaml;
  const std::size_t place = yaml.find(bad.before);
  ASSERT_NE(place, std::string::npos);
  yaml.replace(place, std::string(bad.before).size(), bad.after);
  EXPECT_EQ(error_of(yaml), bad.message);
}

constexpr const char* model = "{from: models/tiny}";
constexpr const char* optimizer = "{lr: 1.0e-3}";
constexpr const char* two_phases =
    "- {name: warmup, steps: 20, train: [attention], optimizer: {lr: 1.0e-3}}\n"
    "  - {name: finetune, steps: 30, train: [all], optimizer: {lr: 1.0e-4}}";
constexpr const char* start_of_model = "model: {from: models/tiny}";

const BadInput keys[] = {
    {"Unknown", "sequence_length: 128", "sequence_lenght: 128",
     "run.yaml:3:30: unknown key 'sequence_lenght' in data; did you mean 'sequence_length'?"},
    {"UnknownInAttention", model, "{from: m, attention: {windw: 128}}",
     "run.yaml:2:30: unknown key 'windw' in model.attention; did you mean 'window'?"},
    {"UnknownSection", "batch:", "sentinels: {}\nbatch:",
     "run.yaml:4:1: unknown key 'sentinels'; known: run, model, data, batch, phases, checkpoint, evaluate, "
     "distributed, guards, log"},
    {"UnknownInNoise", model, "{from: m, attention: {noise: {enable: true}}}",
     "run.yaml:2:38: unknown key 'enable' in model.attention.noise; did you mean 'enabled'?"},
    {"UnknownInPhase", "steps: 30", "step: 30",
     "run.yaml:7:22: unknown key 'step' in phases.1; did you mean 'steps'?"},
    {"Duplicate", "sequences: 8", "sequences: 8, sequences: 9",
     "run.yaml:4:23: key 'sequences' is given twice in batch"},
    {"DuplicateSection", "batch:", "run: {output: b}\nbatch:", "run.yaml:4:1: key 'run' is given twice"},
    {"DuplicateDeep", optimizer, "{lr: 1, lr: 2}",
     "run.yaml:6:70: key 'lr' is given twice in phases.0.optimizer"},
    {"DuplicateLayer", model, "{from: m, attention: {layers: {3: full, 3: eva}}}",
     "run.yaml:2:48: key '3' is given twice in model.attention.layers"},
    {"DuplicateLayerInOtherDigits", model, "{from: m, attention: {layers: {3: full, 03: eva}}}",
     "run.yaml:2:48: model.attention.layers: layer 3 is given twice"},
    {"KeyIsAList", "{sequences: 8}", "{[a]: 8}", "run.yaml:4:9: a key is a list; it must be a name"},
    {"MissingKey", "sequences: 8", "micro: 8", "run.yaml:4:8: batch.sequences is missing"},
    {"MissingSection", "batch: {sequences: 8}\n", "", "run.yaml:1:1: batch is missing"},
    {"MissingLr", optimizer, "{eps: 1.0e-3}", "run.yaml:6:62: phases.0.optimizer.lr is missing"},
    {"NeitherFromNorArchitecture", model, "{attention: {}}",
     "run.yaml:2:8: model: give either from (a model folder) or architecture (to start from scratch)"},
};

const BadInput types[] = {
    {"IntegerIsText", "sequences: 8", "sequences: many",
     "run.yaml:4:20: batch.sequences: expected an integer, found 'many'"},
    {"IntegerIsReal", "sequences: 8", "sequences: 8.5",
     "run.yaml:4:20: batch.sequences: expected an integer, found '8.5'"},
    {"IntegerIsQuoted", "sequences: 8", "sequences: '8'",
     "run.yaml:4:20: batch.sequences: expected an integer, found the text '8'"},
    {"IntegerIsAList", "sequences: 8", "sequences: [8]",
     "run.yaml:4:20: batch.sequences: expected an integer, found a list"},
    {"NumberIsText", optimizer, "{lr: high}",
     "run.yaml:6:67: phases.0.optimizer.lr: expected a finite number, found 'high'"},
    {"NumberIsNan", optimizer, "{lr: .nan}",
     "run.yaml:6:67: phases.0.optimizer.lr: expected a finite number, found '.nan'"},
    {"NumberIsInfinite", optimizer, "{lr: inf}",
     "run.yaml:6:67: phases.0.optimizer.lr: expected a finite number, found 'inf'"},
    {"NumberIsInfiniteInFloat32", optimizer, "{lr: 1.0e+39}",
     "run.yaml:6:67: phases.0.optimizer.lr: expected a finite number, found '1.0e+39'"},
    {"BooleanIsANumber", "128}", "128, shuffle: 1}",
     "run.yaml:3:61: data.shuffle: expected true or false, found '1'"},
    {"TextIsASection", "data/train.h5", "{file: a}",
     "run.yaml:3:15: data.train: expected a text, found a section"},
    {"TextIsMissing", "data/train.h5", "", "run.yaml:3:8: data.train: expected a text, found nothing"},
    {"SectionIsEmpty", "{sequences: 8}", "",
     "run.yaml:4:1: batch: expected a section (key: value), found nothing"},
    {"SectionIsAList", "{sequences: 8}", "[8]",
     "run.yaml:4:8: batch: expected a section (key: value), found a list"},
    {"ListIsText", "[attention]", "attention",
     "run.yaml:6:38: phases.0.train: expected a list, found 'attention'"},
    {"EntryIsASection", "[attention]", "[{a: b}]",
     "run.yaml:6:39: phases.0.train: expected a text, found a section"},
    {"UnknownName", model, "{from: m, attention: {adapter: linar}}",
     "run.yaml:2:39: model.attention.adapter: unknown value 'linar'; did you mean 'linear'?"},
    {"UnknownDevice", "runs/tiny}", "r, device: tpu}",
     "run.yaml:1:26: run.device: unknown value 'tpu'; did you mean 'cpu'?"},
    {"UnknownPrecision", "steps: 20", "steps: 20, precision: mixed",
     "run.yaml:6:42: phases.0.precision: unknown value 'mixed'; known: fp32, bf16, fp16"},
    {"LayerKeyIsAName", model, "{from: m, attention: {layers: {first: full}}}",
     "run.yaml:2:39: model.attention.layers: a layer's number: expected an integer, found 'first'"},
    {"LayerKindIsUnknown", model, "{from: m, attention: {layers: {2: fulll}}}",
     "run.yaml:2:42: model.attention.layers.2: unknown value 'fulll'; did you mean 'full'?"},
};

const BadInput values[] = {
    {"GradientsTravelAsFp16", "batch: {sequences: 8}",
     "batch: {sequences: 8}\ndistributed: {reduce_dtype: fp16}",
     "run.yaml:5:29: distributed.reduce_dtype is fp16, which sums over ranks overflow; fp32 and bf16 are "
     "possible"},
    {"Tf32WithoutFp32", "steps: 20", "steps: 20, precision: bf16, tf32: true",
     "run.yaml:6:54: phases.0.tf32: only precision fp32 has products for it; this phase has bf16"},
    {"LossScaleWithoutFp16", "steps: 20", "steps: 20, precision: bf16, loss_scale: {initial: 4}",
     "run.yaml:6:60: phases.0.loss_scale: only precision fp16 scales its loss; this phase has bf16"},
    {"LossScaleIsNoPowerOfTwo", "steps: 20", "steps: 20, precision: fp16, loss_scale: {initial: 1000}",
     "run.yaml:6:70: phases.0.loss_scale.initial is 1000; it must be a power of two"},
    {"LossScaleTooLarge", "steps: 20", "steps: 20, precision: fp16, loss_scale: {initial: 33554432}",
     "run.yaml:6:70: phases.0.loss_scale.initial is 33554432; it must be from 1 to 16777216"},
    {"LossScaleMinimumAboveInitial", "steps: 20", "steps: 20, precision: fp16, loss_scale: {minimum: 131072}",
     "run.yaml:6:70: phases.0.loss_scale: minimum 131072 is above initial 65536"},
    {"LossScaleHysteresis", "steps: 20", "steps: 20, precision: fp16, loss_scale: {hysteresis: 0}",
     "run.yaml:6:73: phases.0.loss_scale.hysteresis is 0; it must be an integer from 1 to 2147483647"},
    {"ZeroBatch", "sequences: 8", "sequences: 0",
     "run.yaml:4:20: batch.sequences is 0; it must be an integer from 1 to 2147483647"},
    {"NegativeSteps", "steps: 20", "steps: -1",
     "run.yaml:6:27: phases.0.steps is -1; it must be an integer from 1 to 2147483647"},
    {"HugeInteger", "128", "99999999999999999999",
     "run.yaml:3:47: data.sequence_length is 99999999999999999999; it must be an integer from 1 to "
     "2147483647"},
    {"NegativeSeed", "runs/tiny}", "r, seed: -1}",
     "run.yaml:1:24: run.seed: expected an integer from 0 to 18446744073709551615, found '-1'"},
    {"ZeroLr", optimizer, "{lr: 0}", "run.yaml:6:67: phases.0.optimizer.lr is 0; it must be above 0"},
    {"NegativeLr", optimizer, "{lr: -1.0e-3}",
     "run.yaml:6:67: phases.0.optimizer.lr is -1.0e-3; it must be above 0"},
    {"BetaOfOne", optimizer, "{lr: 1, betas: [0.9, 1.0]}",
     "run.yaml:6:83: phases.0.optimizer.betas.1 is 1.0; it must be at least 0 and below 1"},
    {"BetaOfOneInFloat32", optimizer, "{lr: 1, betas: [0.9, 0.9999999999]}",
     "run.yaml:6:83: phases.0.optimizer.betas.1 is 0.9999999999; it must be at least 0 and below 1"},
    {"OneBeta", optimizer, "{lr: 1, betas: [0.9]}",
     "run.yaml:6:77: phases.0.optimizer.betas: expected two numbers, found 1"},
    {"ZeroEps", optimizer, "{lr: 1, eps: 0}",
     "run.yaml:6:75: phases.0.optimizer.eps is 0; it must be above 0"},
    {"NegativeDecay", optimizer, "{lr: 1, weight_decay: -0.1}",
     "run.yaml:6:84: phases.0.optimizer.weight_decay is -0.1; it must be at least 0"},
    {"NegativeClip", optimizer, "{lr: 1, clip: -1}",
     "run.yaml:6:76: phases.0.optimizer.clip is -1; it must be at least 0"},
    {"MinLrRatio", "steps: 20", "steps: 20, schedule: {min_lr_ratio: 1.5}",
     "run.yaml:6:56: phases.0.schedule.min_lr_ratio is 1.5; it must be from 0 to 1"},
    {"WarmupLongerThanPhase", "steps: 20", "steps: 20, schedule: {warmup: 21}",
     "run.yaml:6:50: phases.0.schedule.warmup is 21; the phase has 20 steps"},
    {"NoPhases", two_phases, "[]", "run.yaml:6:3: phases is empty; it needs at least one entry"},
    {"SamePhaseName", "finetune", "warmup",
     "run.yaml:7:12: phases.1.name: a phase before it is named 'warmup' too"},
    {"TooManySteps", "steps: 30", "steps: 2147483647",
     "run.yaml:7:29: phases: more than 2147483647 steps in all"},
    {"NothingToTrain", "[attention]", "[]",
     "run.yaml:6:38: phases.0.train is empty; it needs at least one entry"},
    {"OneCheckpointKept", "batch:", "checkpoint: {keep: 1}\nbatch:",
     "run.yaml:4:20: checkpoint.keep is 1; it must be an integer from 2 to 2147483647"},
    {"CheckpointNever", "batch:", "checkpoint: {every: 0}\nbatch:",
     "run.yaml:4:21: checkpoint.every is 0; it must be an integer from 1 to 2147483647"},
    {"WindowAndChunk", model, "{from: m, attention: {window: 100}}",
     "run.yaml:2:38: model.attention: window 100 is not a multiple of chunk 16"},
    {"ChunkAlone", model, "{from: m, attention: {chunk: 24}}",
     "run.yaml:2:37: model.attention: window 256 is not a multiple of chunk 24"},
    {"WindowAndChunkOfALayer", model, "{from: m, attention: {layers: {3: {window: 24}}}}",
     "run.yaml:2:51: model.attention.layers.3: window 24 is not a multiple of chunk 16"},
    {"EvaLayerInheritsWindow", model, "{from: m, attention: {default: sliding, window: 9, layers: {3: eva}}}",
     "run.yaml:2:71: model.attention.layers.3: window 9 is not a multiple of chunk 16"},
    {"NegativeLayer", model, "{from: m, attention: {layers: {-1: full}}}",
     "run.yaml:2:39: model.attention.layers: a layer's number is -1; it must be an integer from 0 to "
     "2147483647"},
    {"ZeroNoise", model, "{from: m, attention: {noise: {clip: 0}}}",
     "run.yaml:2:44: model.attention.noise.clip is 0; it must be above 0"},
};

#define ARCHITECTURE "vocab_size: 256, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64"

const BadInput architectures[] = {
    {"HeadsDoNotDivideHidden", model, "{architecture: {hidden_size: 66, " ARCHITECTURE "}}",
     "run.yaml:2:37: model.architecture: hidden_size 66 is not a multiple of num_attention_heads 4"},
    {"OddRotary", model, "{architecture: {hidden_size: 48, " ARCHITECTURE "}}",
     "run.yaml:2:37: model.architecture: rotary_pct 0.25 turns 3 of a head's 12 dimensions; the number must "
     "be even"},
    {"RotaryPct", model, "{architecture: {rotary_pct: 0, hidden_size: 64, " ARCHITECTURE "}}",
     "run.yaml:2:36: model.architecture.rotary_pct is 0; it must be above 0 and at most 1"},
    {"TooManyLayers", model,
     "{architecture: {vocab_size: 9, hidden_size: 8, num_hidden_layers: 2147483647, num_attention_heads: 1, "
     "intermediate_size: 1}}",
     "run.yaml:2:74: model.architecture.num_hidden_layers is 2147483647; it must be an integer from 1 to "
     "4096"},
    {"OtherActivation", model, "{architecture: {hidden_act: relu, hidden_size: 64, " ARCHITECTURE "}}",
     "run.yaml:2:36: model.architecture.hidden_act: unknown value 'relu'; did you mean 'gelu'?"},
    {"EosBeyondTheVocabulary", model,
     "{architecture: {hidden_size: 64, " ARCHITECTURE ", eos_token_id: 256}}",
     "run.yaml:2:141: model.architecture.eos_token_id is 256; it must be an integer from 0 to 255"},
    {"MissingSize", model, "{architecture: {" ARCHITECTURE "}}",
     "run.yaml:2:23: model.architecture.hidden_size is missing"},
    {"FromAndArchitecture", model, "{from: m, architecture: {hidden_size: 64, " ARCHITECTURE "}}",
     "run.yaml:2:8: model: give either from (a model folder) or architecture (to start from scratch)"},
    {"LayerBeyondTheModel", model,
     "{architecture: {hidden_size: 64, " ARCHITECTURE "}, attention: {layers: {2: full}}}",
     "run.yaml:2:139: model.attention.layers.2: the model has 2 layers, numbered from 0"},
};

const BadInput syntax[] = {
    {"OpenList", "[attention]", "[attention", "run.yaml:6:73: not YAML: illegal flow end"},
    {"Tab", "batch:", "\tbatch:", "run.yaml:4:2: not YAML: end of map not found"},
    {"Alias", "[attention]", "[*.attention.*]",
     "run.yaml:6:39: anchors and aliases are not read; quote a value that begins with & or *"},
    {"Anchor", "{sequences: 8}", "&a {sequences: 8}",
     "run.yaml:4:8: anchors and aliases are not read; quote a value that begins with & or *"},
    {"Tag", "sequences: 8", "sequences: !!int 8", "run.yaml:4:20: tags are not read; leave the ! out"},
    {"SecondDocument",
     "batch:", "---\nbatch:", "run.yaml:4:1: a second document begins; a configuration is one"},
    {"Deep", start_of_model, "model: [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]",
     "run.yaml:2:23: nested more than 16 deep"},
    {"ControlCharacter", "tiny", "ti\x01ny", "run.yaml: control character \\x01 in line 1"},
    {"NotUtf8", "tiny", "ti\xffny", "run.yaml: not UTF-8 text"},
};

const auto name_of_case = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Keys, ConfigError, testing::ValuesIn(keys), name_of_case);
INSTANTIATE_TEST_SUITE_P(Types, ConfigError, testing::ValuesIn(types), name_of_case);
INSTANTIATE_TEST_SUITE_P(Values, ConfigError, testing::ValuesIn(values), name_of_case);
INSTANTIATE_TEST_SUITE_P(Architectures, ConfigError, testing::ValuesIn(architectures), name_of_case);
INSTANTIATE_TEST_SUITE_P(Syntax, ConfigError, testing::ValuesIn(syntax), name_of_case);

TEST(ConfigErrors, WholeFile) {
  EXPECT_EQ(error_of(""), "run.yaml: empty; a value is expected");
  EXPECT_EQ(error_of("# nothing\n"), "run.yaml: empty; a value is expected");
  EXPECT_EQ(error_of("[a, b]"), "run.yaml:1:1: configuration: expected a section (key: value), found a list");
  EXPECT_EQ(error_of("hello"), "run.yaml:1:1: configuration: expected a section (key: value), found 'hello'");
  EXPECT_EQ(error_of(std::string(1 << 18, '#')),
            "run.yaml: 256.0 KiB of text; a configuration has at most 128.0 KiB");
}

TEST(ConfigErrors, AreOneLine) {
  const std::string message = error_of("\"a\\nb\": 1");
  EXPECT_THAT(message, testing::StartsWith("run.yaml:1:1: unknown key 'a\\x0ab'"));
  EXPECT_THAT(message, testing::Not(testing::HasSubstr("\n")));
}

}  // namespace
}  // namespace flasheva
