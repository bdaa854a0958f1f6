// The part of NCCL that flasheva uses, for the simulator: ranks are processes of one machine that exchange
// through shared memory. A call returns when all ranks have made it and its work is done, or at once where a
// test has said that it hangs (simulator.h); then ranks can be aborted alone, as destroying them would wait.
#pragma once

#include <cstddef>

#include "tests/cuda_simulator/cuda_runtime.h"

enum ncclResult_t { ncclSuccess, ncclSystemError = 2, ncclRemoteError = 6, ncclInProgress = 7 };
enum ncclDataType_t { ncclFloat32, ncclFloat64, ncclBfloat16 };
enum ncclRedOp_t { ncclSum };
struct ncclUniqueId {
  char internal[128];
};
struct SimulatedRanks;
using ncclComm_t = SimulatedRanks*;

ncclResult_t ncclGetUniqueId(ncclUniqueId* id);
ncclResult_t ncclCommInitRank(ncclComm_t* ranks, int size, ncclUniqueId id, int rank);
ncclResult_t ncclCommDestroy(ncclComm_t ranks);
ncclResult_t ncclCommAbort(ncclComm_t ranks);
// What a test says has happened to the sums that are under way, and how ranks have ended.
inline ncclResult_t nccl_async_error = ncclSuccess;
inline int nccl_aborted = 0, nccl_destroyed = 0;
inline ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* state) {
  *state = nccl_async_error;
  return ncclSuccess;
}
inline const char* ncclGetErrorString(ncclResult_t) { return "simulated error"; }
inline const char* ncclGetLastError(ncclComm_t) { return ""; }
inline ncclResult_t ncclGroupStart() { return ncclSuccess; }
inline ncclResult_t ncclGroupEnd() { return ncclSuccess; }

ncclResult_t ncclAllReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t, ncclComm_t ranks, cudaStream_t);
ncclResult_t ncclReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclRedOp_t,
                        int root, ncclComm_t ranks, cudaStream_t);
ncclResult_t ncclReduceScatter(const void* send, void* receive, std::size_t receive_count,
                               ncclDataType_t type, ncclRedOp_t, ncclComm_t ranks, cudaStream_t);
ncclResult_t ncclAllGather(const void* send, void* receive, std::size_t send_count, ncclDataType_t type,
                           ncclComm_t ranks, cudaStream_t);
ncclResult_t ncclBroadcast(const void* send, void* receive, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t ranks, cudaStream_t);
