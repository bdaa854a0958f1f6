#include "tests/cuda_simulator/nccl.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/bf16.h"

namespace {

constexpr std::size_t most_bytes = std::size_t{64}
                                   << 20;  // of one call; memory that is not touched takes none

struct Header {
  std::atomic<bool> ready;
  pthread_barrier_t barrier;
};

}  // namespace

struct SimulatedRanks {
  int rank = 0, size = 1;
  Header* header = nullptr;
  std::byte* slots = nullptr;
  std::size_t bytes = 0;
  bool hangs = false;

  std::byte* slot(int of) const { return slots + static_cast<std::size_t>(of) * most_bytes; }
  void meet() const { pthread_barrier_wait(&header->barrier); }
};

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id->internal, 0, sizeof(id->internal));
  std::snprintf(id->internal, sizeof(id->internal), "/flasheva-nccl-%d", static_cast<int>(::getpid()));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* ranks, int size, ncclUniqueId id, int rank) {
  constexpr std::size_t header_bytes = 4096;
  auto* made = new SimulatedRanks{rank, size};
  made->bytes = header_bytes + static_cast<std::size_t>(size) * most_bytes;
  const int file = ::shm_open(id.internal, O_CREAT | O_RDWR, 0600);
  if (file < 0 || ::ftruncate(file, static_cast<off_t>(made->bytes)) != 0) return ncclSystemError;
  void* memory = ::mmap(nullptr, made->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  ::close(file);
  if (memory == MAP_FAILED) return ncclSystemError;
  made->header = static_cast<Header*>(memory);
  made->slots = static_cast<std::byte*>(memory) + header_bytes;
  if (rank == 0) {
    pthread_barrierattr_t attributes;
    pthread_barrierattr_init(&attributes);
    pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&made->header->barrier, &attributes, static_cast<unsigned>(size));
    made->header->ready = true;
  }
  while (!made->header->ready) ::usleep(100);
  made->meet();
  if (rank == 0) ::shm_unlink(id.internal);
  *ranks = made;
  return ncclSuccess;
}

namespace {

ncclResult_t end(ncclComm_t ranks) {
  ::munmap(ranks->header, ranks->bytes);
  delete ranks;
  return ncclSuccess;
}

}  // namespace

ncclResult_t ncclCommDestroy(ncclComm_t ranks) {
  if (ranks->hangs) {
    std::fprintf(stderr, "ncclCommDestroy would wait without end\n");
    std::abort();
  }
  ++nccl_destroyed;
  return end(ranks);
}

ncclResult_t ncclCommAbort(ncclComm_t ranks) {
  ++nccl_aborted;
  return end(ranks);
}

namespace {

std::size_t size_of(ncclDataType_t type) { return type == ncclFloat64 ? 8 : type == ncclFloat32 ? 4 : 2; }

// Every rank shows `count` elements; `use` finds those of all in the slots.
template <class Use>
ncclResult_t exchange(ncclComm_t ranks, const void* send, std::size_t count, ncclDataType_t type,
                      const Use& use) {
  const std::size_t bytes = count * size_of(type);
  if (bytes > most_bytes) return ncclSystemError;
  if ((ranks->hangs = flasheva::simulator::sums_hang)) return ncclSuccess;
  if (bytes > 0) std::memcpy(ranks->slot(ranks->rank), flasheva::simulator::reachable(send), bytes);
  ranks->meet();
  use();
  ranks->meet();
  return ncclSuccess;
}

// out (count) = sums over ranks of elements first .. first + count - 1, of type T after each addition.
template <class T, class Wide>
void sum(ncclComm_t ranks, void* out, std::size_t first, std::size_t count) {
  auto* sums = static_cast<T*>(flasheva::simulator::reachable(out));
  for (std::size_t i = 0; i < count; ++i) {
    T total = reinterpret_cast<const T*>(ranks->slot(0))[first + i];
    for (int rank = 1; rank < ranks->size; ++rank)
      total = T(static_cast<Wide>(total) +
                static_cast<Wide>(reinterpret_cast<const T*>(ranks->slot(rank))[first + i]));
    sums[i] = total;
  }
}
void sum(ncclComm_t ranks, ncclDataType_t type, void* out, std::size_t first, std::size_t count) {
  if (count == 0) return;
  if (type == ncclFloat64) return sum<double, double>(ranks, out, first, count);
  if (type == ncclFloat32) return sum<float, float>(ranks, out, first, count);
  sum<flasheva::bf16, float>(ranks, out, first, count);
}

}  // namespace

ncclResult_t ncclAllReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t, ncclComm_t ranks, cudaStream_t) {
  return exchange(ranks, send, count, type, [&] { sum(ranks, type, receive, 0, count); });
}

ncclResult_t ncclReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclRedOp_t,
                        int root, ncclComm_t ranks, cudaStream_t) {
  return exchange(ranks, send, count, type, [&] {
    if (ranks->rank == root) sum(ranks, type, receive, 0, count);
  });
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, std::size_t receive_count,
                               ncclDataType_t type, ncclRedOp_t, ncclComm_t ranks, cudaStream_t) {
  const auto rank = static_cast<std::size_t>(ranks->rank), size = static_cast<std::size_t>(ranks->size);
  return exchange(ranks, send, receive_count * size, type,
                  [&] { sum(ranks, type, receive, rank * receive_count, receive_count); });
}

ncclResult_t ncclAllGather(const void* send, void* receive, std::size_t send_count, ncclDataType_t type,
                           ncclComm_t ranks, cudaStream_t) {
  const std::size_t bytes = send_count * size_of(type);
  return exchange(ranks, send, send_count, type, [&] {
    if (bytes == 0) return;
    auto* all = static_cast<std::byte*>(flasheva::simulator::reachable(receive));
    for (int rank = 0; rank < ranks->size; ++rank)
      std::memcpy(all + static_cast<std::size_t>(rank) * bytes, ranks->slot(rank), bytes);
  });
}

ncclResult_t ncclBroadcast(const void* send, void* receive, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t ranks, cudaStream_t) {
  const std::size_t bytes = count * size_of(type);
  return exchange(ranks, ranks->rank == root ? send : nullptr, ranks->rank == root ? count : 0, type, [&] {
    if (bytes > 0) std::memcpy(flasheva::simulator::reachable(receive), ranks->slot(root), bytes);
  });
}
