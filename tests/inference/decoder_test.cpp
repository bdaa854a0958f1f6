// Generation against the forward pass of whole sequences, on every kind of model that has a fixture.
#include "src/inference/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "kernels/timed_ops.h"
#include "tests/support/expect_error.h"
#include "tests/support/fixtures.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(fixture("models")))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::int32_t> random_tokens(std::int64_t count, std::int64_t vocab_size, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<std::int32_t> uniform(0, static_cast<std::int32_t>(vocab_size) - 1);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::int32_t& token : tokens) token = uniform(generator);
  return tokens;
}

// Logits (T, V) of a whole sequence.
TestTensor whole_logits(InferenceModel& model, std::vector<std::int32_t>& tokens) {
  const auto T = static_cast<std::int64_t>(tokens.size());
  TestTensor out(DType::f32, {T, model.config().vocab_size});
  model.logits(out, view_of(tokens.data(), {T}), {1, T});
  return out;
}

// Row `row` of logits (T, V) against what was generated.
double row_error(const std::vector<float>& logits, const TestTensor& whole, std::int64_t row) {
  const auto V = static_cast<std::int64_t>(logits.size());
  TestTensor x(DType::f32, {V}), reference(DType::f32, {V});
  for (std::int64_t i = 0; i < V; ++i) {
    x.set(i, logits[static_cast<std::size_t>(i)]);
    reference.set(i, whole.get(row * V + i));
  }
  return relative_error(x, reference);
}

// float32 sums in another order; the fixtures themselves agree to 1e-5.
constexpr double bound = 1e-5;

class DecoderTest : public testing::TestWithParam<std::string> {
 protected:
  std::filesystem::path folder() const { return fixture("models/" + GetParam()); }
  std::unique_ptr<Ops> ops_ = make_device_ops();
};

// At every length: a prompt of it, and every token that follows.
TEST_P(DecoderTest, GivesTheLogitsOfTheWholeSequence) {
  constexpr std::int64_t T = 50;
  InferenceModel whole(folder(), *ops_, Precision::fp32, {1, T}, "");
  Decoder decoder(folder(), *ops_, Precision::fp32, {1, T});
  std::vector<std::int32_t> tokens = random_tokens(T, whole.config().vocab_size, 1);
  const TestTensor expected = whole_logits(whole, tokens);
  std::vector<float> logits(static_cast<std::size_t>(whole.config().vocab_size));
  for (std::int32_t prompt = 1; prompt <= T; prompt += prompt < 20 && !device_is_simulated() ? 1 : 7) {
    decoder.prefill(logits, 0, std::span(tokens).first(static_cast<std::size_t>(prompt)));
    ASSERT_LE(row_error(logits, expected, prompt - 1), bound) << "a prompt of " << prompt;
    for (std::int32_t n = prompt; n < T; ++n) {
      const NextToken next{0, n, tokens[static_cast<std::size_t>(n)]};
      decoder.decode(logits, std::span(&next, 1));
      ASSERT_LE(row_error(logits, expected, n), bound) << "token " << n << " after a prompt of " << prompt;
    }
  }
}

// A prompt that is taken in several segments.
TEST_P(DecoderTest, TakesLongPrompts) {
  const std::int64_t T = device_is_simulated() ? 600 : 1150;
  InferenceModel whole(folder(), *ops_, Precision::fp32, {1, T}, "");
  Decoder decoder(folder(), *ops_, Precision::fp32, {1, T});
  std::vector<std::int32_t> tokens = random_tokens(T, whole.config().vocab_size, 2);
  const TestTensor expected = whole_logits(whole, tokens);
  std::vector<float> logits(static_cast<std::size_t>(whole.config().vocab_size));
  decoder.prefill(logits, 0, std::span(tokens).first(static_cast<std::size_t>(T - 20)));
  EXPECT_LE(row_error(logits, expected, T - 21), bound);
  for (auto n = static_cast<std::int32_t>(T - 20); n < T; ++n) {
    const NextToken next{0, n, tokens[static_cast<std::size_t>(n)]};
    decoder.decode(logits, std::span(&next, 1));
    ASSERT_LE(row_error(logits, expected, n), bound) << "token " << n;
  }
}

// Sequences of different lengths side by side, one of which ends early and makes room for another.
TEST_P(DecoderTest, KeepsSequencesApart) {
  constexpr std::int64_t T = 40;
  InferenceModel whole(folder(), *ops_, Precision::fp32, {1, T}, "");
  Decoder decoder(folder(), *ops_, Precision::fp32, {3, T});
  const std::int64_t V = whole.config().vocab_size;
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<TestTensor> expected;
  for (unsigned s = 0; s < 4; ++s) {
    tokens.push_back(random_tokens(T, V, 10 + s));
    expected.push_back(whole_logits(whole, tokens.back()));
  }
  std::vector<float> logits(static_cast<std::size_t>(V));
  std::vector<std::size_t> content{0, 1, 2};  // the text in each place
  std::vector<std::int32_t> length{1, 13, 30};
  const auto prefill = [&](std::size_t place) {
    const auto prompt = std::span(tokens[content[place]]).first(static_cast<std::size_t>(length[place]));
    decoder.prefill(logits, static_cast<std::int64_t>(place), prompt);
    ASSERT_LE(row_error(logits, expected[content[place]], length[place] - 1), bound);
  };
  for (std::size_t place = 0; place < 3; ++place) prefill(place);
  for (int step = 0; step < 25; ++step) {
    std::vector<NextToken> next;
    for (std::size_t place = 0; place < 3; ++place) {
      if (length[place] == T && content[place] == 2) {
        content[place] = 3, length[place] = 5;
        prefill(place);
      }
      next.push_back({static_cast<std::int32_t>(place), length[place],
                      tokens[content[place]][static_cast<std::size_t>(length[place])]});
    }
    std::vector<float> all(next.size() * static_cast<std::size_t>(V));
    decoder.decode(all, next);
    for (std::size_t place = 0; place < 3; ++place) {
      const auto row = all.begin() + static_cast<std::ptrdiff_t>(place) * V;
      ASSERT_LE(row_error({row, row + V}, expected[content[place]], length[place]), bound) << "step " << step;
      ++length[place];
    }
  }
}

// Where a step's operations are replayed: batches of several sizes, a place that another prompt takes, and a
// long prompt in between.
TEST_P(DecoderTest, ReplayedStepsGiveTheSameBits) {
  constexpr std::int64_t T = 60;
  TimedOps one_by_one(*ops_);  // never replays
  Decoder replaying(folder(), *ops_, Precision::fp32, {3, T}),
      plain(folder(), one_by_one, Precision::fp32, {3, T});
  const std::int64_t V = plain.config().vocab_size;
  const std::vector<std::int32_t> tokens = random_tokens(T, V, 4);
  std::vector<std::int32_t> length{1, 6, 20};
  const auto prefill = [&](std::size_t place) {
    std::vector<float> logits(static_cast<std::size_t>(V)), expected = logits;
    const auto prompt = std::span(tokens).first(static_cast<std::size_t>(length[place]));
    replaying.prefill(logits, static_cast<std::int64_t>(place), prompt);
    plain.prefill(expected, static_cast<std::int64_t>(place), prompt);
    ASSERT_EQ(logits, expected);
  };
  for (std::size_t place = 0; place < 3; ++place) prefill(place);
  for (std::size_t step = 0; step < 24; ++step) {
    if (step == 12) length[1] = 40, prefill(1);
    std::vector<NextToken> next;
    for (std::size_t place = step / 4 % 3; place < 3; ++place, ++length[place - 1])
      next.push_back(
          {static_cast<std::int32_t>(place), length[place], tokens[static_cast<std::size_t>(length[place])]});
    std::vector<float> logits(next.size() * static_cast<std::size_t>(V)), expected = logits;
    replaying.decode(logits, next);
    plain.decode(expected, next);
    ASSERT_EQ(logits, expected) << "step " << step;
  }
}

// Prompts, and steps of several sizes in turns with steps that give logits, replayed too.
TEST_P(DecoderTest, GreedyTokensHaveTheLargestLogits) {
  constexpr std::int64_t T = 40;
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    Decoder decoder(folder(), *ops_, precision, {3, T});
    const std::int64_t V = decoder.config().vocab_size;
    const auto largest_of = [&](const std::vector<float>& logits) {
      std::vector<std::int32_t> tokens;
      for (auto row = logits.begin(); row != logits.end(); row += V)
        tokens.push_back(static_cast<std::int32_t>(std::max_element(row, row + V) - row));
      return tokens;
    };
    std::vector<NextToken> next;
    for (const std::int32_t length : {1, 13, 30}) {
      const auto place = static_cast<std::int32_t>(next.size());
      const std::vector<std::int32_t> prompt = random_tokens(length, V, static_cast<unsigned>(length));
      std::vector<float> logits(static_cast<std::size_t>(V));
      decoder.prefill(logits, place, prompt);
      EXPECT_THAT(decoder.prefill_greedy(place, prompt), testing::ElementsAreArray(largest_of(logits)));
      next.push_back({place, length, largest_of(logits)[0]});
    }
    for (std::size_t step = 0; step < 9; ++step) {
      const auto some = std::span(next).first(step % 2 == 0 ? 3 : 2);
      const auto chosen = decoder.decode_greedy(some);
      const std::vector<std::int32_t> tokens(chosen.begin(), chosen.end());
      std::vector<float> logits(some.size() * static_cast<std::size_t>(V));
      decoder.decode(logits, some);
      ASSERT_THAT(tokens, testing::ElementsAreArray(largest_of(logits))) << "step " << step;
      for (std::size_t i = 0; i < some.size(); ++i) some[i].token = tokens[i], ++some[i].position;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DecoderTest, testing::ValuesIn(model_names()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

// W + T / P: twice the tokens need the same window and twice the summaries.
TEST(Decoder, CachesGrowByChunksAndNotByTokens) {
  const auto ops = make_device_ops();
  const auto bytes = [&](const char* model, std::int64_t tokens) {
    return Decoder(fixture(model), *ops, Precision::fp32, {2, tokens}).cache_bytes();
  };
  const ModelConfig config = Decoder(fixture("models/eva-block"), *ops, Precision::fp32, {1, 8}).config();
  std::size_t expected = 0;
  for (const LayerAttention& layer : config.attention)  // keys and values of 1000 tokens more, of 2 sequences
    if (layer.kind == AttentionKind::eva)
      expected += static_cast<std::size_t>(2 * 2 * (2000 / layer.chunk - 1000 / layer.chunk) *
                                           config.hidden_size * 4);
  EXPECT_EQ(bytes("models/eva-block", 2000) - bytes("models/eva-block", 1000), expected);
  EXPECT_EQ(bytes("models/full", 2000), 2 * bytes("models/full", 1000));
  EXPECT_EQ(bytes("models/sliding", 2000), bytes("models/sliding", 1000));
}

TEST(Decoder, GeneratesWithoutTakingMemory) {
  if (device_is_gpu()) GTEST_SKIP() << "CUDA itself takes memory for kernels and graphs";
  const auto ops = make_device_ops();
  for (const char* model : {"models/full", "models/eva-block"}) {
    Decoder decoder(fixture(model), *ops, Precision::fp32, {3, 600});
    const std::vector<std::int32_t> prompt = random_tokens(520, decoder.config().vocab_size, 3);
    const std::size_t taken = memory_taken(*ops);
    for (std::int32_t i = 0; i < 3; ++i)
      decoder.prefill_greedy(i, std::span(prompt).first(i == 0 ? 520 : 20));
    for (std::int32_t position = 20; position < 23; ++position) {
      const NextToken next[] = {{0, position + 500, 1}, {1, position, 2}, {2, position, 3}};
      decoder.decode_greedy(next);
    }
    EXPECT_EQ(memory_taken(*ops), taken) << model;
  }
}

// Of which no segment of a prompt, and no number of 64 bits, can be a multiple.
TEST(Decoder, TakesLayersWhoseChunksHaveNoSmallCommonMultiple) {
  ModelConfig config;
  config.vocab_size = 16;
  config.hidden_size = config.intermediate_size = 8;
  config.num_attention_heads = 2;
  for (const std::int64_t chunk : {5, 4051, 4057, 4073, 4079, 4091, 4093})
    config.attention.push_back({AttentionKind::eva, chunk, chunk});
  config.num_hidden_layers = std::ssize(config.attention);
  const auto ops = make_device_ops();
  Decoder decoder(config, *ops, Precision::fp32, {1, 40}, 1);
  std::vector<float> logits(16);
  decoder.prefill(logits, 0, random_tokens(39, 16, 4));
  EXPECT_THAT(logits, testing::Each(testing::Truly([](float logit) { return std::isfinite(logit); })));
}

TEST(Decoder, LowPrecisionIsNearFloat32) {
  const auto ops = make_device_ops();
  Decoder wide(fixture("models/eva-block"), *ops, Precision::fp32, {1, 40});
  const std::int64_t V = wide.config().vocab_size;
  const std::vector<std::int32_t> tokens = random_tokens(40, V, 3);
  const auto last_logits = [&](Decoder& decoder) {
    std::vector<float> logits(static_cast<std::size_t>(V));
    decoder.prefill(logits, 0, std::span(tokens).first(20));
    for (std::int32_t n = 20; n < 40; ++n) {
      const NextToken next{0, n, tokens[static_cast<std::size_t>(n)]};
      decoder.decode(logits, std::span(&next, 1));
    }
    return logits;
  };
  const std::vector<float> expected = last_logits(wide);
  TestTensor reference(DType::f32, {V});
  for (std::int64_t i = 0; i < V; ++i) reference.set(i, expected[static_cast<std::size_t>(i)]);
  for (const auto& [precision, bound] : {std::pair{Precision::bf16, 0.05}, {Precision::fp16, 0.05 / 8}}) {
    Decoder narrow(fixture("models/eva-block"), *ops, precision, {1, 40});
    EXPECT_EQ(2 * narrow.cache_bytes(), wide.cache_bytes());
    EXPECT_EQ(2 * narrow.weight_bytes(), wide.weight_bytes());
    const double error = row_error(last_logits(narrow), reference, 0);
    EXPECT_LE(error, bound) << to_string(precision);
    EXPECT_GE(error, 1e-4) << to_string(precision);
  }
}

}  // namespace
}  // namespace flasheva
