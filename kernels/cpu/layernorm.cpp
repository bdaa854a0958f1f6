//     forward   xhat = (x - mean) rstd,  out = xhat weight + bias
//     backward  g = dout weight,  dx += rstd (g - mean(g) - xhat mean(g xhat))
//               dweight += sum over rows of dout xhat,  dbias += sum over rows of dout
// mean and variance are over the last dimension, D; rstd = 1 / sqrt(variance + eps). Two norms of one x share
// xhat; in the backward pass g is then the sum of both.
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/scratch_sizes.h"
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

// dx += rstd (g - mean(g) - xhat mean(g xhat)) for one row; g is a function of `in`.
template <class T, class Function, class... In>
void add_input_gradient(T* dx, const T* x, Accumulator<T> mean, Accumulator<T> rstd, std::int64_t width,
                        const Function& g, const In*... in) {
  using A = Accumulator<T>;
  const A inverse_width = 1 / static_cast<A>(width);
  const auto g_xhat = [=](auto x_i, auto... in_i) { return g(in_i...) * ((x_i - mean) * rstd); };
  const A mean_g = sum_of<A>(width, g, in...) * inverse_width;
  const A mean_g_xhat = sum_of<A>(width, g_xhat, x, in...) * inverse_width;
  const auto add_gradient = [=](auto dx_i, auto x_i, auto... in_i) {
    return dx_i + rstd * (g(in_i...) - mean_g - (x_i - mean) * rstd * mean_g_xhat);
  };
  map(dx, 0, width, add_gradient, dx, x, in...);
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

// Row n of the backward pass, but for the parameters' gradients.
template <class T>
void backward_input_row(T* dx, const NormGradients& norm, const NormGradients& second, const T* x,
                        Accumulator<T> mean, Accumulator<T> rstd, std::int64_t n, std::int64_t width) {
  const auto g = [](auto dout_i, auto weight_i) { return dout_i * weight_i; };
  const auto sum_of_g = [=](auto dout_i, auto weight_i, auto second_dout_i, auto second_weight_i) {
    return g(dout_i, weight_i) + g(second_dout_i, second_weight_i);
  };
  const T *dout = norm.dout.as<T>() + n * width, *weight = norm.weight.as<T>();
  if (second.dout)
    add_input_gradient(dx, x, mean, rstd, width, sum_of_g, dout, weight, second.dout.as<T>() + n * width,
                       second.weight.as<T>());
  else
    add_input_gradient(dx, x, mean, rstd, width, g, dout, weight);
}

// Every thread's sums for the parameters' gradients.
template <class A>
struct ThreadSums {
  std::int64_t threads = omp_get_max_threads();
  A* partials;  // (threads, norms, 2, D)

  ThreadSums(Carver& carver, std::int64_t width) : partials(carver.take<A>(threads * 4 * width)) {}
};

// One pass over the rows. Every thread sums the parameters' gradients of its rows; they are added up in the
// threads' order.
template <class T>
void backward_rows(const Tensor& dx, const NormGradients& norm, const NormGradients& second, const Tensor& x,
                   const Tensor& mean, const Tensor& rstd, CpuScratch& scratch) {
  using A = Accumulator<T>;
  const NormGradients* norms[] = {&norm, &second};
  const std::int64_t width = x.dim(1);
  const auto sums = scratch.shared<ThreadSums<A>>(width);
  const std::int64_t threads = sums.threads;
  A* const partials = sums.partials;
  std::fill_n(partials, threads * 4 * width, A{0});
  parallel_rows(x.dim(0), width, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t n = first; n < last; ++n) {
      const T* x_n = x.as<T>() + n * width;
      const A mean_n = mean.as<A>()[n], rstd_n = rstd.as<A>()[n];
      if (dx) backward_input_row(dx.as<T>() + n * width, norm, second, x_n, mean_n, rstd_n, n, width);
      A* dweight = partials + omp_get_thread_num() * 4 * width;
      for (const NormGradients* of : norms) {
        if (of->dweight)
          add_parameter_gradients(dweight, dweight + width, of->dout.as<T>() + n * width, x_n, mean_n, rstd_n,
                                  width);
        dweight += 2 * width;
      }
    }
  });
  const A* part = partials;
  for (std::int64_t thread = 0; thread < threads; ++thread)
    for (const NormGradients* of : norms)
      for (const Tensor& gradient : {of->dweight, of->dbias}) {
        for (std::int64_t i = 0; gradient && i < width; ++i) gradient.as<A>()[i] += part[i];
        part += width;
      }
}

}  // namespace

ScratchBytes layernorm_backward_scratch(DType dtype, std::int64_t columns) {
  ScratchBytes bytes;
  dispatch(dtype, [&]<class T>(T) { bytes.shared = bytes_of_layout<ThreadSums<Accumulator<T>>>(columns); });
  return bytes;
}

void CpuOps::layernorm_forward(const Norm& norm, const Norm& second, Tensor mean, Tensor rstd, Tensor x,
                               double eps) {
  check_layernorm(Device::cpu, norm, second, mean, rstd, x);
  const std::int64_t rows = x.dim(0), width = x.dim(1);
  dispatch(x.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    parallel_rows(rows, width, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t n = first; n < last; ++n) {
        const T* x_n = x.as<T>() + n * width;
        const A mean_n = mean_of(x_n, width);
        const A rstd_n = 1 / std::sqrt(variance_of(x_n, mean_n, width) + static_cast<A>(eps));
        const auto normalize = [=](auto x_i, auto weight_i, auto bias_i) {
          return (x_i - mean_n) * rstd_n * weight_i + bias_i;
        };
        for (const Norm* of : {&norm, &second})
          if (of->out)
            map(of->out.as<T>() + n * width, 0, width, normalize, x_n, of->weight.as<T>(), of->bias.as<T>());
        mean.as<A>()[n] = mean_n;
        rstd.as<A>()[n] = rstd_n;
      }
    });
  });
}

void CpuOps::layernorm_backward(Tensor dx, const NormGradients& norm, const NormGradients& second, Tensor x,
                                Tensor mean, Tensor rstd) {
  check_layernorm_gradients(Device::cpu, dx, norm, second, x, mean, rstd);
  dispatch(x.dtype, [&]<class T>(T) { backward_rows<T>(dx, norm, second, x, mean, rstd, scratch_); });
}

}  // namespace flasheva
