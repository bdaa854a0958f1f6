// The part of CUDA that the kernels use, for the simulator: qualifiers, coordinates, intrinsics and runtime
// calls. Everything happens at once, so that streams and events are empty, but for what is captured into
// graphs and copies from and to page-locked memory.
#pragma once

#include <math.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "tests/cuda_simulator/simulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // blocks follow each other

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline void __stwb(uint4* to, uint4 value) { *to = value; }

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline constexpr auto& threadIdx = flasheva::simulator::coordinates.thread;
inline constexpr auto& blockIdx = flasheva::simulator::coordinates.block;
inline constexpr auto& blockDim = flasheva::simulator::coordinates.block_size;
inline constexpr auto& gridDim = flasheva::simulator::coordinates.grid_size;

using std::max;
using std::min;

inline void __syncthreads() { flasheva::simulator::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { flasheva::simulator::warp_barrier(); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int lane_mask) {
  const flasheva::simulator::Exchange<T> all(value);
  return all.of(flasheva::simulator::coordinates.lane ^ static_cast<unsigned>(lane_mask));
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return flasheva::simulator::Exchange<T>(value).of(static_cast<unsigned>(lane));
}
inline unsigned __ballot_sync(unsigned, bool predicate) {
  const flasheva::simulator::Exchange<bool> all(predicate);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < flasheva::simulator::warp_size; ++lane)
    bits |= static_cast<unsigned>(all.of(lane)) << lane;
  return bits;
}

inline int atomicExch(int* address, int value) {
  const int before = *address;
  *address = value;
  return before;
}
inline unsigned atomicMin(unsigned* address, unsigned value) {
  const unsigned before = *address;
  *address = min(before, value);
  return before;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

// --- runtime --------------------------------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNoDevice = 100,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901
};
enum cudaMemcpyKind { cudaMemcpyDefault };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum { cudaStreamNonBlocking = 1 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };

struct SimulatedStream;
using cudaStream_t = SimulatedStream*;

inline const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
  }
  return "unknown";
}
inline const char* cudaGetErrorString(cudaError_t status) { return cudaGetErrorName(status); }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

// Of calls that a capture does not survive.
inline cudaError_t unless_capturing() {
  auto& capture = flasheva::simulator::capture;
  capture.spoiled |= capture.active;
  return capture.active ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
// Does what `stream` is given, or records it, with copies of all that it reads.
template <class Work>
cudaError_t enqueue(cudaStream_t stream, const Work& work) {
  auto& capture = flasheva::simulator::capture;
  if (!capture.active) {
    work();
    return cudaSuccess;
  }
  if (capture.stream != stream) return unless_capturing();
  capture.work.push_back(work);
  return cudaSuccess;
}

struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  int major, minor;
};
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(flasheva::simulator::gpus.size());
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int gpu) {
  const auto& chosen = flasheva::simulator::gpus.at(static_cast<std::size_t>(gpu));
  *properties = {"simulated", std::size_t{1} << 30, chosen.major, chosen.minor};
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) {
  SIMULATED_CALL(cudaError_t);
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* gpu) {
  *gpu = 0;
  return cudaSuccess;
}
// A GPU of its own for every process.
inline cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int) {
  std::snprintf(text, static_cast<std::size_t>(size), "simulated:%d", static_cast<int>(::getpid()));
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  SIMULATED_CALL(cudaError_t);
  *value = 2;  // few multiprocessors: loops over more work than blocks are seen
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  SIMULATED_CALL(cudaError_t);
  static std::uintptr_t streams = 0;
  *stream = reinterpret_cast<cudaStream_t>(++streams);
  ++flasheva::simulator::held;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) {
  --flasheva::simulator::held;
  return cudaSuccess;
}
inline cudaError_t all_has_happened() {
  if (unless_capturing() != cudaSuccess) return cudaErrorStreamCaptureUnsupported;
  flasheva::simulator::finish_transfers();
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  SIMULATED_CALL(cudaError_t);
  ++flasheva::simulator::host_waits;
  return all_has_happened();
}

inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  SIMULATED_CALL(cudaError_t);
  if (unless_capturing() != cudaSuccess) return cudaErrorStreamCaptureUnsupported;
  *memory = flasheva::simulator::allocate(bytes);
  flasheva::simulator::held += *memory != nullptr;
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  if (unless_capturing() != cudaSuccess) return cudaErrorStreamCaptureUnsupported;
  flasheva::simulator::release(memory);
  flasheva::simulator::held -= memory != nullptr;
  return cudaSuccess;
}
enum { cudaHostAllocDefault = 0 };
inline cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  SIMULATED_CALL(cudaError_t);
  if (unless_capturing() != cudaSuccess) return cudaErrorStreamCaptureUnsupported;
  *memory = flasheva::simulator::allocate_on_host(bytes);
  flasheva::simulator::held += *memory != nullptr;
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* memory) {
  flasheva::simulator::release_on_host(memory);
  --flasheva::simulator::held;
  return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  SIMULATED_CALL(cudaError_t);
  *free = flasheva::simulator::free_bytes();
  *total = flasheva::simulator::total_bytes;
  return cudaSuccess;
}
// Host memory that is not page-locked cannot be part of a graph.
inline bool is_host_memory(const void* address) { return flasheva::simulator::reachable(address) == address; }
inline cudaError_t cudaMemcpy2DAsync(void* out, std::size_t out_pitch, const void* in, std::size_t in_pitch,
                                     std::size_t width, std::size_t height, cudaMemcpyKind,
                                     cudaStream_t stream) {
  SIMULATED_CALL(cudaError_t);
  if (width > out_pitch || width > in_pitch) return cudaErrorInvalidValue;
  if ((is_host_memory(out) || is_host_memory(in)) && unless_capturing() != cudaSuccess)
    return cudaErrorStreamCaptureUnsupported;
  return enqueue(stream, [=] {
    auto* out_row = static_cast<std::byte*>(flasheva::simulator::reachable(out));
    const auto* in_row = static_cast<const std::byte*>(flasheva::simulator::reachable(in));
    for (std::size_t row = 0; row < height; ++row, out_row += out_pitch, in_row += in_pitch)
      std::memmove(out_row, in_row, width);
  });
}
inline cudaError_t cudaMemcpyAsync(void* out, const void* in, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t stream) {
  SIMULATED_CALL(cudaError_t);
  if ((is_host_memory(out) || is_host_memory(in)) && unless_capturing() != cudaSuccess)
    return cudaErrorStreamCaptureUnsupported;
  return enqueue(stream, [=] { flasheva::simulator::copy(out, in, bytes); });
}
inline cudaError_t cudaMemsetAsync(void* out, int value, std::size_t bytes, cudaStream_t stream) {
  SIMULATED_CALL(cudaError_t);
  return enqueue(stream, [=] { std::memset(flasheva::simulator::reachable(out), value, bytes); });
}

// When they happened, by the GPU's clock.
struct SimulatedEvent;
using cudaEvent_t = SimulatedEvent*;
inline std::map<cudaEvent_t, double> event_times;
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
enum { cudaEventDefault = 0, cudaEventDisableTiming = 2 };
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  SIMULATED_CALL(cudaError_t);
  static std::uintptr_t events = 0;
  *event = reinterpret_cast<cudaEvent_t>(++events);
  ++flasheva::simulator::held;
  return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t) {
  return flasheva::simulator::sums_hang ? cudaErrorNotReady : all_has_happened();
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  event_times.erase(event);
  --flasheva::simulator::held;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  SIMULATED_CALL(cudaError_t);
  event_times[event] = flasheva::simulator::milliseconds;
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
  SIMULATED_CALL(cudaError_t);
  ++flasheva::simulator::host_waits;
  return all_has_happened();
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  SIMULATED_CALL(cudaError_t);
  *milliseconds = static_cast<float>(event_times.at(end) - event_times.at(begin));
  return cudaSuccess;
}
inline cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  SIMULATED_CALL(cudaError_t);
  const auto& capture = flasheva::simulator::capture;
  *status = capture.active && capture.stream == stream ? cudaStreamCaptureStatusActive
                                                       : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

// --- graphs
struct SimulatedGraph {
  std::vector<std::function<void()>> work;
};
using cudaGraph_t = SimulatedGraph*;
using cudaGraphExec_t = SimulatedGraph*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };

inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  SIMULATED_CALL(cudaError_t);
  if (unless_capturing() != cudaSuccess) return cudaErrorStreamCaptureUnsupported;
  flasheva::simulator::capture = {true, false, stream, {}};
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  auto& capture = flasheva::simulator::capture;
  *graph = nullptr;
  if (!capture.active || capture.stream != stream) return cudaErrorInvalidValue;
  capture.active = false;
  SIMULATED_CALL(cudaError_t);
  if (capture.spoiled) return cudaErrorStreamCaptureInvalidated;
  *graph = new SimulatedGraph{std::move(capture.work)};
  ++flasheva::simulator::held;
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* launches, cudaGraph_t graph, unsigned long long) {
  SIMULATED_CALL(cudaError_t);
  *launches = new SimulatedGraph(*graph);
  ++flasheva::simulator::held;
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t launches, cudaStream_t) {
  SIMULATED_CALL(cudaError_t);
  if (unless_capturing() != cudaSuccess) return cudaErrorStreamCaptureUnsupported;
  for (const auto& work : launches->work) work();
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  --flasheva::simulator::held;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t launches) {
  delete launches;
  --flasheva::simulator::held;
  return cudaSuccess;
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  void* attrs = nullptr;
  unsigned numAttrs = 0;
};
inline constexpr std::size_t most_shared_bytes = 227 << 10;  // of a block, as on sm_90
template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*)(Parameters...), cudaFuncAttribute, int bytes) {
  SIMULATED_CALL(cudaError_t);
  return static_cast<std::size_t>(bytes) <= most_shared_bytes ? cudaSuccess : cudaErrorInvalidValue;
}
template <class... Parameters>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(Parameters...), int,
                                                          std::size_t) {
  SIMULATED_CALL(cudaError_t);
  *blocks = 2;
  return cudaSuccess;
}
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  SIMULATED_CALL(cudaError_t);
  const dim3 grid = config->gridDim, block = config->blockDim;
  if (grid.y > 65535 || grid.z > 65535 || config->dynamicSmemBytes > most_shared_bytes)
    return cudaErrorInvalidConfiguration;
  ++flasheva::simulator::launches;
  const std::function<void()> thread = [=] { kernel(arguments...); };
  const std::size_t shared_bytes = config->dynamicSmemBytes;
  return enqueue(config->stream, [=] {
    flasheva::simulator::run_grid({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes,
                                  thread);
  });
}
