#include "tests/cuda_simulator/simulator.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <new>
#include <string_view>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace flasheva::simulator {

Coordinates coordinates;

namespace {

constexpr std::size_t stack_bytes = 256 << 10;
constexpr unsigned most_threads = 1024;

[[noreturn]] void stop(const char* reason) {
  std::fprintf(stderr, "cuda simulator: %s; block (%u, %u, %u), thread (%u, %u, %u)\n", reason,
               coordinates.block.x, coordinates.block.y, coordinates.block.z, coordinates.thread.x,
               coordinates.thread.y, coordinates.thread.z);
  std::abort();
}

struct Barrier {
  unsigned expected = 0, arrived = 0, generation = 0;

  void release_if_complete() {
    if (expected == 0 || arrived < expected) return;
    arrived = 0;
    ++generation;
  }
};

struct Warp {
  Barrier barrier;
  alignas(16) std::byte slots[2][warp_size][slot_bytes];
};

struct Copy {
  std::byte* to;
  const std::byte* from;  // nullptr: zeros
};

struct Fiber {
  ucontext_t start;
  jmp_buf resume;
  std::byte* stack = nullptr;
  bool started = false, finished = true;
  const Barrier* waits_for = nullptr;
  unsigned generation = 0, exchanges = 0;
  Extent3 thread{0, 0, 0};
  unsigned lane = 0;
  Warp* warp = nullptr;
  std::deque<std::vector<Copy>> copies;  // begun and not yet waited for; the last group is open

  bool can_run() const { return !finished && (waits_for == nullptr || waits_for->generation != generation); }
};

// Tells the address sanitizer which stack comes next.
struct StackSwitch {
#ifdef __SANITIZE_ADDRESS__
  void* fake_stack = nullptr;
  void leave(const void* stack, std::size_t bytes) {
    __sanitizer_start_switch_fiber(&fake_stack, stack, bytes);
  }
  void arrive(const void** from = nullptr, std::size_t* bytes = nullptr) {
    __sanitizer_finish_switch_fiber(fake_stack, from, bytes);
  }
#else
  void leave(const void*, std::size_t) {}
  void arrive(const void** = nullptr, std::size_t* = nullptr) {}
#endif
};

// The fibers of one block at a time. They are made once and run many threads.
class Block {
 public:
  void run(Extent3 size, const std::function<void()>& body) {
    body_ = &body;
    prepare(size);
    while (unfinished_ > 0) {
      bool progress = false;
      for (unsigned i = 0; i < warps_; ++i) progress |= run_warp(backwards_ ? warps_ - 1 - i : i);
      backwards_ = !backwards_;
      if (!progress) stop("threads wait at different barriers");
    }
  }

  void wait(Barrier& barrier) {
    ++barrier.arrived;
    const unsigned generation = barrier.generation;
    barrier.release_if_complete();
    if (barrier.generation != generation) return;
    current_->waits_for = &barrier;
    current_->generation = generation;
    yield();
  }

  Barrier& barrier() { return barrier_; }
  Fiber& current() { return *current_; }

 private:
  void prepare(Extent3 size) {
    unfinished_ = size.x * size.y * size.z;
    if (unfinished_ == 0 || unfinished_ > most_threads) stop("a block has 1 to 1024 threads");
    warps_ = (unfinished_ + warp_size - 1) / warp_size;
    barrier_ = {};
    barrier_.expected = unfinished_;
    for (unsigned w = 0; w < warps_; ++w) {
      warp_[w].barrier = {};
      warp_[w].barrier.expected = std::min(warp_size, unfinished_ - w * warp_size);
    }
    for (unsigned i = 0; i < unfinished_; ++i) {
      Fiber& fiber = fibers_[i];
      fiber.finished = false;
      fiber.waits_for = nullptr;
      fiber.exchanges = 0;
      fiber.copies.assign(1, {});
      fiber.lane = i % warp_size;
      fiber.warp = &warp_[i / warp_size];
      fiber.thread = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    }
    threads_ = unfinished_;
  }

  bool run_warp(unsigned w) {
    bool ever = false;
    for (bool again = true; again;) {
      again = false;
      const unsigned first = w * warp_size, count = std::min(warp_size, threads_ - first);
      for (unsigned i = 0; i < count; ++i) {
        Fiber& fiber = fibers_[first + (backwards_ ? count - 1 - i : i)];
        if (!fiber.can_run()) continue;
        run_fiber(fiber);
        again = ever = true;
      }
    }
    return ever;
  }

  void run_fiber(Fiber& fiber) {
    current_ = &fiber;
    fiber.waits_for = nullptr;
    coordinates.thread = fiber.thread;
    coordinates.lane = fiber.lane;
    if (!fiber.started) make(fiber);
    StackSwitch stack;
    stack.leave(fiber.stack, stack_bytes);
    if (_setjmp(scheduler_) == 0) {
      if (fiber.started) _longjmp(fiber.resume, 1);
      fiber.started = true;
      setcontext(&fiber.start);
    }
    stack.arrive();
    if (!fiber.finished) return;
    --unfinished_;
    for (Barrier* barrier : {&barrier_, &fiber.warp->barrier}) {  // whoever has ended is not waited for
      --barrier->expected;
      barrier->release_if_complete();
    }
  }

  void yield() {
    Fiber& self = *current_;
    StackSwitch stack;
    stack.leave(scheduler_stack_, scheduler_stack_bytes_);
    if (_setjmp(self.resume) == 0) _longjmp(scheduler_, 1);
    stack.arrive(&scheduler_stack_, &scheduler_stack_bytes_);
  }

  static void make(Fiber& fiber) {
    void* stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) stop("no memory for the stack of a thread");
    fiber.stack = static_cast<std::byte*>(stack);
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stack;
    fiber.start.uc_stack.ss_size = stack_bytes;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, &Block::enter, 0);
  }

  static void enter();
  void run_threads() {  // on a fiber's own stack: one thread after another, for ever
    StackSwitch stack;
    stack.arrive(&scheduler_stack_, &scheduler_stack_bytes_);
    for (;;) {
      (*body_)();
      current_->finished = true;
      yield();
    }
  }

  const std::function<void()>* body_ = nullptr;
  Fiber fibers_[most_threads];
  Warp warp_[most_threads / warp_size];
  Barrier barrier_;
  Fiber* current_ = nullptr;
  jmp_buf scheduler_;
  const void* scheduler_stack_ = nullptr;
  std::size_t scheduler_stack_bytes_ = 0;
  unsigned unfinished_ = 0, threads_ = 0, warps_ = 0;
  bool backwards_ = false;
};

Block& block() {
  static Block the_block;
  return the_block;
}

void Block::enter() { block().run_threads(); }

// All device memory, mapped twice: where kernels see it, open to them alone, and where copies reach it at any
// time.
class DeviceMemory {
 public:
  static constexpr std::size_t capacity = total_bytes, alignment = 256;

  DeviceMemory() {
    const int file = memfd_create("device memory", 0);
    if (file < 0 || ftruncate(file, capacity) != 0) stop("no file for device memory");
    base_ = map(file, PROT_NONE);
    alias_ = map(file, PROT_READ | PROT_WRITE);
    ::close(file);
    free_[0] = capacity;
  }

  void* take(std::size_t bytes) {
    bytes = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
    for (auto [offset, size] : free_) {
      if (size < bytes) continue;
      free_.erase(offset);
      if (size > bytes) free_[offset + bytes] = size - bytes;
      taken_[offset] = bytes;
      end_ = std::max(end_, offset + bytes);
      return base_ + offset;
    }
    return nullptr;
  }

  void give(void* memory) {
    const auto taken = taken_.find(static_cast<std::size_t>(static_cast<std::byte*>(memory) - base_));
    if (taken == taken_.end()) stop("cudaFree of what cudaMalloc did not give");
    auto [offset, size] = *taken;
    taken_.erase(taken);
    if (const auto next = free_.find(offset + size); next != free_.end()) {
      size += next->second;
      free_.erase(next);
    }
    free_[offset] = size;
  }

  std::size_t free_bytes() const {
    std::size_t bytes = 0;
    for (const auto& [offset, size] : free_) bytes += size;
    return bytes;
  }

  void open() { mprotect(base_, end_, PROT_READ | PROT_WRITE); }
  void close() { mprotect(base_, end_, PROT_NONE); }

  void* reachable(void* address) {
    auto* byte = static_cast<std::byte*>(address);
    return byte >= base_ && byte < base_ + capacity ? alias_ + (byte - base_) : byte;
  }

 private:
  static std::byte* map(int file, int protection) {
    void* memory = mmap(nullptr, capacity, protection, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (memory == MAP_FAILED) stop("no address space for device memory");
    return static_cast<std::byte*>(memory);
  }

  std::byte *base_, *alias_;
  std::size_t end_ = 0;                              // of what was ever taken
  std::map<std::size_t, std::size_t> free_, taken_;  // offset, bytes
};

DeviceMemory& device_memory() {
  static DeviceMemory memory;
  return memory;
}

constexpr std::align_val_t shared_alignment{128};  // as kernels/cuda/dynamic_shared.cuh has it

struct DeleteShared {
  void operator()(std::byte* memory) const { ::operator delete[](memory, shared_alignment); }
};
std::unique_ptr<std::byte[], DeleteShared> shared_memory;

}  // namespace

void run_grid(Extent3 grid, Extent3 block_size, std::size_t shared_bytes,
              const std::function<void()>& thread) {
  const Access access;
  coordinates.grid_size = grid;
  coordinates.block_size = block_size;
  shared_memory.reset(static_cast<std::byte*>(::operator new[](shared_bytes, shared_alignment)));
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        std::memset(shared_memory.get(), 0xff, shared_bytes);  // NaN: never what another block left
        coordinates.block = {x, y, z};
        block().run(block_size, thread);
      }
  shared_memory.reset();
}

std::byte* dynamic_shared_memory() { return shared_memory.get(); }

void block_barrier() { block().wait(block().barrier()); }
void warp_barrier() { block().wait(block().current().warp->barrier); }

std::byte* begin_exchange() {
  Fiber& self = block().current();
  return self.warp->slots[++self.exchanges % 2][self.lane];
}

const std::byte* exchanged(unsigned lane) {
  const Fiber& self = block().current();
  return self.warp->slots[self.exchanges % 2][lane];
}

constexpr std::size_t copy_bytes = 16;

void begin_copy(void* shared, const void* global, bool there) {
  if (reinterpret_cast<std::uintptr_t>(shared) % copy_bytes != 0 ||
      (there && reinterpret_cast<std::uintptr_t>(global) % copy_bytes != 0))
    stop("a copy that is not aligned");
  block().current().copies.back().push_back(
      {static_cast<std::byte*>(shared), there ? static_cast<const std::byte*>(global) : nullptr});
}

void end_copy_group() { block().current().copies.emplace_back(); }

void finish_copies(unsigned pending_groups) {
  auto& copies = block().current().copies;
  while (copies.size() > pending_groups + 1) {
    for (const Copy& copy : copies.front())
      if (copy.from != nullptr)
        std::memcpy(copy.to, copy.from, copy_bytes);
      else
        std::memset(copy.to, 0, copy_bytes);
    copies.pop_front();
  }
}

std::size_t free_bytes() { return device_memory().free_bytes(); }
void* allocate(std::size_t bytes) { return device_memory().take(bytes); }
void release(void* memory) {
  if (memory != nullptr) device_memory().give(memory);
}

Access::Access() { device_memory().open(); }
Access::~Access() { device_memory().close(); }

int status_of(const char* call) {
  if (!failure || !failure->failed.empty() || std::string_view(call).find(failure->name) != 0) return 0;
  if (failure->calls_before-- > 0) return 0;
  failure->failed = call;
  return failure->status;
}

void* reachable(const void* address) { return device_memory().reachable(const_cast<void*>(address)); }

}  // namespace flasheva::simulator
