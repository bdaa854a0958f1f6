// A model that generates: prompts go into caches, then tokens one at a time.
//
// A cache holds what attention will see again (ops.h, LayerCache): of full attention every token, of FlashEVA
// the window and one key and one value a chunk. It is taken once, for a given number of sequences and tokens;
// a prompt and the tokens after it give the logits of the whole sequence's forward pass.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "src/inference/inference_model.h"

namespace flasheva {

// One more token of a cached sequence.
struct NextToken {
  std::int32_t sequence, position, token;
};

class Decoder : public LoadedModel {
 public:
  // `cached`: how many sequences it will hold at a time, and the tokens of the longest.
  Decoder(const std::filesystem::path& folder, Ops& ops, Precision precision, Extent cached);
  Decoder(const ModelConfig& config, Ops& ops, Precision precision, Extent cached, std::uint64_t seed);

  Extent capacity() const { return cached_; }
  std::size_t cache_bytes() const;

  // logits (V) after a prompt of at least one token, which takes the place of what sequence number `sequence`
  // held; the prompt and what follows fit the capacity.
  void prefill(std::span<float> logits, std::int64_t sequence, std::span<const std::int32_t> prompt);
  // logits (N, V), row by row, after one more token of each of N different sequences.
  void decode(std::span<float> logits, std::span<const NextToken> next);
  // The most likely token instead of each row of logits, the first of equals, or -1 where one is NaN: (1) and
  // (N), until the next call. The logits stay on the device.
  std::span<const std::int32_t> prefill_greedy(std::int64_t sequence, std::span<const std::int32_t> prompt);
  std::span<const std::int32_t> decode_greedy(std::span<const NextToken> next);
  // Host memory for those of all sequences (S, V), which the device writes fastest.
  std::span<float> logits_on_host() const {
    return {host_logits_.as<float>(), static_cast<std::size_t>(host_logits_.size())};
  }
  // Fills the caches with random values, as if sequences of any length had been read: to measure speed.
  void fill_caches(std::uint64_t seed);

 private:
  void take_memory();
  // The logits go to the first rows of logits_; with `greedy` the most likely tokens to most_likely_.
  void run_prompt(std::int64_t sequence, std::span<const std::int32_t> prompt);
  void run_step(std::span<const NextToken> next, bool greedy);
  std::span<const std::int32_t> tokens_on_host(std::int64_t rows);
  void widen_logits(std::span<float> out, Tensor computed);

  Extent cached_;
  std::int64_t segment_ = 0;  // tokens of a prompt that are taken together
  std::vector<LayerCache> cache_;
  Tensor logits_;  // (S, V)
  // (S, V) float32: bfloat16 on its way to the host, where the device has its own memory.
  Tensor wide_logits_;
  Tensor tokens_;       // (segment), int32
  Tensor next_;         // (3 S), int32: of up to S next tokens the sequences, then positions, then tokens
  Tensor most_likely_;  // (S), int32
  HostStaging staging_;
  Tensor host_logits_;  // (S, V) float32
  std::unique_ptr<Buffer> memory_, host_memory_;
  // Of run_step, by the number of sequences and whether it is greedy.
  std::map<std::pair<std::int64_t, bool>, std::unique_ptr<OperationGraph>> graphs_;
};

}  // namespace flasheva
