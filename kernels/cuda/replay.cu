// Repeated operations as a CUDA graph: one launch starts them all.
#include "kernels/cuda/cuda_ops.h"

namespace flasheva {

namespace {

// The launches of a body. Their arguments are those of when they were recorded.
class RecordedLaunches final : public OperationGraph {
 public:
  // Whether they were recorded with the scratch memory of now.
  bool are_current(std::int64_t scratch_growths) const {
    return launches_ != nullptr && scratch_growths == scratch_growths_;
  }

  void record(cudaStream_t stream, std::int64_t scratch_growths, const std::function<void()>& body) {
    launches_ = {};
    const CudaGraph graph = captured(stream, body);
    cudaGraphExec_t launches = nullptr;
    FLASHEVA_CUDA(cudaGraphInstantiate(&launches, graph, 0));
    launches_ = CudaGraphExec(launches);
    scratch_growths_ = scratch_growths;
  }

  void start(cudaStream_t stream) { FLASHEVA_CUDA(cudaGraphLaunch(launches_, stream)); }

 private:
  static CudaGraph captured(cudaStream_t stream, const std::function<void()>& body) {
    cudaGraph_t graph = nullptr;
    FLASHEVA_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      body();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      const CudaGraph unfinished(graph);
      cudaGetLastError();  // what failed is thrown
      throw;
    }
    FLASHEVA_CUDA(cudaStreamEndCapture(stream, &graph));
    return CudaGraph(graph);
  }

  CudaGraphExec launches_;
  std::int64_t scratch_growths_ = 0;
};

}  // namespace

// The first call takes the scratch memory and chooses the algorithms of products, which a recording cannot.
void CudaOps::replay(std::unique_ptr<OperationGraph>& graph, const std::function<void()>& body) {
  if (graph == nullptr) {
    body();
    graph = std::make_unique<RecordedLaunches>();
    return;
  }
  auto& launches = static_cast<RecordedLaunches&>(*graph);
  if (!launches.are_current(scratch_.growths())) launches.record(stream_, scratch_.growths(), body);
  launches.start(stream_);
}

}  // namespace flasheva
