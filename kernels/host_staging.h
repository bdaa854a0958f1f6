// Host memory through which the host reads and writes the tensors of a device, one at a time. Tensors that
// are in host memory are read and written where they are.
#pragma once

#include "kernels/ops.h"

namespace flasheva {

class HostStaging {
 public:
  // The tensor's values in host memory: itself, or a copy that lasts until the next call. Of one Ops only.
  Tensor read(Ops& ops, const Tensor& tensor);

  // tensor = what `fill` writes into the host tensor that it is given; it must write every element.
  template <class Fill>
  void write(Ops& ops, const Tensor& tensor, const Fill& fill) {
    const Tensor host = host_side(ops, tensor);
    fill(host);
    if (tensor.device != Device::cpu) ops.copy(tensor, host);
  }

 private:
  Tensor host_side(Ops& ops, const Tensor& tensor);

  DeviceMemory memory_{nullptr, nullptr};
  std::size_t capacity_ = 0;
};

}  // namespace flasheva
