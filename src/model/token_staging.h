// Tokens of micro batches on their way from host memory to the device of a model; on the CPU they are used
// where they are.
#pragma once

#include "src/model/gpt_neox.h"

namespace flasheva {

class TokenStaging {
 public:
  // Foresees device memory for micro batches of up to `rows` tokens; none on the CPU.
  void plan(MemoryPlan& plan, Device device, std::int64_t rows);

  // The same batch on the device, until the next call; `host` is at rest until then, as Ops::start_copy says.
  // Targets and mask may be absent.
  TokenBatch on_device(Ops& ops, const TokenBatch& host) const;

 private:
  Tensor tokens_, targets_, mask_;  // (rows); absent on the CPU
};

}  // namespace flasheva
