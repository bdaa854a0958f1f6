// The chunks that a call summarises, and where each of them lies: all complete chunks of whole sequences, or
// those that new tokens finish in a cache.
#pragma once

#include "kernels/chunk_summary_contract.h"
#include "kernels/cuda/launch.cuh"

namespace flasheva::summary {

struct ChunkPlace {
  std::int64_t queries, keys, summary;  // offsets of its first row in q, in k and v, in kappa and beta
  int sequence, head, chunk;            // head of its sequence
  bool present;
};

struct Chunks {
  int count, heads, query_rows, key_rows, chunks, chunk, head_dim;  // H, rows a head, C, P, d
  // Of a cache: chunk r is the one of head r mod H that token r / H finishes, absent where it finishes none.
  const std::int32_t *sequences = nullptr, *positions = nullptr;
  int all_sequences = 0;

  __device__ ChunkPlace at(int r) const {
    ChunkPlace place{};
    if (sequences == nullptr) {
      place.sequence = r / chunks / heads;
      place.head = r / chunks % heads;
      place.chunk = r % chunks;
      place.present = true;
    } else {
      const int position = positions[r / heads];
      place.sequence = sequences[r / heads];
      place.head = r % heads;
      place.chunk = position / chunk;
      place.present = position >= 0 && position % chunk == chunk - 1 && place.chunk < chunks &&
                      place.sequence >= 0 && place.sequence < all_sequences;
    }
    const std::int64_t head = static_cast<std::int64_t>(place.sequence) * heads + place.head;
    const std::int64_t first = static_cast<std::int64_t>(place.chunk) * chunk;
    place.queries = (head * query_rows + first % query_rows) * head_dim;
    place.keys = (head * key_rows + first % key_rows) * head_dim;
    place.summary = (head * chunks + place.chunk) * head_dim;
    return place;
  }

  // Of chunks first .. last - 1. Most tokens finish none.
  __device__ bool any_present(int first, int last) const {
    if (sequences == nullptr) return true;
    for (int r = first; r < last && r < count; ++r)
      if (at(r).present) return true;
    return false;
  }
};

}  // namespace flasheva::summary
