//     forward   xhat = (x - mean) rstd,  out = xhat weight + bias
//     backward  g = dout weight,  dx += rstd (g - mean(g) - xhat mean(g xhat))
//               dweight += sum over rows of dout xhat,  dbias += sum over rows of dout
// mean and variance are over the last dimension, D; rstd = 1 / sqrt(variance + eps). Two norms of one x share
// xhat; in the backward pass g is then the sum of both.
// A block takes a row at a time and a thread the same columns of each, in registers: rows are read once.
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/warp.cuh"
#include "kernels/layernorm_contract.h"

namespace flasheva {

namespace {

constexpr int most_threads = most_layernorm_threads, most_warps = most_threads / warp_size;

// body(j, column) for the columns of this thread: `vectors` groups of `width`, as far as there are so many.
template <int vectors, int width, class Body>
__device__ inline void for_own_columns(std::int64_t columns, const Body& body) {
#pragma unroll
  for (int j = 0; j < vectors; ++j) {
    const std::int64_t column = static_cast<std::int64_t>(j * blockDim.x + threadIdx.x) * width;
    if (column < columns) body(j, column);
  }
}

// The sums over all threads of the block, in all of them.
template <int count, class A>
__device__ inline void sum_over_block(A (&sums)[count], A (&shared)[count][most_warps]) {
  const int warp = threadIdx.x / warp_size, warps = blockDim.x / warp_size;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    sums[i] = warp_sum(sums[i]);
    if (threadIdx.x % warp_size == 0) shared[i][warp] = sums[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < count; ++i) {
    sums[i] = shared[i][0];
    for (int other = 1; other < warps; ++other) sums[i] += shared[i][other];
  }
  __syncthreads();
}

// One of the norms of x; out is null where there is none.
template <class T>
struct Output {
  T* out;
  const T *weight, *bias;

  explicit Output(const Norm& norm)
      : out(norm.out.as<T>()), weight(norm.weight.as<T>()), bias(norm.bias.as<T>()) {}
};

template <class T>
struct Outputs {
  Output<T> norms[2];
};

template <int vectors, int width, class T>
__global__ void __launch_bounds__(most_threads)
    forward_kernel(Outputs<T> outputs, Accumulator<T>* mean, Accumulator<T>* rstd, const T* x,
                   std::int64_t columns, Accumulator<T> eps) {
  using A = Accumulator<T>;
  __shared__ A shared[1][most_warps];
  const std::int64_t n = blockIdx.x;
  Vector<T, width> x_n[vectors]{};
  A sum[1] = {}, squares[1] = {};
  for_own_columns<vectors, width>(columns, [&](int j, std::int64_t column) {
    x_n[j] = load_vector<width>(x + n * columns + column);
#pragma unroll
    for (int i = 0; i < width; ++i) sum[0] += widened(x_n[j].value[i]);
  });
  sum_over_block(sum, shared);
  const A mean_n = sum[0] / static_cast<A>(columns);
  for_own_columns<vectors, width>(columns, [&](int j, std::int64_t) {
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const A difference = widened(x_n[j].value[i]) - mean_n;
      squares[0] += difference * difference;
    }
  });
  sum_over_block(squares, shared);
  const A rstd_n = 1 / sqrt(squares[0] / static_cast<A>(columns) + eps);
#pragma unroll
  for (const Output<T>& norm : outputs.norms) {
    if (!norm.out) continue;
    for_own_columns<vectors, width>(columns, [&](int j, std::int64_t column) {
      const auto w = load_vector<width>(norm.weight + column), b = load_vector<width>(norm.bias + column);
      Vector<T, width> result;
#pragma unroll
      for (int i = 0; i < width; ++i) {
        const A xhat = (widened(x_n[j].value[i]) - mean_n) * rstd_n;
        result.value[i] = static_cast<T>(xhat * widened(w.value[i]) + widened(b.value[i]));
      }
      store_vector(norm.out + n * columns + column, result);
    });
  }
  if (threadIdx.x > 0) return;
  mean[n] = mean_n;
  rstd[n] = rstd_n;
}

// What the backward pass takes of one of the norms; dout is null where there is none. The partial sums of the
// parameters' gradients, (blocks, D) each, are optional.
template <class T>
struct Gradients {
  const T *dout = nullptr, *weight = nullptr;
  Accumulator<T>*dweight_partials = nullptr, *dbias_partials = nullptr;
};

// dx is optional.
template <class T>
struct Backward {
  Gradients<T> norms[2];
  T* dx;
  const T* x;
  const Accumulator<T>*mean, *rstd;
};

// A block takes every gridDim.x-th row.
template <int vectors, int width, class T>
__global__ void __launch_bounds__(most_threads)
    backward_kernel(Backward<T> p, std::int64_t rows, std::int64_t columns) {
  using A = Accumulator<T>;
  __shared__ A shared[2][most_warps];
  constexpr bool read_ahead = vectors == 1;  // else registers are needed for sums
  Vector<T, width> x[vectors]{}, dx[vectors]{};
  Vector<A, width> g[vectors]{}, dweight[2][vectors]{}, dbias[2][vectors]{};
  for (std::int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
    const A mean = p.mean[n], rstd = p.rstd[n];
    A sums[2] = {};  // of g and g xhat
    for_own_columns<vectors, width>(columns, [&](int j, std::int64_t column) {
      x[j] = load_vector<width>(p.x + n * columns + column);
      if (read_ahead && p.dx) dx[j] = load_vector<width>(p.dx + n * columns + column);
      g[j] = {};
#pragma unroll
      for (int of = 0; of < 2; ++of) {
        if (!p.norms[of].dout) continue;
        const auto dout = load_vector<width>(p.norms[of].dout + n * columns + column);
        const auto weight = load_vector<width>(p.norms[of].weight + column);
#pragma unroll
        for (int i = 0; i < width; ++i) {
          const A xhat = (widened(x[j].value[i]) - mean) * rstd, dout_i = widened(dout.value[i]);
          g[j].value[i] += dout_i * widened(weight.value[i]);
          dweight[of][j].value[i] += dout_i * xhat;
          dbias[of][j].value[i] += dout_i;
        }
      }
#pragma unroll
      for (int i = 0; i < width; ++i) {
        sums[0] += g[j].value[i];
        sums[1] += g[j].value[i] * ((widened(x[j].value[i]) - mean) * rstd);
      }
    });
    if (!p.dx) continue;
    sum_over_block(sums, shared);
    const A mean_g = sums[0] / static_cast<A>(columns), mean_g_xhat = sums[1] / static_cast<A>(columns);
    for_own_columns<vectors, width>(columns, [&](int j, std::int64_t column) {
      if (!read_ahead) dx[j] = load_vector<width>(p.dx + n * columns + column);
#pragma unroll
      for (int i = 0; i < width; ++i) {
        const A xhat = (widened(x[j].value[i]) - mean) * rstd;
        dx[j].value[i] =
            static_cast<T>(widened(dx[j].value[i]) + rstd * (g[j].value[i] - mean_g - xhat * mean_g_xhat));
      }
      store_vector(p.dx + n * columns + column, dx[j]);
    });
  }
#pragma unroll
  for (int of = 0; of < 2; ++of) {
    if (!p.norms[of].dweight_partials) continue;
    for_own_columns<vectors, width>(columns, [&](int j, std::int64_t column) {
      store_vector(p.norms[of].dweight_partials + blockIdx.x * columns + column, dweight[of][j]);
      store_vector(p.norms[of].dbias_partials + blockIdx.x * columns + column, dbias[of][j]);
    });
  }
}

// Calls start(threads, vectors, width), the last two known at compile time, for rows of so many columns.
template <int width, class Start>
void with_threads_of(std::int64_t columns, const Start& start) {
  constexpr int most_vectors = 16 / width;  // 8192 columns
  const std::int64_t vectors = divide_up(columns, width);
  FLASHEVA_CHECK(vectors <= most_threads * most_vectors);
  const int threads = layernorm_threads(columns, width);
  if (vectors <= most_threads)
    start(threads, std::integral_constant<int, 1>{}, std::integral_constant<int, width>{});
  else
    start(threads, std::integral_constant<int, most_vectors>{}, std::integral_constant<int, width>{});
}

}  // namespace

void CudaOps::layernorm_forward(const Norm& norm, const Norm& second, Tensor mean, Tensor rstd, Tensor x,
                                double eps) {
  check_layernorm(Device::cuda, norm, second, mean, rstd, x);
  const std::int64_t rows = x.dim(0), columns = x.dim(1);
  dispatch(x.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    const Output<T> first{norm}, other{second};
    const auto start = [&](int threads, auto vectors, auto width) {
      launch(stream_, forward_kernel<vectors, width, T>, {rows}, threads, 0, Outputs<T>{{first, other}},
             mean.as<A>(), rstd.as<A>(), x.as<T>(), columns, eps);
    };
    constexpr int width = vector_width<T>;
    if (rows_are_aligned<width>(columns, x.as<T>(), first.out, first.weight, first.bias, other.out,
                                other.weight, other.bias))
      with_threads_of<width>(columns, start);
    else
      with_threads_of<1>(columns, start);
  });
}

void CudaOps::layernorm_backward(Tensor dx, const NormGradients& norm, const NormGradients& second, Tensor x,
                                 Tensor mean, Tensor rstd) {
  check_layernorm_gradients(Device::cuda, dx, norm, second, x, mean, rstd);
  const std::int64_t rows = x.dim(0), columns = x.dim(1);
  dispatch(x.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    Backward<T> problem{{}, dx.as<T>(), x.as<T>(), mean.as<A>(), rstd.as<A>()};
    const NormGradients* norms[] = {&norm, &second};
    for (int of = 0; of < 2; ++of) problem.norms[of] = {norms[of]->dout.as<T>(), norms[of]->weight.as<T>()};
    const auto start = [&](int threads, auto vectors, auto width) {
      const auto kernel = backward_kernel<vectors, width, T>;
      const std::int64_t blocks = layernorm_blocks(rows, resident_blocks(multiprocessors_, kernel, threads));
      const auto scratch = scratch_.carve<LayerNormScratch>("the backward pass of a LayerNorm",
                                                            DTypeOf<A>::value, blocks, columns);
      for (int of = 0; of < 2; ++of) {
        if (!norms[of]->dweight) continue;
        problem.norms[of].dweight_partials = scratch.dweight[of].template as<A>();
        problem.norms[of].dbias_partials = scratch.dbias[of].template as<A>();
      }
      launch(stream_, kernel, {blocks}, threads, 0, problem, rows, columns);
      for (int of = 0; of < 2; ++of) {
        if (!norms[of]->dweight) continue;
        const Gradients<T>& sums = problem.norms[of];
        add_partial_sums(stream_, norms[of]->dweight.template as<A>(), sums.dweight_partials, blocks,
                         columns);
        add_partial_sums(stream_, norms[of]->dbias.template as<A>(), sums.dbias_partials, blocks, columns);
      }
    };
    constexpr int width = vector_width<T>;
    const auto& [first, other] = problem.norms;
    if (rows_are_aligned<width>(columns, problem.dx, problem.x, first.dout, first.weight, other.dout,
                                other.weight))
      with_threads_of<width>(columns, start);
    else
      with_threads_of<1>(columns, start);
  });
}

}  // namespace flasheva
