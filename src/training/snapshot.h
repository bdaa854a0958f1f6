// A copy, in host memory, of what a checkpoint holds of a rank's tensors: the next steps change those while
// the copy is written.
#pragma once

#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "src/io/checkpoint.h"
#include "src/model/parameters.h"
#include "src/training/optimizer.h"

namespace flasheva {

class Snapshot {
 public:
  // Foresees the copy for rank `rank`: the first keeps the masters; moments are kept by the ranks that have
  // some of their own. Both arguments must outlive it and be planned.
  void plan(MemoryPlan& host, ParameterTable& parameters, Optimizer& optimizer, int rank);

  // Masters and moments as they are now.
  void take(Ops& ops);

  // Those of the copy; they point into it.
  NamedTensors masters() const { return named(masters_); }
  NamedTensors moments() const { return named(moments_); }

 private:
  struct Copy {
    std::string name;
    const Tensor* original;
    Shape shape;
    Tensor copy = {};
  };
  static NamedTensors named(const std::vector<Copy>& copies);

  std::vector<Copy> masters_, moments_;
};

}  // namespace flasheva
