// The scratch memory of operations, a layout each, but for the summaries' (chunk_scratch.h): the operation
// cuts its memory by it, and a plan measures it (src/model/scratch.cpp). Where a size depends on how many
// blocks of a kernel a GPU holds, the plan takes the most that any could (most_...). Nothing here is CUDA's,
// as plans are made on machines without a GPU too.
#pragma once

#include <algorithm>

#include "kernels/attention_contract.h"
#include "kernels/cuda/divide_up.h"
#include "kernels/cuda/scratch_pieces.h"

namespace flasheva {

// cuBLASLt's own, as its documentation advises for Hopper.
inline constexpr std::size_t products_workspace_bytes = std::size_t{32} << 20;

// No GPU holds more blocks of so many threads at once.
inline std::int64_t most_resident_blocks(int multiprocessors, int threads) {
  constexpr int blocks_of_one = 32, threads_of_one = 2048;
  return static_cast<std::int64_t>(multiprocessors) * std::min(blocks_of_one, threads_of_one / threads);
}

// Elements that a thread moves at once, where rows are aligned.
inline std::int64_t elements_of_a_vector(DType type) {
  return 16 / static_cast<std::int64_t>(size_in_bytes(type));
}

// --- embedding, backward: tokens and their positions (N), sorted by half of the bits, then by all ----------
struct SortedTokensScratch {
  Tensor half_tokens, half_positions, tokens, positions;

  SortedTokensScratch(ScratchPieces& pieces, std::int64_t count) {
    for (Tensor* x : {&half_tokens, &half_positions, &tokens, &positions})
      *x = pieces.take(DType::i32, {count});
  }
};

// --- LayerNorm, backward: each block's sums for the gradients of two norms ---------------------------------
struct LayerNormScratch {
  Tensor dweight[2], dbias[2];  // (blocks, D)

  LayerNormScratch(ScratchPieces& pieces, DType acc, std::int64_t blocks, std::int64_t columns) {
    for (Tensor* sums : {dweight, dbias})
      for (int of = 0; of < 2; ++of) sums[of] = pieces.take(acc, {blocks, columns});
  }
};

inline constexpr int most_layernorm_threads = 512;
// A thread takes `width` columns or more.
inline int layernorm_threads(std::int64_t columns, std::int64_t width) {
  constexpr std::int64_t warp = 32;
  return static_cast<int>(
      std::min<std::int64_t>(most_layernorm_threads, divide_up(divide_up(columns, width), warp) * warp));
}
// A block takes 8 rows or more, so that its sums are few beside them.
inline std::int64_t layernorm_blocks(std::int64_t rows, std::int64_t resident_blocks) {
  return std::min(divide_up(rows, 8), resident_blocks);
}

inline std::size_t most_layernorm_scratch(std::int64_t rows, std::int64_t columns, DType dtype,
                                          int multiprocessors) {
  const int threads = layernorm_threads(columns, elements_of_a_vector(dtype));
  return scratch_bytes<LayerNormScratch>(
      accumulation_type(dtype), layernorm_blocks(rows, most_resident_blocks(multiprocessors, threads)),
      columns);
}

// --- sums over columns, for the gradient of a bias ---------------------------------------------------------

// Blocks that fill a GPU: `across` the columns and `down` the rows.
struct ColumnSumsGrid {
  static constexpr int threads = 256;
  std::int64_t across, rows_a_block, down;

  // A lane of a warp takes `width` columns.
  ColumnSumsGrid(std::int64_t rows, std::int64_t columns, std::int64_t width, std::int64_t resident_blocks) {
    constexpr std::int64_t lanes = 32, rows_at_least = 64, one = 1;
    across = divide_up(columns, lanes * width);
    rows_a_block = std::max(rows_at_least, divide_up(rows, std::max(one, resident_blocks / across)));
    down = divide_up(rows, rows_a_block);
  }
};

struct ColumnSumsScratch {
  Tensor partials;

  ColumnSumsScratch(ScratchPieces& pieces, DType acc, const ColumnSumsGrid& grid, std::int64_t columns)
      : partials(pieces.take(acc, {grid.down, columns})) {}
};

inline std::size_t most_column_sums_scratch(std::int64_t rows, std::int64_t columns, DType dtype,
                                            int multiprocessors) {
  const ColumnSumsGrid grid(rows, columns, elements_of_a_vector(dtype),
                            most_resident_blocks(multiprocessors, ColumnSumsGrid::threads));
  return scratch_bytes<ColumnSumsScratch>(accumulation_type(dtype), grid, columns);
}

// --- sums of squares: of each tensor, and of each block ----------------------------------------------------
struct SquaresScratch {
  static constexpr std::int64_t elements_a_block = 16384;  // of one tensor
  Tensor sums, partials;

  SquaresScratch(ScratchPieces& pieces, std::int64_t tensors, std::int64_t blocks)
      : sums(pieces.take(DType::f64, {tensors})), partials(pieces.take(DType::f64, {blocks})) {}
};

inline std::size_t most_squares_scratch(std::int64_t tensors, std::int64_t elements) {
  return scratch_bytes<SquaresScratch>(tensors, tensors + elements / SquaresScratch::elements_a_block);
}

// --- attention, backward -----------------------------------------------------------------------------------

// All later queries see a chunk. They are taken in segments, whose sums stand in scratch until they are added
// up in order, so that no few blocks carry all queries.
struct Segments {
  int count, queries;  // queries of each
};

inline Segments segments_of(const AttentionSizes& sizes, int multiprocessors) {
  constexpr std::int64_t shortest = 512, tile = 64, one = 1;
  const std::int64_t tiles = divide_up(sizes.C, tile) * sizes.B * sizes.H;
  const std::int64_t wanted = divide_up(4 * static_cast<std::int64_t>(multiprocessors), std::max(one, tiles));
  const std::int64_t count = std::min(wanted, divide_up(sizes.T, shortest));
  const std::int64_t queries = divide_up(divide_up(sizes.T, count), tile) * tile;
  return {static_cast<int>(divide_up(sizes.T, queries)), static_cast<int>(queries)};
}

struct AttentionBackwardScratch {
  static constexpr int smallest_query_tile = 16;
  Segments segments;
  Tensor row_dots;       // (B H, T): D
  Tensor dkappa, dbeta;  // (B H, segments, C d)
  Tensor dchunk_bias;    // (B H, tiles) or fewer tiles

  AttentionBackwardScratch(ScratchPieces& pieces, DType acc, const AttentionSizes& sizes, int multiprocessors)
      : segments(segments_of(sizes, multiprocessors)) {
    const std::int64_t heads = sizes.B * sizes.H;
    row_dots = pieces.take(acc, {heads, sizes.T});
    for (Tensor* x : {&dkappa, &dbeta}) *x = pieces.take(acc, {heads, segments.count, sizes.C * sizes.d});
    dchunk_bias = pieces.take(acc, {heads, divide_up(sizes.T, smallest_query_tile)});
  }
};

// --- attention over a cache of R tokens and C chunks, whose keys are split between blocks ------------------

// By the cache's size alone: what a token gets does not depend on the batch.
inline std::int64_t splits_of_cache(std::int64_t keys) {
  constexpr std::int64_t keys_of_a_split = 128;
  return divide_up(keys, keys_of_a_split);
}

struct CachedAttentionScratch {
  Tensor out, log_sum_exp;  // (N H, splits, d) and (N H, splits), of each split

  CachedAttentionScratch(ScratchPieces& pieces, DType acc, std::int64_t heads, std::int64_t splits,
                         std::int64_t head_dim)
      : out(pieces.take(acc, {heads, splits, head_dim})), log_sum_exp(pieces.take(acc, {heads, splits})) {}
};

}  // namespace flasheva
