// Repeated operations as a CUDA graph: one launch starts them all.
#include "kernels/cuda/cuda_ops.h"

namespace flasheva {

namespace {

// The launches of a body. Their arguments are those of when they were recorded.
class RecordedLaunches final : public OperationGraph {
 public:
  explicit operator bool() const { return launches_ != nullptr; }

  void record(cudaStream_t stream, const std::function<void()>& body) {
    const CudaGraph graph = captured(stream, body);
    cudaGraphExec_t launches = nullptr;
    FLASHEVA_CUDA(cudaGraphInstantiate(&launches, graph, 0));
    launches_ = CudaGraphExec(launches);
  }
  void forget() { launches_ = {}; }

  void start(cudaStream_t stream) { FLASHEVA_CUDA(cudaGraphLaunch(launches_, stream)); }

  std::int64_t scratch_moves = -1;  // until the body ran last without being recorded

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
};

}  // namespace

// A recording can neither take scratch memory nor choose algorithms of products: before it, the body runs
// once as it is, and so it does again when scratch memory has moved.
void CudaOps::replay(std::unique_ptr<OperationGraph>& graph, const std::function<void()>& body) {
  if (graph == nullptr) graph = std::make_unique<RecordedLaunches>();
  auto& launches = static_cast<RecordedLaunches&>(*graph);
  const auto moves = [&] { return scratch_.moves() + products_workspace_.moves(); };
  if (launches.scratch_moves != moves()) {
    launches.forget();
    body();
    launches.scratch_moves = moves();
    return;
  }
  if (!launches) launches.record(stream_, body);
  launches.start(stream_);
}

}  // namespace flasheva
