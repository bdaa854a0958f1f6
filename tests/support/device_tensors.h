// Tensors of the device under test, written and read by the host.
#pragma once

#include "kernels/ops.h"
#include "tests/support/tensors.h"

namespace flasheva {

// Memory of its own on a device.
class DeviceTensor {
 public:
  DeviceTensor(Ops& ops, DType dtype, Shape shape)
      : memory_(ops.allocate(static_cast<std::size_t>(shape.size()) * size_in_bytes(dtype))),
        tensor_{memory_.get(), dtype, shape, ops.device()} {}
  DeviceTensor(Ops& ops, const Tensor& values) : DeviceTensor(ops, values.dtype, values.shape) {
    ops.copy(tensor_, values);
  }

  operator Tensor() const { return tensor_; }

 private:
  DeviceMemory memory_;
  Tensor tensor_;
};

// The values of a tensor of any device, as a vector.
inline TestTensor copy_of(Ops& ops, const Tensor& tensor) {
  TestTensor out(tensor.dtype, Shape{tensor.size()});
  ops.copy(out, tensor.reshaped({tensor.size()}));
  return out;
}

// tensor = the values, of one type and size.
inline void write_to(Ops& ops, const Tensor& tensor, TestTensor& values) {
  ops.copy(tensor, values.view().reshaped(tensor.shape));
}

}  // namespace flasheva
