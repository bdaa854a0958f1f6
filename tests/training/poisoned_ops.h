// Ops that give a value that is not finite once.
#pragma once

#include <limits>

#include "kernels/timed_ops.h"

namespace flasheva {

// Computes as the CPU does, but for one call that gives NaN: the one that writes the gradient of a linear
// layer's weight, or the output of a GELU, for the `call`-th time.
class PoisonedOps final : public TimedOps {
 public:
  PoisonedOps(Ops& ops, int gelu_call, int weight_call, int times = 1)
      : TimedOps(ops), gelu_call_(gelu_call), weight_call_(weight_call), times_(times) {}

  void gelu_forward(Tensor out, Tensor x) override {
    TimedOps::gelu_forward(out, x);
    poison(out, gelu_call_);
  }
  void linear_backward_weight(Tensor dweight, Tensor dbias, Tensor dout, Tensor x) override {
    TimedOps::linear_backward_weight(dweight, dbias, dout, x);
    if (dweight) poison(dweight, weight_call_);
  }

 private:
  void poison(Tensor& tensor, int& calls) {
    if (--calls < 0 && calls >= -times_) tensor.as<float>()[1] = std::numeric_limits<float>::quiet_NaN();
  }
  int gelu_call_, weight_call_, times_;
};

inline constexpr int never = std::numeric_limits<int>::max();

}  // namespace flasheva
