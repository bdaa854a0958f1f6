// Continues prompts: as many at a time as the decoder has caches for; where one ends, the next begins.
//
// What follows a prompt depends on the prompt, the options and its number, not on what is generated beside
// it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/inference/decoder.h"
#include "src/inference/generated_text.h"
#include "src/inference/sampler.h"
#include "src/io/tokenizer.h"

namespace flasheva {

struct GenerationOptions {
  std::int64_t max_new_tokens = 128;
  std::int64_t max_length = 0;  // tokens of prompt and continuation; at most the decoder's capacity
  SamplingOptions sampling;
  std::vector<std::string> stop;  // need a tokenizer
};

// Why a continuation ended: at the model's EOS, before a stop string, or at max_new_tokens or max_length.
enum class Finish : std::uint8_t { eos, stop, length };
const char* name_of(Finish finish);

struct Generation {
  std::vector<std::int32_t> new_tokens;  // without the EOS
  std::string text;                      // of the new tokens, up to a stop string; empty without a tokenizer
  Finish finish = Finish::length;
};

struct GenerationSpeed {
  std::int64_t prompt_tokens = 0, new_tokens = 0;
  double prompt_seconds = 0, decode_seconds = 0;  // of prompts; of the tokens after them
};

class Generator {
 public:
  // `tokenizer` may be null: there is no text then.
  Generator(Decoder& decoder, const Tokenizer* tokenizer, const GenerationOptions& options);

  // Called with each prompt's number when it has ended, not always in order.
  using Done = std::function<void(std::size_t prompt, const Generation& generation)>;
  // Called with text that has been added to a prompt's continuation.
  using Added = std::function<void(std::size_t prompt, std::string_view text)>;

  // Prompts have at least one token and fewer than max_length. Error{numeric} where logits are not finite.
  void run(std::span<const std::vector<std::int32_t>> prompts, const Done& done, const Added& added = {});

  const GenerationSpeed& speed() const { return speed_; }

 private:
  struct Sequence;

  std::int32_t choose(std::size_t row, const Sequence& sequence) const;
  bool take(std::int32_t token, Sequence& sequence, const Added& added) const;
  std::int32_t begin(Sequence& sequence, const std::vector<std::int32_t>& prompt);
  std::vector<std::int32_t> decode(const std::vector<Sequence*>& active);

  Decoder& decoder_;
  const Tokenizer* tokenizer_;
  GenerationOptions options_;
  bool greedy_;                                // the device chooses
  std::span<float> logits_;                    // (S, V), where not greedy_
  std::span<const std::int32_t> most_likely_;  // of the last tokens that the decoder read, where greedy_
  GenerationSpeed speed_;
};

}  // namespace flasheva
