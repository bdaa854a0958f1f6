// NCCL on a stream of its own, which is that of other Ops: they round what travels. An event on the stream of
// the operations says when a tensor is ready to be summed; done() asks for another behind the last sum, so
// that no thread stands in a call that a dead rank would never let return.
#include <cuda_runtime.h>
#include <fmt/format.h>
#include <nccl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/owned.h"
#include "src/core/error.h"
#include "src/distributed/device_sums.h"

namespace flasheva {

namespace {

void check(ncclResult_t result, const char* call, ncclComm_t ranks = nullptr) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  const bool network = result == ncclRemoteError || result == ncclSystemError;
  const char* more = ncclGetLastError(ranks);
  fail(network ? ExitCode::peer_lost : ExitCode::other, "NCCL: {}: {}{}{}", call, ncclGetErrorString(result),
       more != nullptr && *more != '\0' ? ": " : "", more != nullptr ? more : "");
}

ncclDataType_t type_of(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::f64:
      return ncclFloat64;
    case DType::bf16:
      return ncclBfloat16;
    default:
      FLASHEVA_CHECK(tensor.dtype == DType::f32);
      return ncclFloat32;
  }
}

class NcclSums final : public DeviceSums {
 public:
  NcclSums(Communicator& communicator, CudaOps& ops);
  ~NcclSums() override;

  void start_all_reduce_sum(Tensor tensor, Tensor scratch, DType travel) override;
  void start_reduce_scatter_sum(Tensor tensor, Tensor scratch, DType travel) override;
  void start_all_gather(Tensor tensor) override;
  bool done() override;

 private:
  template <class Sum>
  void start(Tensor tensor, Tensor scratch, DType travel, Range sums, const Sum& sum);
  void reduce_scatter(const Tensor& tensor);
  void all_gather(const Tensor& tensor);

  std::byte* piece_of(const Tensor& tensor, int rank) const;
  std::size_t elements_of(const Tensor& tensor, int rank) const;
  bool pieces_are_equal(const Tensor& tensor) const { return tensor.size() % size_ == 0; }

  const int rank_, size_, gpu_;
  const cudaStream_t operations_;
  CudaOps rounding_;
  const cudaStream_t stream_;
  const CudaEvent ready_ = make_event(cudaEventDisableTiming), end_ = make_event(cudaEventDisableTiming);
  ncclComm_t ranks_ = nullptr;
};

int own_gpu() {
  int gpu = 0;
  FLASHEVA_CUDA(cudaGetDevice(&gpu));
  return gpu;
}

std::string address_of_own_gpu() {
  char bus[32] = {};
  FLASHEVA_CUDA(cudaDeviceGetPCIBusId(bus, sizeof(bus), own_gpu()));
  return bus;
}

std::string own_host() {
  char name[256] = {};
  ::gethostname(name, sizeof(name) - 1);
  return name;
}

// NCCL takes no two ranks on one GPU, unless they claim to be on hosts of their own: a way to test.
void check_one_gpu_a_rank(Communicator& communicator) {
  const char* host = std::getenv("NCCL_HOSTID");
  const std::string own = host != nullptr ? host : own_host();
  const std::vector<std::string> all = from_all_ranks(communicator, own + ", GPU " + address_of_own_gpu());
  std::map<std::string, std::size_t> rank_on;
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (const auto [there, is_new] = rank_on.emplace(all[rank], rank); !is_new)
      fail_together(communicator, ExitCode::usage,
                    fmt::format("ranks {} and {} have the same GPU ({}); start at most one rank for each GPU",
                                there->second, rank, all[rank]));
}

NcclSums::NcclSums(Communicator& communicator, CudaOps& ops)
    : rank_(communicator.rank()),
      size_(communicator.size()),
      gpu_(own_gpu()),
      operations_(ops.stream()),
      rounding_(own_gpu()),
      stream_(rounding_.stream()) {
  check_one_gpu_a_rank(communicator);
  ncclUniqueId id{};
  if (rank_ == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  const std::string from_first = from_all_ranks(communicator, {id.internal, sizeof(id.internal)}).front();
  std::memcpy(id.internal, from_first.data(), sizeof(id.internal));
  check(ncclCommInitRank(&ranks_, size_, id, rank_), "ncclCommInitRank");
}

// Destroying waits for the other ranks, and so does giving memory back while a sum is under way: not while
// this one leaves because of an error.
NcclSums::~NcclSums() {
  if (ranks_ != nullptr) std::uncaught_exceptions() == 0 ? ncclCommDestroy(ranks_) : ncclCommAbort(ranks_);
}

// sum(what travels), once the operations so far have happened; afterwards elements `sums` are sums.
template <class Sum>
void NcclSums::start(Tensor tensor, Tensor scratch, DType travel, Range sums, const Sum& sum) {
  FLASHEVA_CUDA(cudaEventRecord(ready_, operations_));
  FLASHEVA_CUDA(cudaStreamWaitEvent(stream_, ready_, 0));
  if (travel == tensor.dtype || size_ == 1) {
    sum(tensor);
  } else {
    const Tensor rounded{scratch.data, travel, tensor.shape, tensor.device};
    rounding_.cast(rounded, tensor);
    sum(rounded);
    rounding_.cast(tensor.rows(sums.begin, sums.size()), rounded.rows(sums.begin, sums.size()));
  }
  FLASHEVA_CUDA(cudaEventRecord(end_, stream_));
}

void NcclSums::start_all_reduce_sum(Tensor tensor, Tensor scratch, DType travel) {
  start(tensor, scratch, travel, {0, tensor.size()}, [this](const Tensor& values) {
    check(ncclAllReduce(values.data, values.data, static_cast<std::size_t>(values.size()), type_of(values),
                        ncclSum, ranks_, stream_),
          "ncclAllReduce", ranks_);
  });
}

void NcclSums::start_reduce_scatter_sum(Tensor tensor, Tensor scratch, DType travel) {
  start(tensor, scratch, travel, piece_of_rank({0, tensor.size()}, rank_, size_),
        [this](const Tensor& values) { reduce_scatter(values); });
}

void NcclSums::start_all_gather(Tensor tensor) {
  start(tensor, {}, tensor.dtype, {0, tensor.size()}, [this](const Tensor& values) { all_gather(values); });
}

// Pieces of a tensor that does not divide differ by one element, which NCCL's own call does not know: each is
// then summed to its rank, or sent from it.
void NcclSums::reduce_scatter(const Tensor& tensor) {
  if (pieces_are_equal(tensor)) {
    check(ncclReduceScatter(tensor.data, piece_of(tensor, rank_), elements_of(tensor, rank_), type_of(tensor),
                            ncclSum, ranks_, stream_),
          "ncclReduceScatter", ranks_);
    return;
  }
  check(ncclGroupStart(), "ncclGroupStart");
  for (int rank = 0; rank < size_; ++rank)
    check(ncclReduce(piece_of(tensor, rank), piece_of(tensor, rank), elements_of(tensor, rank),
                     type_of(tensor), ncclSum, rank, ranks_, stream_),
          "ncclReduce", ranks_);
  check(ncclGroupEnd(), "ncclGroupEnd", ranks_);
}

void NcclSums::all_gather(const Tensor& tensor) {
  if (pieces_are_equal(tensor)) {
    check(ncclAllGather(piece_of(tensor, rank_), tensor.data, elements_of(tensor, rank_), type_of(tensor),
                        ranks_, stream_),
          "ncclAllGather", ranks_);
    return;
  }
  check(ncclGroupStart(), "ncclGroupStart");
  for (int rank = 0; rank < size_; ++rank)
    check(ncclBroadcast(piece_of(tensor, rank), piece_of(tensor, rank), elements_of(tensor, rank),
                        type_of(tensor), rank, ranks_, stream_),
          "ncclBroadcast", ranks_);
  check(ncclGroupEnd(), "ncclGroupEnd", ranks_);
}

std::byte* NcclSums::piece_of(const Tensor& tensor, int rank) const {
  const std::int64_t first = piece_of_rank({0, tensor.size()}, rank, size_).begin;
  return static_cast<std::byte*>(tensor.data) + static_cast<std::size_t>(first) * size_in_bytes(tensor.dtype);
}
std::size_t NcclSums::elements_of(const Tensor& tensor, int rank) const {
  return static_cast<std::size_t>(piece_of_rank({0, tensor.size()}, rank, size_).size());
}

// Called on a thread of its own, whose GPU would be the first.
bool NcclSums::done() {
  FLASHEVA_CUDA(cudaSetDevice(gpu_));
  ncclResult_t state = ncclSuccess;
  check(ncclCommGetAsyncError(ranks_, &state), "ncclCommGetAsyncError", ranks_);
  if (state != ncclSuccess && state != ncclInProgress) {
    const std::string text = ncclGetErrorString(state);
    ncclCommAbort(ranks_);
    ranks_ = nullptr;
    fail(ExitCode::peer_lost, "NCCL: a sum over ranks: {}", text);
  }
  return FLASHEVA_CUDA_UNLESS(cudaEventQuery(end_), cudaErrorNotReady);
}

}  // namespace

std::unique_ptr<DeviceSums> make_nccl_sums(Communicator& communicator, Ops& ops) {
  auto* gpu = dynamic_cast<CudaOps*>(&ops);
  FLASHEVA_CHECK(gpu != nullptr);
  return std::make_unique<NcclSums>(communicator, *gpu);
}

}  // namespace flasheva
