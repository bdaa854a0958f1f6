#include "src/model/planned_memory.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "src/core/error.h"
#include "src/core/text.h"

namespace flasheva {

namespace {

// "activations 3.1 GiB, gradients 1.5 GiB, ...", the largest first.
std::string categories_of(const MemoryPlan& plan) {
  std::vector<MemoryPlan::Category> categories = plan.categories();
  std::stable_sort(categories.begin(), categories.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  std::vector<std::string> texts;
  for (const auto& [name, bytes] : categories) texts.push_back(name + " " + format_bytes(bytes));
  return fmt::format("{}", fmt::join(texts, ", "));
}

}  // namespace

Buffer memory_for(const MemoryPlan& plan, std::size_t bytes, Ops& ops, const std::string& advice) {
  try {
    return Buffer(bytes, ops);
  } catch (const OutOfMemory& error) {
    fail(ExitCode::other, "{}; planned are {}, in all {}; {}", error.what(), categories_of(plan),
         format_bytes(plan.bytes()), advice);
  }
}

}  // namespace flasheva
