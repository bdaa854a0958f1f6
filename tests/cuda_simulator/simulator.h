// Runs CUDA kernels on the CPU, so that their arithmetic and indices are tested where there is no GPU, under
// sanitizers too. The kernels are compiled as C++ against the cuda_runtime.h of this folder.
//
// A thread of a block is a fiber: it runs until it waits for its warp or block. Blocks follow each other. The
// order of warps and lanes turns round whenever all of them wait, so that results which depend on it (a
// missing barrier) differ between runs and from the reference. Device memory cannot be touched between
// kernels. What it does not show: the speed and memory model of a GPU.
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace flasheva::simulator {

inline constexpr unsigned warp_size = 32;

struct Extent3 {
  unsigned x = 1, y = 1, z = 1;
};

// The coordinates of the running thread, as kernels see them.
struct Coordinates {
  Extent3 thread{0, 0, 0}, block{0, 0, 0}, block_size, grid_size;
  unsigned lane = 0;
};
extern Coordinates coordinates;

// Runs `thread` once for every thread of the grid, with `shared_bytes` of dynamic shared memory a block.
void run_grid(Extent3 grid, Extent3 block, std::size_t shared_bytes, const std::function<void()>& thread);

std::byte* dynamic_shared_memory();

void block_barrier();
void warp_barrier();

// Where lane `lane` of the running warp leaves what it shows the others; valid until the next but one call of
// the warp.
inline constexpr std::size_t slot_bytes = 64;
std::byte* begin_exchange();                // own slot of a new exchange
const std::byte* exchanged(unsigned lane);  // after warp_barrier()

// Every lane shows `value`; afterwards any lane's value can be read.
template <class T>
class Exchange {
 public:
  explicit Exchange(const T& value) {
    static_assert(sizeof(T) <= slot_bytes && std::is_trivially_copyable_v<T>);
    std::memcpy(begin_exchange(), &value, sizeof(T));
    warp_barrier();
  }
  T of(unsigned lane) const {
    T value;
    std::memcpy(&value, exchanged(lane % warp_size), sizeof(T));
    return value;
  }
};

// Asynchronous copies of 16 bytes, in groups, of the running thread: they happen when they are waited for.
// Zeros are copied where there is nothing.
void begin_copy(void* shared, const void* global, bool there);
void end_copy_group();
void finish_copies(unsigned pending_groups);

// Device memory: apart from the host's, and out of its reach unless a kernel runs or Access lives.
inline constexpr std::size_t total_bytes = std::size_t{1} << 30;
std::size_t free_bytes();
void* allocate(std::size_t bytes);  // nullptr where there is none left
void release(void* memory);
// Where copies find an address, of the host's or the device's memory.
void* reachable(const void* address);
struct Access {
  Access();
  ~Access();
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
};

// Page-locked host memory. A copy from it must find it unchanged, and one to it arrives, only when the host
// waits.
void* allocate_on_host(std::size_t bytes);  // nullptr where there is none left
void release_on_host(void* memory);
void copy(void* to, const void* from, std::size_t bytes);  // addresses of any memory
void finish_transfers();

// What a stream is given while it is captured, to be done when the graph is launched. What CUDA refuses
// meanwhile spoils the capture.
struct Capture {
  bool active = false, spoiled = false;
  const void* stream = nullptr;
  std::vector<std::function<void()>> work;
};
inline Capture capture;

// The GPUs that there are, each by its compute capability.
struct Gpu {
  int major, minor;
};
inline std::vector<Gpu> gpus = {{9, 0}};

// A call of CUDA or cuBLASLt that a test makes fail: of those whose names begin so, the one that
// `calls_before` others precede. It gives `status` and does nothing. Calls that give something back cannot
// fail: destructors make them.
struct Failure {
  std::string name;
  int calls_before = 0, status = 0;
  std::string failed;  // the name of the one that did
};
inline std::optional<Failure> failure;
int status_of(const char* call);  // 0, but of the one that is to fail
#define SIMULATED_CALL(Status)                                                  \
  if (const int status = flasheva::simulator::status_of(__func__); status != 0) \
  return static_cast<Status>(status)

// Streams, events, graphs, libraries and pieces of memory that were made or taken and not given back.
inline int held = 0;
// Kernels that were started, or recorded.
inline int launches = 0;
// How often the host has waited for the GPU.
inline int host_waits = 0;

// Sums over ranks that begin now never end, as where a rank is gone.
inline bool sums_hang = false;

// The GPU's clock, which matrix products alone move on (cublasLt.h).
inline double milliseconds = 0;

}  // namespace flasheva::simulator
