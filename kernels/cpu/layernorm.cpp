//     forward   xhat = (x - mean) rstd,  out = xhat weight + bias
//     backward  g = dout weight,  dx += rstd (g - mean(g) - xhat mean(g xhat))
//               dweight += sum over rows of dout xhat,  dbias += sum over rows of dout
// mean and variance are over the last dimension, D; rstd = 1 / sqrt(variance + eps).
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/loops.h"

namespace flasheva {

namespace {

template <class T>
Accumulator<T> mean_of(const T* x, std::int64_t width) {
  Accumulator<T> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < width; ++i) sum += static_cast<Accumulator<T>>(x[i]);
  return sum / static_cast<Accumulator<T>>(width);
}

template <class T>
Accumulator<T> variance_of(const T* x, Accumulator<T> mean, std::int64_t width) {
  Accumulator<T> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < width; ++i) {
    const Accumulator<T> centred = static_cast<Accumulator<T>>(x[i]) - mean;
    sum += centred * centred;
  }
  return sum / static_cast<Accumulator<T>>(width);
}

template <class T>
void normalize_row(T* out, const T* x, Accumulator<T> mean, Accumulator<T> rstd, const T* weight,
                   const T* bias, std::int64_t width) {
  using A = Accumulator<T>;
#pragma omp simd
  for (std::int64_t i = 0; i < width; ++i)
    out[i] = static_cast<T>((static_cast<A>(x[i]) - mean) * rstd * static_cast<A>(weight[i]) +
                            static_cast<A>(bias[i]));
}

// dx += rstd (g - mean(g) - xhat mean(g xhat)) for one row.
template <class T>
void add_input_gradient(T* dx, const T* dout, const T* x, const T* weight, Accumulator<T> mean,
                        Accumulator<T> rstd, std::int64_t width) {
  using A = Accumulator<T>;
  A sum_g = 0, sum_g_xhat = 0;
#pragma omp simd reduction(+ : sum_g, sum_g_xhat)
  for (std::int64_t i = 0; i < width; ++i) {
    const A g = static_cast<A>(dout[i]) * static_cast<A>(weight[i]);
    sum_g += g;
    sum_g_xhat += g * (static_cast<A>(x[i]) - mean) * rstd;
  }
  const A mean_g = sum_g / static_cast<A>(width), mean_g_xhat = sum_g_xhat / static_cast<A>(width);
#pragma omp simd
  for (std::int64_t i = 0; i < width; ++i) {
    const A g = static_cast<A>(dout[i]) * static_cast<A>(weight[i]);
    const A xhat = (static_cast<A>(x[i]) - mean) * rstd;
    dx[i] = static_cast<T>(static_cast<A>(dx[i]) + rstd * (g - mean_g - xhat * mean_g_xhat));
  }
}

template <class T>
void add_parameter_gradients(Accumulator<T>* dweight, Accumulator<T>* dbias, const T* dout, const T* x,
                             Accumulator<T> mean, Accumulator<T> rstd, std::int64_t width) {
  using A = Accumulator<T>;
#pragma omp simd
  for (std::int64_t i = 0; i < width; ++i) {
    dweight[i] += static_cast<A>(dout[i]) * (static_cast<A>(x[i]) - mean) * rstd;
    dbias[i] += static_cast<A>(dout[i]);
  }
}

// One pass over the rows. Every thread sums the parameters' gradients of its rows in `partials`, (threads, 2,
// D); they are added up in the threads' order.
template <class T>
void backward_rows(const Tensor& dx, const Tensor& dweight, const Tensor& dbias, const Tensor& dout,
                   const Tensor& x, const Tensor& weight, const Tensor& mean, const Tensor& rstd,
                   GrowingBuffer& scratch) {
  using A = Accumulator<T>;
  const std::int64_t width = x.dim(1), threads = omp_get_max_threads();
  A* partials = dweight ? scratch.take<A>(threads * 2 * width) : nullptr;
  if (partials) std::fill_n(partials, threads * 2 * width, A{0});
  parallel_rows(x.dim(0), width, [&](std::int64_t first, std::int64_t last) {
    A* mine = partials + omp_get_thread_num() * 2 * width;
    for (std::int64_t n = first; n < last; ++n) {
      const T *dout_n = dout.as<T>() + n * width, *x_n = x.as<T>() + n * width;
      const A mean_n = mean.as<A>()[n], rstd_n = rstd.as<A>()[n];
      if (dx) add_input_gradient(dx.as<T>() + n * width, dout_n, x_n, weight.as<T>(), mean_n, rstd_n, width);
      if (partials) add_parameter_gradients(mine, mine + width, dout_n, x_n, mean_n, rstd_n, width);
    }
  });
  if (!partials) return;
  for (std::int64_t thread = 0; thread < threads; ++thread) {
    const A *dweight_part = partials + thread * 2 * width, *dbias_part = dweight_part + width;
    for (std::int64_t i = 0; i < width; ++i) dweight.as<A>()[i] += dweight_part[i];
    for (std::int64_t i = 0; i < width; ++i) dbias.as<A>()[i] += dbias_part[i];
  }
}

}  // namespace

void CpuOps::layernorm_forward(Tensor out, Tensor mean, Tensor rstd, Tensor x, Tensor weight, Tensor bias,
                               double eps) {
  FLASHEVA_CHECK(x.shape.rank() == 2 && matches(x, x.dtype, x.shape));
  const std::int64_t rows = x.dim(0), width = x.dim(1);
  FLASHEVA_CHECK(matches(out, x.dtype, x.shape));
  FLASHEVA_CHECK(matches(weight, x.dtype, {width}) && matches(bias, x.dtype, {width}));
  FLASHEVA_CHECK(matches(mean, accumulation_type(x.dtype), {rows}));
  FLASHEVA_CHECK(matches(rstd, accumulation_type(x.dtype), {rows}));
  dispatch(x.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    parallel_rows(rows, width, [=](std::int64_t first, std::int64_t last) {
      for (std::int64_t n = first; n < last; ++n) {
        const T* x_n = x.as<T>() + n * width;
        const A mean_n = mean_of(x_n, width);
        const A rstd_n = 1 / std::sqrt(variance_of(x_n, mean_n, width) + static_cast<A>(eps));
        normalize_row(out.as<T>() + n * width, x_n, mean_n, rstd_n, weight.as<T>(), bias.as<T>(), width);
        mean.as<A>()[n] = mean_n;
        rstd.as<A>()[n] = rstd_n;
      }
    });
  });
}

void CpuOps::layernorm_backward(Tensor dx, Tensor dweight, Tensor dbias, Tensor dout, Tensor x, Tensor weight,
                                Tensor mean, Tensor rstd) {
  FLASHEVA_CHECK(x.shape.rank() == 2 && matches(x, x.dtype, x.shape));
  const std::int64_t rows = x.dim(0), width = x.dim(1);
  const DType accumulation = accumulation_type(x.dtype);
  FLASHEVA_CHECK(matches(dout, x.dtype, x.shape) && matches(weight, x.dtype, {width}));
  FLASHEVA_CHECK(matches(mean, accumulation, {rows}) && matches(rstd, accumulation, {rows}));
  FLASHEVA_CHECK(!dx || matches(dx, x.dtype, x.shape));
  FLASHEVA_CHECK(!dweight == !dbias);
  FLASHEVA_CHECK(!dweight ||
                 (matches(dweight, accumulation, {width}) && matches(dbias, accumulation, {width})));
  dispatch(x.dtype,
           [&]<class T>(T) { backward_rows<T>(dx, dweight, dbias, dout, x, weight, mean, rstd, partials_); });
}

}  // namespace flasheva
