// Sums over ranks of tensors in the memory of GPUs, one GPU a rank: what a communicator hands such tensors
// to.
#pragma once

#include <memory>

#include "kernels/ops.h"
#include "src/distributed/communicator.h"

namespace flasheva {

// Each start_ does what Communicator says of it, once the operations that the GPU was given before have
// happened, and in the order of the calls. Operations given later do not wait: the communicator's wait()
// does.
class DeviceSums {
 public:
  virtual ~DeviceSums() = default;
  virtual void start_all_reduce_sum(Tensor tensor, Tensor scratch, DType travel) = 0;
  virtual void start_reduce_scatter_sum(Tensor tensor, Tensor scratch, DType travel) = 0;
  virtual void start_all_gather(Tensor tensor) = 0;

  // True once all that was started has happened. Error{peer_lost}: it never will.
  virtual bool done() = 0;
};

// Through NCCL, between the GPUs of all ranks' `ops`; a sum is the same bits on every rank, its order NCCL's,
// and of what travels as bfloat16 it is rounded to bfloat16 at each addition.
// All ranks call it; `communicator` makes them known to each other. Error{usage}, shared: two ranks have the
// same GPU and no NCCL_HOSTID of their own. Ends before `ops`.
std::unique_ptr<DeviceSums> make_nccl_sums(Communicator& communicator, Ops& ops);

}  // namespace flasheva
