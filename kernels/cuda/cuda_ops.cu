#include <memory>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/scratch_layouts.h"

namespace flasheva {

namespace {

std::string gibibytes(std::size_t bytes) {
  const std::string tenths = std::to_string((bytes * 10 + (std::size_t{1} << 29)) >> 30);
  return (tenths.size() > 1 ? tenths.substr(0, tenths.size() - 1) : "0") + "." + tenths.back() + " GiB";
}

}  // namespace

void* allocate_on_gpu(std::size_t bytes, const char* wants) {
  void* memory = nullptr;
  if (FLASHEVA_CUDA_UNLESS(cudaMalloc(&memory, std::max<std::size_t>(bytes, 1)), cudaErrorMemoryAllocation))
    return memory;
  std::size_t free_bytes = 0, total_bytes = 0;
  FLASHEVA_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  throw OutOfMemory("GPU memory: " + std::string(wants) + " asked for " + gibibytes(bytes) + ", " +
                    gibibytes(free_bytes) + " of " + gibibytes(total_bytes) + " are free");
}

void* DeviceScratch::take_bytes(std::size_t bytes, const char* operation) {
  if (bytes > capacity_) {
    lend(nullptr, 0);
    own_ = CudaMemory<std::byte>(static_cast<std::byte*>(allocate_on_gpu(bytes, operation)));
    memory_ = own_;
    capacity_ = bytes;
  }
  return memory_;
}

void DeviceScratch::lend(void* memory, std::size_t bytes) {
  own_ = {};  // waits for what still uses it
  memory_ = memory;
  capacity_ = bytes;
  ++moves_;
}

CudaOps::CudaOps(int gpu) {
  FLASHEVA_CUDA(cudaSetDevice(gpu));
  FLASHEVA_CUDA(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, gpu));
  stream_ = make_stream();
  bad_token_ = CudaMemory<int>(static_cast<int*>(allocate_on_gpu(sizeof(int), "the flag of bad tokens")));
  FLASHEVA_CUDA(cudaMemsetAsync(bad_token_, 0, sizeof(int), stream_));
  bad_token_on_host_ = allocate_on_host(sizeof(int));
  gemm_ = std::make_unique<CudaGemm>(stream_, products_workspace_);
}

CudaOps::~CudaOps() = default;

DeviceMemory CudaOps::allocate(std::size_t bytes) {
  return DeviceMemory(static_cast<std::byte*>(allocate_on_gpu(bytes, "a plan")),
                      [](std::byte* memory) { cudaFree(memory); });
}

// The workspace of products stands before what all others share.
void CudaOps::lend_scratch(const ScratchMemory& memory) {
  void* begin = memory.shared.data;
  std::size_t bytes = memory.shared ? memory.shared.bytes() : 0;
  if (std::align(ScratchPieces::alignment, products_workspace_bytes, begin, bytes) == nullptr) {
    products_workspace_.lend(nullptr, 0);
    return scratch_.lend(nullptr, 0);
  }
  products_workspace_.lend(begin, products_workspace_bytes);
  scratch_.lend(static_cast<std::byte*>(begin) + products_workspace_bytes, bytes - products_workspace_bytes);
}

std::size_t CudaOps::device_memory_taken() {
  std::size_t free_bytes = 0, total_bytes = 0;
  FLASHEVA_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  return total_bytes - free_bytes;
}

DeviceMemory CudaOps::allocate_on_host(std::size_t bytes) {
  void* memory = nullptr;
  // Of more than there are addresses for, CUDA may say that the value is invalid.
  if (!FLASHEVA_CUDA_UNLESS(cudaHostAlloc(&memory, std::max<std::size_t>(bytes, 1), cudaHostAllocDefault),
                            cudaErrorMemoryAllocation, cudaErrorInvalidValue))
    throw OutOfMemory("page-locked host memory: a plan asked for " + gibibytes(bytes) + ", not there");
  return DeviceMemory(static_cast<std::byte*>(memory), [](std::byte* taken) { cudaFreeHost(taken); });
}

void CudaOps::synchronize() {
  auto* on_host = reinterpret_cast<int*>(bad_token_on_host_.get());
  FLASHEVA_CUDA(cudaMemcpyAsync(on_host, bad_token_, sizeof(int), cudaMemcpyDefault, stream_));
  FLASHEVA_CUDA(cudaStreamSynchronize(stream_));
  const int bad_token = *on_host;
  if (bad_token == 0) return;
  FLASHEVA_CUDA(cudaMemsetAsync(bad_token_, 0, sizeof(int), stream_));
  throw std::logic_error(bad_token == 1 ? "a token is not in 0 .. V - 1"
                                        : "cache: a sequence or position of a token does not exist");
}

std::unique_ptr<Ops> make_cuda_ops(int gpu) { return std::make_unique<CudaOps>(gpu); }

}  // namespace flasheva
