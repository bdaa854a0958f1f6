// The memory of a plan, or one line that says why there is not enough.
#pragma once

#include <string>

#include "kernels/buffer.h"
#include "kernels/ops.h"

namespace flasheva {

// `bytes` of the device of `ops`, for `plan` or a part of it. Error{other} where they are not there: what was
// asked for, what is free, where the plan's bytes go, and `advice`.
Buffer memory_for(const MemoryPlan& plan, std::size_t bytes, Ops& ops, const std::string& advice);
// The same, of the host, such as Ops::start_copy wants it; all of the plan.
Buffer host_memory_for(const MemoryPlan& plan, Ops& ops, const std::string& advice);

}  // namespace flasheva
