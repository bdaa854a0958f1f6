#include "kernels/cpu/few_rows.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd.h"

namespace flasheva {

namespace {

constexpr int lanes = simd::lanes<float>;
constexpr int tile_outputs = cpu_attention::tile_rows;  // outputs that are summed side by side
constexpr std::int64_t depth_block = 1024;              // a tile's weights stay in the cache

// For few rows the vectors are narrower than the machine's, so that a panel's rows that are only padding take
// no bytes from the cache.
std::int64_t panel_width(std::int64_t rows) {
  if (rows > lanes) return 2 * lanes;
  std::int64_t width = 4;
  while (width < rows) width *= 2;
  return width;
}

// Rows of x (N, I) side by side: element k of all of them, then element k + 1.
struct Panels {
  std::int64_t width;   // 4, 8 ... lanes, or 2 lanes
  std::int64_t panels;  // of `width` rows each
  float* data;          // (panels, I, width)

  Panels(Carver& carver, std::int64_t N, std::int64_t I)
      : width(panel_width(N)),
        panels((N + width - 1) / width),
        data(carver.take<float>(panels * width * I)) {}
};

// `width` floats.
template <int width>
using Narrow __attribute__((vector_size(width * sizeof(float)))) = float;

// Panel `panel`, elements k .. k + lanes - 1: the transpose of squares of x; rows behind the last are 0.
template <class T>
void pack_square(const Panels& out, const T* x, std::int64_t N, std::int64_t I, std::int64_t panel,
                 std::int64_t k) {
  const std::int64_t count = std::min<std::int64_t>(lanes, I - k);
  for (std::int64_t side = 0; side < out.width; side += lanes) {
    simd::Floats square[lanes] = {};
    const std::int64_t first = panel * out.width + side;
    for (int r = 0; r < lanes && first + r < N; ++r) {
      const T* row = x + (first + r) * I + k;
      square[r] = count == lanes ? simd::load(row) : simd::load_first(row, count);
    }
    simd::transpose<float>(square);
    for (std::int64_t j = 0; j < count; ++j) {
      float* to = out.data + (panel * I + k + j) * out.width + side;
      if (out.width >= lanes)
        simd::store(to, square[j]);
      else
        simd::store_first(to, square[j], out.width);
    }
  }
}

// sums (outputs, width) += weights (outputs, depth) panel (depth, width). The weights of the tile behind are
// asked for meanwhile.
template <int outputs, int vectors, int lanes>
void multiply_tile(float* sums, const float* weights, std::int64_t weight_row, const float* panel,
                   std::int64_t depth) {
  using Vector = Narrow<lanes>;
  constexpr int width = vectors * lanes, line = 16;
  Vector sum[outputs][vectors];
  const auto load = [](const float* from) {
    Vector x;
    std::memcpy(&x, from, sizeof(x));
    return x;
  };
  for (int i = 0; i < outputs; ++i)
    for (int v = 0; v < vectors; ++v) sum[i][v] = load(sums + i * width + v * lanes);
  for (std::int64_t begin = 0; begin < depth; begin += line) {
    for (int i = 0; i < outputs; ++i) __builtin_prefetch(weights + (i + outputs) * weight_row + begin, 0, 2);
    for (std::int64_t k = begin; k < std::min(begin + line, depth); ++k) {
      Vector x[vectors];
      for (int v = 0; v < vectors; ++v) x[v] = load(panel + k * width + v * lanes);
      for (int i = 0; i < outputs; ++i) {
        const float weight = weights[i * weight_row + k];
        for (int v = 0; v < vectors; ++v) sum[i][v] = weight * x[v] + sum[i][v];
      }
    }
  }
  for (int i = 0; i < outputs; ++i)
    for (int v = 0; v < vectors; ++v) std::memcpy(sums + i * width + v * lanes, &sum[i][v], sizeof(Vector));
}

// The same for the last outputs, which may be fewer than a tile's.
template <int vectors, int lanes, int most = tile_outputs>
void multiply_outputs(std::int64_t outputs, float* sums, const float* weights, std::int64_t weight_row,
                      const float* panel, std::int64_t depth) {
  if constexpr (most > 1)
    if (outputs < most)
      return multiply_outputs<vectors, lanes, most - 1>(outputs, sums, weights, weight_row, panel, depth);
  multiply_tile<most, vectors, lanes>(sums, weights, weight_row, panel, depth);
}

using MultiplyOutputs = void (*)(std::int64_t, float*, const float*, std::int64_t, const float*,
                                 std::int64_t);

MultiplyOutputs multiply_outputs_of(std::int64_t width) {
  if (width == 2 * lanes) return multiply_outputs<2, lanes>;
  if (width == 4) return multiply_outputs<1, 4>;
  if constexpr (lanes > 8)
    if (width == 8) return multiply_outputs<1, 8>;
  return multiply_outputs<1, lanes>;
}

// Memory of one thread.
struct StripScratch {
  float* sums;     // (panels, tile_outputs, width): few_rows rows of all panels together
  float* weights;  // (tile_outputs, depth_block), where they are widened

  explicit StripScratch(Carver& carver) {
    static_assert(few_rows % (2 * lanes) == 0);
    sums = carver.take<float>(few_rows * tile_outputs);
    weights = carver.take<float>(tile_outputs * depth_block);
  }
};

// Weights (count, depth) as float: where they lie, or widened.
template <class T>
const float* widened(float* memory, const T* weights, std::int64_t row, std::int64_t count,
                     std::int64_t depth) {
  if constexpr (std::is_same_v<T, float>) {
    return weights;
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      std::int64_t k = 0;
      for (; k + lanes <= depth; k += lanes)
        simd::store(memory + i * depth_block + k, simd::load(weights + i * row + k));
      for (; k < depth; ++k) memory[i * depth_block + k] = static_cast<float>(weights[i * row + k]);
    }
    return memory;
  }
}

// Outputs first .. first + count - 1 of all rows.
template <class T>
void multiply_strip(T* out, const StripScratch& scratch, const Panels& panels, const T* weight, const T* bias,
                    std::int64_t N, std::int64_t O, std::int64_t I, std::int64_t first, std::int64_t count) {
  const MultiplyOutputs multiply_outputs = multiply_outputs_of(panels.width);
  const std::int64_t width = panels.width, panel_sums = tile_outputs * width;
  for (std::int64_t i = 0; i < panels.panels * panel_sums; ++i) scratch.sums[i] = 0;
  for (std::int64_t begin = 0; begin < I; begin += depth_block) {
    const std::int64_t depth = std::min(depth_block, I - begin);
    const float* weights = widened(scratch.weights, weight + first * I + begin, I, count, depth);
    const std::int64_t weight_row = std::is_same_v<T, float> ? I : depth_block;
    for (std::int64_t p = 0; p < panels.panels; ++p) {
      const float* panel = panels.data + (p * I + begin) * width;
      multiply_outputs(count, scratch.sums + p * panel_sums, weights, weight_row, panel, depth);
    }
  }
  for (std::int64_t n = 0; n < N; ++n) {
    const float* sums = scratch.sums + n / width * panel_sums + n % width;
    for (std::int64_t i = 0; i < count; ++i) {
      const float added = bias == nullptr ? 0 : static_cast<float>(bias[first + i]);
      out[n * O + first + i] = static_cast<T>(sums[i * width] + added);
    }
  }
}

template <class T>
void multiply(Tensor out, Tensor x, Tensor weight, Tensor bias, CpuScratch& scratch) {
  const std::int64_t N = x.dim(0), I = x.dim(1), O = weight.dim(0);
  const Panels panels = scratch.shared<Panels>(N, I);
  const ThreadMemory of_threads = scratch.of_threads<StripScratch>();
  const std::int64_t squares = (I + lanes - 1) / lanes, strips = (O + tile_outputs - 1) / tile_outputs;
#pragma omp parallel if (O * I >= 16384)
  {
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < panels.panels * squares; ++i)
      pack_square(panels, x.as<T>(), N, I, i / squares, i % squares * lanes);
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < strips; ++i) {
      const std::int64_t first = i * tile_outputs;
      multiply_strip(out.as<T>(), of_threads.carve<StripScratch>(), panels, weight.as<T>(), bias.as<T>(), N,
                     O, I, first, std::min<std::int64_t>(tile_outputs, O - first));
    }
  }
}

}  // namespace

ScratchBytes few_rows_scratch(std::int64_t rows, std::int64_t inputs) {
  return {bytes_of_layout<Panels>(rows, inputs), bytes_of_layout<StripScratch>()};
}

void multiply_few_rows(Tensor out, Tensor x, Tensor weight, Tensor bias, CpuScratch& scratch) {
  FLASHEVA_CHECK(x.shape.rank() == 2 && weight.shape.rank() == 2 && x.dim(0) <= few_rows);
  FLASHEVA_CHECK(matches(x, x.dtype, x.shape) && matches(weight, x.dtype, {weight.dim(0), x.dim(1)}));
  FLASHEVA_CHECK(matches(out, x.dtype, {x.dim(0), weight.dim(0)}));
  FLASHEVA_CHECK(!bias || matches(bias, x.dtype, {weight.dim(0)}));
  if (x.dtype == DType::bf16)
    multiply<bf16>(out, x, weight, bias, scratch);
  else if (x.dtype == DType::f16)
    multiply<f16>(out, x, weight, bias, scratch);
  else
    multiply<float>(out, x, weight, bias, scratch);
}

}  // namespace flasheva
