#include "kernels/host_staging.h"

namespace flasheva {

Tensor HostStaging::read(Ops& ops, const Tensor& tensor) {
  const Tensor host = host_side(ops, tensor);
  if (tensor.device != Device::cpu) ops.copy(host, tensor);
  return host;
}

Tensor HostStaging::host_side(Ops& ops, const Tensor& tensor) {
  if (tensor.device == Device::cpu) return tensor;
  if (tensor.bytes() > capacity_) {
    memory_.reset();
    memory_ = ops.allocate_on_host(tensor.bytes());
    capacity_ = tensor.bytes();
  }
  return {memory_.get(), tensor.dtype, tensor.shape, Device::cpu};
}

}  // namespace flasheva
