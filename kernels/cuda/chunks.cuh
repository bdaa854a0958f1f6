// The chunks that a call summarises, and where each of them lies: all complete chunks of whole sequences, or
// those that new tokens finish in a cache.
#pragma once

#include "kernels/chunk_summary_contract.h"
#include "kernels/cuda/launch.cuh"

namespace flasheva::summary {

struct ChunkPlace {
  std::int64_t queries, keys, summary;  // offsets of its first row in q, in k and v, in kappa and beta
  std::int64_t fused, fused_stride;     // of its first row in the fused projection, and between its rows
  int sequence, head, chunk;            // head of its sequence
  int position, tokens;                 // of its first token; 0 tokens: absent
  bool complete;                        // it has all P tokens, and a summary
};

struct Chunks {
  int count, heads, query_rows, key_rows, chunks, chunk, head_dim;  // H, rows a head, C, P, d
  int of_head;  // C, and one more for the tokens that fill no chunk
  // Of a cache: chunk r is the one of head r mod H that token r / H finishes, absent where it finishes none.
  const std::int32_t *sequences = nullptr, *positions = nullptr;
  int all_sequences = 0;

  __device__ ChunkPlace at(int r) const {
    ChunkPlace place{};
    if (sequences == nullptr) {
      place.sequence = r / of_head / heads;
      place.head = r / of_head % heads;
      place.chunk = r % of_head;
      place.complete = place.chunk < chunks;
      place.tokens = place.complete ? chunk : key_rows - place.chunk * chunk;
    } else {
      const int position = positions[r / heads];
      place.sequence = sequences[r / heads];
      place.head = r % heads;
      place.chunk = position / chunk;
      place.complete = position >= 0 && position % chunk == chunk - 1 && place.chunk < chunks &&
                       place.sequence >= 0 && place.sequence < all_sequences;
      place.tokens = place.complete ? chunk : 0;
    }
    place.position = place.chunk * chunk;
    const std::int64_t head = static_cast<std::int64_t>(place.sequence) * heads + place.head;
    place.queries = (head * query_rows + place.position % query_rows) * head_dim;
    place.keys = (head * key_rows + place.position % key_rows) * head_dim;
    place.summary = (head * chunks + place.chunk) * head_dim;
    place.fused_stride = static_cast<std::int64_t>(heads) * 3 * head_dim;
    place.fused =
        (static_cast<std::int64_t>(place.sequence) * key_rows + place.position) * place.fused_stride +
        static_cast<std::int64_t>(place.head) * 3 * head_dim;
    return place;
  }

  // Of chunks first .. last - 1. Most tokens finish none.
  __device__ bool any_present(int first, int last) const {
    if (sequences == nullptr) return true;
    for (int r = first; r < last && r < count; ++r)
      if (at(r).tokens > 0) return true;
    return false;
  }
};

}  // namespace flasheva::summary
