#include "src/inference/generator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "src/core/file.h"
#include "tests/support/expect_error.h"
#include "tests/support/fixtures.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

const std::vector<std::vector<std::int32_t>> prompts{
    {3}, {1, 2, 3, 4, 5, 6, 7, 8, 9}, {30, 2, 17}, {0, 39, 0, 39, 0, 39, 0, 39, 0, 39, 0, 39, 0, 39, 0}};

GenerationOptions options_of(std::int64_t max_new_tokens, const SamplingOptions& sampling) {
  return {max_new_tokens, 64, sampling, {}};
}

std::vector<Generation> generate(const std::filesystem::path& folder, std::int64_t batch,
                                 const GenerationOptions& options, const Tokenizer* tokenizer = nullptr) {
  const auto ops = make_device_ops();
  Decoder decoder(folder, *ops, Precision::fp32, {batch, options.max_length});
  Generator generator(decoder, tokenizer, options);
  std::vector<Generation> all(prompts.size());
  std::vector<int> times(prompts.size());
  generator.run(prompts, [&](std::size_t i, const Generation& generation) {
    all[i] = generation;
    ++times[i];
  });
  EXPECT_EQ(times, std::vector<int>(prompts.size(), 1));
  return all;
}

// The forward pass of the whole sequence again for every token.
std::vector<std::int32_t> generate_plainly(const std::filesystem::path& folder,
                                           std::vector<std::int32_t> tokens, std::int64_t count,
                                           const SamplingOptions& sampling, std::uint32_t number) {
  const auto ops = make_device_ops();
  InferenceModel model(folder, *ops, Precision::fp32, {1, 64}, "");
  std::vector<std::int32_t> added;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto T = static_cast<std::int64_t>(tokens.size());
    std::vector<float> logits(static_cast<std::size_t>(model.config().vocab_size));
    model.logits(view_of(logits.data(), {1, model.config().vocab_size}), view_of(tokens.data(), {T}), {1, T});
    added.push_back(sample(logits, sampling, number, static_cast<std::uint32_t>(T)));
    tokens.push_back(added.back());
  }
  return added;
}

SamplingOptions greedy() {
  SamplingOptions sampling;
  sampling.greedy = true;
  return sampling;
}

SamplingOptions drawn(std::uint64_t seed) {
  SamplingOptions sampling;
  sampling.temperature = 1.3;
  sampling.top_p = 0.95;
  sampling.seed = seed;
  return sampling;
}

// Whatever the batch, also where a prompt begins when another has ended.
TEST(Generator, GivesWhatTheWholeForwardPassGives) {
  std::vector<const char*> models = {"models/eva-block", "models/eva-sliding-layernorm", "models/full"};
  std::vector<std::int64_t> batches = {1, 2, 3, 4};
  if (device_is_simulated()) models = {"models/eva-block"}, batches = {3};
  for (const char* model : models)
    for (const SamplingOptions& sampling : {greedy(), drawn(5)}) {
      std::vector<std::vector<std::int32_t>> expected;
      for (std::size_t i = 0; i < prompts.size(); ++i)
        expected.push_back(
            generate_plainly(fixture(model), prompts[i], 30, sampling, static_cast<std::uint32_t>(i)));
      for (const std::int64_t batch : batches) {
        const std::vector<Generation> found = generate(fixture(model), batch, options_of(30, sampling));
        for (std::size_t i = 0; i < prompts.size(); ++i) {
          EXPECT_EQ(found[i].new_tokens, expected[i]) << model << " prompt " << i << " batch " << batch;
          EXPECT_EQ(found[i].finish, Finish::length);
        }
      }
    }
}

TEST(Generator, SeedsDiffer) {
  const auto folder = fixture("models/eva-block");
  const std::vector<Generation> a = generate(folder, 2, options_of(30, drawn(1))),
                                b = generate(folder, 2, options_of(30, drawn(2)));
  EXPECT_NE(a[0].new_tokens, b[0].new_tokens);
}

TEST(Generator, EndsAtTheLongestLength) {
  GenerationOptions options = options_of(1000, greedy());
  options.max_length = 20;
  const std::vector<Generation> found = generate(fixture("models/eva-block"), 2, options);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(prompts[i].size() + found[i].new_tokens.size(), 20u);
    EXPECT_EQ(found[i].finish, Finish::length);
  }
}

// A token that the model gives becomes its EOS: there it ends, and EOS is not among the new tokens.
TEST(Generator, EndsAtEos) {
  const auto folder = fixture("models/eva-block");
  const std::vector<Generation> plain = generate(folder, 2, options_of(30, drawn(5)));
  const std::int32_t eos = plain[1].new_tokens[10];
  const TemporaryFolder temporary;
  const auto with_eos = temporary.path() / "model";
  std::filesystem::copy(folder, with_eos);
  auto config = nlohmann::json::parse(read_text_file(folder / "config.json"));
  config["eos_token_id"] = eos;
  std::ofstream(with_eos / "config.json") << config;
  const std::vector<Generation> found = generate(with_eos, 2, options_of(30, drawn(5)));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto& tokens = plain[i].new_tokens;
    const auto end = std::find(tokens.begin(), tokens.end(), eos);
    EXPECT_EQ(found[i].new_tokens, std::vector<std::int32_t>(tokens.begin(), end)) << "prompt " << i;
    EXPECT_EQ(found[i].finish, end == tokens.end() ? Finish::length : Finish::eos);
  }
}

// The last logit alone is none: the last weight of the head is not.
TEST(Generator, EndsWhereLogitsAreNotNumbers) {
  const TemporaryFolder temporary;
  const auto folder = temporary.path() / "model";
  std::filesystem::copy(fixture("models/eva-block"), folder);
  std::fstream weights(folder / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  weights.seekp(-4, std::ios::end);
  weights.write("\xff\xff\xff\xff", 4);
  weights.close();
  SamplingOptions penalized = greedy();
  penalized.repetition_penalty = 1.1;
  for (const SamplingOptions& sampling : {greedy(), penalized, drawn(5)})
    expect_error(ExitCode::numeric, "prompt 1, token 1: the logits are not numbers",
                 [&] { generate(folder, 2, options_of(30, sampling)); });
}

// Text, stop strings and what is shown on the way, with ids that are bytes.
TEST(Generator, StopsBeforeAStopStringAndShowsNoneOfIt) {
  const auto folder = fixture("models/eva-block");
  const auto bytes = make_tokenizer("bytes");
  GenerationOptions options = options_of(30, drawn(5));
  const std::vector<Generation> plain = generate(folder, 2, options, bytes.get());
  EXPECT_EQ(plain[2].text, bytes->decode(plain[2].new_tokens));
  const std::string stop = plain[2].text.substr(12, 3);
  options.stop = {"never", stop};
  const auto ops = make_device_ops();
  Decoder decoder(folder, *ops, Precision::fp32, {2, 64});
  Generator generator(decoder, bytes.get(), options);
  std::map<std::size_t, std::string> shown;
  generator.run(
      prompts,
      [&](std::size_t i, const Generation& generation) {
        const std::size_t at = plain[i].text.find(stop);
        EXPECT_EQ(generation.text, plain[i].text.substr(0, at));
        EXPECT_EQ(generation.finish, at == std::string::npos ? Finish::length : Finish::stop);
        EXPECT_EQ(shown[i], generation.text);
      },
      [&](std::size_t i, std::string_view text) { shown[i] += text; });
  EXPECT_LE(shown[2].size(), 12u);
}

TEST(Generator, CountsTokensAndTime) {
  const auto ops = make_device_ops();
  Decoder decoder(fixture("models/full"), *ops, Precision::fp32, {2, 64});
  Generator generator(decoder, nullptr, options_of(5, greedy()));
  generator.run(prompts, [](std::size_t, const Generation&) {});
  EXPECT_EQ(generator.speed().prompt_tokens, 1 + 9 + 3 + 15);
  EXPECT_EQ(generator.speed().new_tokens, 4 * 4);  // each prompt's first comes with the prompt
  EXPECT_GT(generator.speed().prompt_seconds, 0);
  EXPECT_GT(generator.speed().decode_seconds, 0);
}

TEST(GeneratedText, EndsBeforeTheFirstStopString) {
  const std::vector<std::string> stop{"##", "end"};
  GeneratedText text(stop);
  EXPECT_FALSE(text.append("a#"));
  EXPECT_FALSE(text.append("en#d"));
  EXPECT_TRUE(text.append(" en## end"));
  EXPECT_EQ(text.text(), "a#en#d en");
}

TEST(GeneratedText, SettlesWhatNoTokenCanTakeBack) {
  const std::vector<std::string> stop{"abcd", "cde"};
  GeneratedText text(stop);
  text.append("x ab");
  EXPECT_EQ(text.settled_bytes(), 2u);  // "ab" may become "abcd"
  text.append("c");
  EXPECT_EQ(text.settled_bytes(), 2u);
  text.append("x");
  EXPECT_EQ(text.settled_bytes(), 6u);
  text.append("\xe2\x82");
  EXPECT_EQ(text.settled_bytes(), 6u);  // an unfinished character
  text.append("\xac");
  EXPECT_EQ(text.settled_bytes(), 9u);
  text.append("\xff");  // not UTF-8 at all: does not wait for more
  text.append("a\x80");
  EXPECT_EQ(text.settled_bytes(), 12u);
}

}  // namespace
}  // namespace flasheva
