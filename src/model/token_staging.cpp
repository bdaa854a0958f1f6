#include "src/model/token_staging.h"

namespace flasheva {

void TokenStaging::plan(MemoryPlan& plan, Device device, std::int64_t rows) {
  tokens_ = targets_ = mask_ = Tensor{};
  if (device == Device::cpu) return;
  plan.add(tokens_, "batch", DType::i32, {rows});
  plan.add(targets_, "batch", DType::i32, {rows});
  plan.add(mask_, "batch", DType::u8, {rows});
}

TokenBatch TokenStaging::on_device(Ops& ops, const TokenBatch& host) const {
  if (!tokens_) return host;
  const auto copied = [&](const Tensor& place, const Tensor& values) {
    if (!values) return values;
    const Tensor on_device = shaped(place, values.shape);
    ops.start_copy(on_device, values);
    return on_device;
  };
  return {host.extent, copied(tokens_, host.tokens), copied(targets_, host.targets),
          copied(mask_, host.mask)};
}

}  // namespace flasheva
