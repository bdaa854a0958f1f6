#include "src/inference/generator.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "src/core/clock.h"
#include "src/core/error.h"

namespace flasheva {

namespace {

// Adds the seconds of its own life.
class Stopwatch {
 public:
  explicit Stopwatch(double& total) : total_(total) {}
  ~Stopwatch() { total_ += seconds_now() - start_; }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& total_;
  double start_ = seconds_now();
};

}  // namespace

const char* name_of(Finish finish) {
  constexpr const char* names[] = {"eos", "stop", "length"};
  return names[static_cast<int>(finish)];
}

// A prompt on its way, in one of the decoder's places.
struct Generator::Sequence {
  std::size_t prompt = 0;                        // its number
  std::int32_t place = 0, length = 0, next = 0;  // tokens so far; the last one, which is not cached yet
  std::vector<std::int32_t> occurred;            // tokens so far, none twice
  GeneratedText text;
  std::size_t shown_bytes = 0;
  Generation generation;

  Sequence(std::size_t prompt, std::int32_t place, const std::vector<std::string>& stop)
      : prompt(prompt), place(place), text(stop) {}

  void remember(std::int32_t token) {
    if (std::find(occurred.begin(), occurred.end(), token) == occurred.end()) occurred.push_back(token);
  }
};

Generator::Generator(Decoder& decoder, const Tokenizer* tokenizer, const GenerationOptions& options)
    : decoder_(decoder),
      tokenizer_(tokenizer),
      options_(options),
      greedy_(options.sampling.greedy && options.sampling.repetition_penalty == 1),
      logits_(decoder.logits_on_host()) {
  FLASHEVA_CHECK(options.max_length > 1 && options.max_length <= decoder.capacity().tokens);
  FLASHEVA_CHECK(options.stop.empty() || tokenizer != nullptr);
}

// The token that follows a sequence, from row `row` of what the decoder gave; -1 where that is not numbers.
std::int32_t Generator::choose(std::size_t row, const Sequence& sequence) const {
  if (greedy_) return most_likely_[row];
  const auto V = static_cast<std::size_t>(decoder_.config().vocab_size);
  const std::span<float> logits = logits_.subspan(row * V, V);
  if (options_.sampling.repetition_penalty != 1)
    penalize_repetition(logits, sequence.occurred, options_.sampling.repetition_penalty);
  return sample(logits, options_.sampling, static_cast<std::uint32_t>(sequence.prompt),
                static_cast<std::uint32_t>(sequence.length));
}

// Adds the token. False once the sequence has ended.
bool Generator::take(std::int32_t token, Sequence& sequence, const Added& added) const {
  if (token < 0)
    fail(ExitCode::numeric, "prompt {}, token {}: the logits are not numbers; are the weights?",
         sequence.prompt + 1, sequence.length);
  Generation& generation = sequence.generation;
  bool ended = decoder_.config().eos_token_id && token == *decoder_.config().eos_token_id;
  if (ended) {
    generation.finish = Finish::eos;
  } else {
    generation.new_tokens.push_back(token);
    if (options_.sampling.repetition_penalty != 1) sequence.remember(token);
    sequence.next = token;
    ++sequence.length;
    if (tokenizer_ != nullptr && sequence.text.append(tokenizer_->decode({token}))) {
      generation.finish = Finish::stop;
      ended = true;
    } else if (static_cast<std::int64_t>(generation.new_tokens.size()) == options_.max_new_tokens ||
               sequence.length == options_.max_length) {
      generation.finish = Finish::length;
      ended = true;
    }
  }
  const std::size_t settled = ended ? sequence.text.text().size() : sequence.text.settled_bytes();
  if (added && settled > sequence.shown_bytes)
    added(sequence.prompt,
          std::string_view(sequence.text.text()).substr(0, settled).substr(sequence.shown_bytes));
  sequence.shown_bytes = std::max(sequence.shown_bytes, settled);
  if (ended) generation.text = sequence.text.text();
  return !ended;
}

// Reads the prompt; the token that follows.
std::int32_t Generator::begin(Sequence& sequence, const std::vector<std::int32_t>& prompt) {
  const Stopwatch stopwatch(speed_.prompt_seconds);
  if (greedy_)
    most_likely_ = decoder_.prefill_greedy(sequence.place, prompt);
  else
    decoder_.prefill(logits_.first(static_cast<std::size_t>(decoder_.config().vocab_size)), sequence.place,
                     prompt);
  sequence.length = static_cast<std::int32_t>(prompt.size());
  speed_.prompt_tokens += sequence.length;
  if (options_.sampling.repetition_penalty != 1)
    for (const std::int32_t token : prompt) sequence.remember(token);
  return choose(0, sequence);
}

// Reads one token more of each; the tokens that follow.
std::vector<std::int32_t> Generator::decode(const std::vector<Sequence*>& active) {
  const Stopwatch stopwatch(speed_.decode_seconds);
  std::vector<NextToken> next;
  for (const Sequence* sequence : active)
    next.push_back({sequence->place, sequence->length - 1, sequence->next});
  if (greedy_)
    most_likely_ = decoder_.decode_greedy(next);
  else
    decoder_.decode(logits_.first(next.size() * static_cast<std::size_t>(decoder_.config().vocab_size)),
                    next);
  speed_.new_tokens += static_cast<std::int64_t>(active.size());
  std::vector<std::int32_t> tokens(active.size());
#pragma omp parallel for if (!greedy_)
  for (std::size_t i = 0; i < active.size(); ++i) tokens[i] = choose(i, *active[i]);
  return tokens;
}

void Generator::run(std::span<const std::vector<std::int32_t>> prompts, const Done& done,
                    const Added& added) {
  std::vector<std::int32_t> free_places(static_cast<std::size_t>(decoder_.capacity().sequences));
  for (std::size_t i = 0; i < free_places.size(); ++i)
    free_places[i] = static_cast<std::int32_t>(free_places.size() - 1 - i);
  std::vector<std::unique_ptr<Sequence>> sequences;
  const auto end = [&](const Sequence& sequence) {
    done(sequence.prompt, sequence.generation);
    free_places.push_back(sequence.place);
  };

  for (std::size_t next_prompt = 0; next_prompt < prompts.size() || !sequences.empty();) {
    while (!free_places.empty() && next_prompt < prompts.size()) {
      auto sequence = std::make_unique<Sequence>(next_prompt, free_places.back(), options_.stop);
      free_places.pop_back();
      const std::int32_t token = begin(*sequence, prompts[next_prompt++]);
      if (take(token, *sequence, added))
        sequences.push_back(std::move(sequence));
      else
        end(*sequence);
    }
    if (sequences.empty()) continue;
    std::vector<Sequence*> active;
    for (const auto& sequence : sequences) active.push_back(sequence.get());
    const std::vector<std::int32_t> tokens = decode(active);
    for (std::size_t i = 0; i < active.size(); ++i)
      if (!take(tokens[i], *active[i], added)) {
        end(*active[i]);
        sequences[i].reset();
      }
    std::erase(sequences, nullptr);
  }
}

}  // namespace flasheva
