#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <new>
#include <utility>
#include <vector>

#include "tests/cuda_simulator/simulator.h"

namespace flasheva::simulator {

namespace {

// Page-locked memory of the host, and the copies from and to it that the host has not waited for.
class PageLockedMemory {
 public:
  void* take(std::size_t bytes) try {
    auto& memory = taken_.emplace_back(bytes);
    return memory.data();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  void give(void* memory) {
    finish();
    taken_.remove_if([=](const auto& taken) { return taken.data() == memory; });
  }
  void copy(void* to, const void* from, std::size_t bytes) {
    void* target = reachable(to);
    const auto* source = static_cast<const std::byte*>(reachable(from));
    const std::vector<std::byte> values(source, source + bytes);
    if (holds(from)) read_.push_back({source, values});
    if (holds(to)) {
      std::memset(target, 0xa5, bytes);
      written_.push_back({static_cast<std::byte*>(target), values});
    } else {
      std::memmove(target, values.data(), bytes);
    }
  }
  void finish() {
    for (const auto& [place, values] : read_)
      if (std::memcmp(place, values.data(), values.size()) != 0) stop("changed before a copy had read it");
    for (const auto& [place, values] : written_) std::memcpy(place, values.data(), values.size());
    read_.clear();
    written_.clear();
  }

 private:
  [[noreturn]] static void stop(const char* reason) {
    std::fprintf(stderr, "cuda simulator: page-locked memory: %s\n", reason);
    std::abort();
  }
  bool holds(const void* address) const {
    const auto* byte = static_cast<const std::byte*>(address);
    return std::any_of(taken_.begin(), taken_.end(), [=](const auto& memory) {
      return byte >= memory.data() && byte < memory.data() + memory.size();
    });
  }

  std::list<std::vector<std::byte>> taken_;
  std::vector<std::pair<const std::byte*, std::vector<std::byte>>> read_;
  std::vector<std::pair<std::byte*, std::vector<std::byte>>> written_;
};

PageLockedMemory& page_locked_memory() {
  static PageLockedMemory memory;
  return memory;
}

}  // namespace

void* allocate_on_host(std::size_t bytes) { return page_locked_memory().take(bytes); }
void release_on_host(void* memory) { page_locked_memory().give(memory); }
void copy(void* to, const void* from, std::size_t bytes) { page_locked_memory().copy(to, from, bytes); }
void finish_transfers() { page_locked_memory().finish(); }

}  // namespace flasheva::simulator
