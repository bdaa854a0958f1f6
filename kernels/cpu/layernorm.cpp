//     forward   xhat = (x - mean) rstd,  out = xhat weight + bias
//     backward  g = dout weight,  dx += rstd (g - mean(g) - xhat mean(g xhat))
//               dweight += sum over rows of dout xhat,  dbias += sum over rows of dout
// mean and variance are over the last dimension, D; rstd = 1 / sqrt(variance + eps).
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/layernorm_contract.h"

namespace flasheva {

namespace {

template <class T>
Accumulator<T> mean_of(const T* x, std::int64_t width) {
  using A = Accumulator<T>;
  const auto itself = [](auto x_i) { return x_i; };
  return sum_of<A>(width, itself, x) / static_cast<A>(width);
}

template <class T>
Accumulator<T> variance_of(const T* x, Accumulator<T> mean, std::int64_t width) {
  using A = Accumulator<T>;
  const auto squared = [=](auto x_i) { return (x_i - mean) * (x_i - mean); };
  return sum_of<A>(width, squared, x) / static_cast<A>(width);
}

// dx += rstd (g - mean(g) - xhat mean(g xhat)) for one row.
template <class T>
void add_input_gradient(T* dx, const T* dout, const T* x, const T* weight, Accumulator<T> mean,
                        Accumulator<T> rstd, std::int64_t width) {
  using A = Accumulator<T>;
  const A inverse_width = 1 / static_cast<A>(width);
  const auto g = [](auto dout_i, auto weight_i) { return dout_i * weight_i; };
  const auto g_xhat = [=](auto dout_i, auto weight_i, auto x_i) {
    return dout_i * weight_i * ((x_i - mean) * rstd);
  };
  const A mean_g = sum_of<A>(width, g, dout, weight) * inverse_width;
  const A mean_g_xhat = sum_of<A>(width, g_xhat, dout, weight, x) * inverse_width;
  const auto add_gradient = [=](auto dx_i, auto dout_i, auto weight_i, auto x_i) {
    return dx_i + rstd * (dout_i * weight_i - mean_g - (x_i - mean) * rstd * mean_g_xhat);
  };
  map(dx, 0, width, add_gradient, dx, dout, weight, x);
}

template <class T>
void add_parameter_gradients(Accumulator<T>* dweight, Accumulator<T>* dbias, const T* dout, const T* x,
                             Accumulator<T> mean, Accumulator<T> rstd, std::int64_t width) {
  const auto add_dweight = [=](auto sum, auto dout_i, auto x_i) {
    return sum + dout_i * ((x_i - mean) * rstd);
  };
  map(dweight, 0, width, add_dweight, dweight, dout, x);
  const auto add_dbias = [](auto sum, auto dout_i) { return sum + dout_i; };
  map(dbias, 0, width, add_dbias, dbias, dout);
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
  check_layernorm(Device::cpu, out, mean, rstd, x, weight, bias);
  const std::int64_t rows = x.dim(0), width = x.dim(1);
  dispatch(x.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    parallel_rows(rows, width, [=](std::int64_t first, std::int64_t last) {
      for (std::int64_t n = first; n < last; ++n) {
        const T* x_n = x.as<T>() + n * width;
        const A mean_n = mean_of(x_n, width);
        const A rstd_n = 1 / std::sqrt(variance_of(x_n, mean_n, width) + static_cast<A>(eps));
        const auto normalize = [=](auto x_i, auto weight_i, auto bias_i) {
          return (x_i - mean_n) * rstd_n * weight_i + bias_i;
        };
        map(out.as<T>() + n * width, 0, width, normalize, x_n, weight.as<T>(), bias.as<T>());
        mean.as<A>()[n] = mean_n;
        rstd.as<A>()[n] = rstd_n;
      }
    });
  });
}

void CpuOps::layernorm_backward(Tensor dx, Tensor dweight, Tensor dbias, Tensor dout, Tensor x, Tensor weight,
                                Tensor mean, Tensor rstd) {
  check_layernorm_gradients(Device::cpu, dx, dweight, dbias, dout, x, weight, mean, rstd);
  dispatch(x.dtype,
           [&]<class T>(T) { backward_rows<T>(dx, dweight, dbias, dout, x, weight, mean, rstd, partials_); });
}

}  // namespace flasheva
