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

template <class Take>
Buffer taken_or_error(const MemoryPlan& plan, const std::string& advice, const Take& take) {
  try {
    return take();
  } catch (const OutOfMemory& error) {
    fail(ExitCode::other, "{}; planned are {}, in all {}; {}", error.what(), categories_of(plan),
         format_bytes(plan.bytes()), advice);
  }
}

}  // namespace

Buffer memory_for(const MemoryPlan& plan, std::size_t bytes, Ops& ops, const std::string& advice) {
  return taken_or_error(plan, advice, [&] { return Buffer(bytes, ops); });
}

Buffer host_memory_for(const MemoryPlan& plan, Ops& ops, const std::string& advice) {
  return taken_or_error(plan, advice, [&] { return Buffer::on_host(plan.bytes(), ops); });
}

}  // namespace flasheva
