#include "src/training/batches.h"

namespace flasheva {

void HostBatch::plan(MemoryPlan& plan, std::int64_t sequences, std::int64_t tokens_per_sequence) {
  const std::int64_t count = sequences * tokens_per_sequence;
  plan.add(tokens, "batch", DType::i32, {count});
  plan.add(targets, "batch", DType::i32, {count});
  plan.add(mask, "batch", DType::u8, {count});
}

std::int64_t counted_targets(const HostBatch& batch, std::int64_t sequences,
                             std::int64_t tokens_per_sequence) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < sequences * tokens_per_sequence; ++i)
    count += batch.mask.as<std::uint8_t>()[i] != 0;
  return count;
}

std::int64_t bytes_of_targets(const HostBatch& batch, std::int64_t sequences,
                              std::int64_t tokens_per_sequence, const Tokenizer& tokenizer) {
  std::int64_t bytes = 0;
  for (std::int64_t i = 0; i < sequences * tokens_per_sequence; ++i)
    if (batch.mask.as<std::uint8_t>()[i] != 0)
      bytes += tokenizer.bytes_of(batch.targets.as<std::int32_t>()[i]);
  return bytes;
}

void read_tokens(TokenFile& file, std::int64_t first_token, HostBatch& batch, std::int64_t place,
                 std::int64_t tokens_per_sequence) {
  const auto length = static_cast<std::size_t>(tokens_per_sequence);
  const std::int64_t at = place * tokens_per_sequence;
  file.read(first_token, {batch.tokens.as<std::int32_t>() + at, length},
            {batch.targets.as<std::int32_t>() + at, length}, {batch.mask.as<std::uint8_t>() + at, length});
}

std::int64_t bytes_of_targets(TokenFile& file, std::int64_t sequences, std::int64_t tokens_per_sequence,
                              const Tokenizer& tokenizer) {
  HostBatch batch;
  MemoryPlan plan;
  batch.plan(plan, 1, tokens_per_sequence);
  Buffer memory(plan.bytes());
  memory.bind(plan);
  std::int64_t bytes = 0;
  for (std::int64_t sequence = 0; sequence < sequences; ++sequence) {
    read_sequence(file, sequence, batch, 0, tokens_per_sequence);
    bytes += bytes_of_targets(batch, 1, tokens_per_sequence, tokenizer);
  }
  return bytes;
}

}  // namespace flasheva
