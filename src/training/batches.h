// The sequences of each step: which ones of the data set, read into host tensors.
#pragma once

#include <cstdint>

#include "kernels/buffer.h"
#include "src/io/token_file.h"
#include "src/io/tokenizer.h"

namespace flasheva {

// Sequences of one length as a model takes them: rows are sequences one after another.
struct HostBatch {
  Tensor tokens, targets;  // (S T) int32
  Tensor mask;             // (S T) uint8; 0: the target does not count

  void plan(MemoryPlan& plan, std::int64_t sequences, std::int64_t tokens_per_sequence);
};

// Targets of the first `sequences` sequences that count.
std::int64_t counted_targets(const HostBatch& batch, std::int64_t sequences,
                             std::int64_t tokens_per_sequence);

// Bytes of text that they stand for.
std::int64_t bytes_of_targets(const HostBatch& batch, std::int64_t sequences,
                              std::int64_t tokens_per_sequence, const Tokenizer& tokenizer);

// Reads the sequence whose first token is `first_token` of the stream into place `place` of the batch.
void read_tokens(TokenFile& file, std::int64_t first_token, HostBatch& batch, std::int64_t place,
                 std::int64_t tokens_per_sequence);

// The same for sequence `index` of the data set: tokens [index L, index L + L + 1).
inline void read_sequence(TokenFile& file, std::int64_t index, HostBatch& batch, std::int64_t place,
                          std::int64_t tokens_per_sequence) {
  read_tokens(file, index * tokens_per_sequence, batch, place, tokens_per_sequence);
}

// Bytes of text that the counted targets of the file's first `sequences` sequences stand for.
std::int64_t bytes_of_targets(TokenFile& file, std::int64_t sequences, std::int64_t tokens_per_sequence,
                              const Tokenizer& tokenizer);

}  // namespace flasheva
