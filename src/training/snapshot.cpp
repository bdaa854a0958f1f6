#include "src/training/snapshot.h"

namespace flasheva {

void Snapshot::plan(MemoryPlan& host, ParameterTable& parameters, Optimizer& optimizer, int rank) {
  masters_.clear();
  moments_.clear();
  if (rank == 0)
    for (const Parameter& parameter : parameters.all())
      masters_.push_back({parameter.name, &parameter.master, parameter.shape});
  if (rank == 0 || optimizer.sharded())
    for (const Optimizer::Segment& segment : optimizer.segments()) {
      const Shape shape = segment.whole() ? segment.parameter->shape : Shape{segment.count};
      const std::string name = name_of_part(segment.parameter->name, segment.first, segment.whole());
      moments_.push_back({"first_moment." + name, &segment.first_moment, shape});
      moments_.push_back({"second_moment." + name, &segment.second_moment, shape});
    }
  for (std::vector<Copy>* copies : {&masters_, &moments_})
    for (Copy& copy : *copies) host.add(copy.copy, "checkpoint", DType::f32, copy.shape);
}

void Snapshot::take(Ops& ops) {
  for (const std::vector<Copy>* copies : {&masters_, &moments_})
    for (const Copy& copy : *copies) ops.start_copy(copy.copy, copy.original->reshaped(copy.shape));
  ops.synchronize();
}

NamedTensors Snapshot::named(const std::vector<Copy>& copies) {
  NamedTensors tensors;
  for (const Copy& copy : copies) tensors.emplace_back(copy.name, stored(copy.copy));
  return tensors;
}

}  // namespace flasheva
