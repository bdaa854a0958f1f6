// Every call of CUDA and cuBLASLt is checked: in the simulator they are made to fail one after another, and
// each time the error must say in which file and line, which call it was, and by CUDA's name what happened,
// and nothing may be left behind.
#include <cublasLt.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.cuh"
#include "tests/support/device_tensors.h"

namespace flasheva {
namespace {

using testing::ContainsRegex;
using testing::IsSupersetOf;

const std::string place = "kernels/cuda/[a-z_]+\\.(cu|cuh|h):[0-9]+: ";

__global__ void empty_kernel(int) {}

class CudaCallsTest : public testing::Test {
 protected:
  ~CudaCallsTest() override {
    simulator::failure.reset();
    simulator::algorithms = before_;
  }

  // What `work` ends with when one call fails, empty if with nothing, and the name of that call.
  static std::pair<std::string, std::string> message_and_call(const simulator::Failure& failure,
                                                              const std::function<void()>& work) {
    simulator::failure = failure;
    std::string message;
    try {
      work();
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    return {message, std::exchange(simulator::failure, {})->failed};
  }

  // Makes each call of `work` fail whose name begins so. Gives their names.
  static std::set<std::string> fail_each(const std::string& name, int status, const std::string& status_name,
                                         const std::function<void()>& work) {
    std::set<std::string> names;
    for (int calls_before = 0;; ++calls_before) {
      const int held_before = simulator::held;
      const auto [message, call] = message_and_call({name, calls_before, status, {}}, work);
      EXPECT_EQ(simulator::held, held_before) << call;
      if (call.empty()) {
        EXPECT_EQ(message, "");
        return names;
      }
      names.insert(call);
      EXPECT_THAT(message, ContainsRegex(place + call + "[(:].*" + status_name));
    }
  }

 private:
  const decltype(simulator::algorithms) before_ = simulator::algorithms;
};

// What training and generation are made of, small.
void run_operations() {
  CudaOps ops(0);
  const DeviceTensor x(ops, DType::f32, {3, 8}), weight(ops, DType::f32, {8, 8}),
      out(ops, DType::f32, {3, 8}), row(ops, DType::f32, {8}), statistics(ops, DType::f32, {3}),
      wide(ops, DType::f32, {3, 8});
  for (const Tensor& tensor : {Tensor(x), Tensor(weight), Tensor(row)}) ops.fill_normal(tensor, 1, 1, 1);
  ops.zero(out);
  ops.linear_forward(out, x, weight, row);
  ops.linear_backward_weight(weight, row, out, x);
  ops.layernorm_forward({out, row, row}, {}, statistics, statistics, x, 1e-5);
  std::unique_ptr<OperationGraph> graph;
  for (int i = 0; i < 3; ++i) ops.replay(graph, [&] { ops.gelu_forward(out, x); });
  ops.sum_of_squares(out);
  launch(ops.stream(), empty_kernel, {}, 32, 64 << 10, 0);
  copy_of(ops, out);
}

TEST_F(CudaCallsTest, EveryCallOfCudaIsChecked) {
  EXPECT_THAT(
      fail_each("cuda", cudaErrorLaunchFailure, "cudaErrorLaunchFailure", run_operations),
      IsSupersetOf({"cudaSetDevice", "cudaDeviceGetAttribute", "cudaStreamCreateWithFlags", "cudaMalloc",
                    "cudaHostAlloc", "cudaEventCreateWithFlags", "cudaMemcpyAsync", "cudaMemsetAsync",
                    "cudaStreamSynchronize", "cudaFuncSetAttribute", "cudaLaunchKernelEx",
                    "cudaOccupancyMaxActiveBlocksPerMultiprocessor", "cudaStreamBeginCapture",
                    "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphLaunch"}));
}

// A product for which algorithms are compared. What fails is planned again.
class CudaCallsOfProductsTest : public CudaCallsTest {
 protected:
  void multiply() {
    ops_.zero(out_);
    ops_.linear_forward(out_, x_, x_, {});
  }
  // A first product warms up, for as long as it takes.
  CudaCallsOfProductsTest() {
    const DeviceTensor other(ops_, DType::bf16, {257, 1});
    ops_.linear_forward(DeviceTensor(ops_, DType::bf16, {257, 256}), other, x_, {});
  }

  CudaOps ops_{0};
  const DeviceTensor x_{ops_, DType::bf16, {256, 1}}, out_{ops_, DType::bf16, {256, 256}};
};

TEST_F(CudaCallsOfProductsTest, EveryCallOfCudaIsChecked) {
  EXPECT_THAT(fail_each("cuda", cudaErrorLaunchFailure, "cudaErrorLaunchFailure", [&] { multiply(); }),
              IsSupersetOf({"cudaStreamIsCapturing", "cudaMalloc", "cudaEventRecord", "cudaEventSynchronize",
                            "cudaEventElapsedTime", "cudaLaunchKernelEx"}));
}

TEST_F(CudaCallsOfProductsTest, EveryCallOfCublasIsChecked) {
  EXPECT_THAT(
      fail_each("cublasLt", CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED",
                [&] { multiply(); }),
      IsSupersetOf({"cublasLtMatmulDescInit", "cublasLtMatmulDescSetAttribute", "cublasLtMatrixLayoutInit",
                    "cublasLtMatmulPreferenceInit", "cublasLtMatmulPreferenceSetAttribute",
                    "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmulAlgoConfigGetAttribute",
                    "cublasLtMatmulAlgoCheck", "cublasLtMatmul"}));
  EXPECT_THAT(fail_each("cublasLtCreate", CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED",
                        [] { CudaOps(0); }),
              testing::ElementsAre("cublasLtCreate"));
}

// Algorithms are not compared then.
TEST_F(CudaCallsOfProductsTest, NoMemoryForTrialsIsNoError) {
  for (auto& algorithm : simulator::algorithms) algorithm.starts = 0;
  const auto [message, call] =
      message_and_call({"cudaMalloc", 0, cudaErrorMemoryAllocation, {}}, [&] { multiply(); });
  EXPECT_EQ(call, "cudaMalloc");
  EXPECT_EQ(message, "");
  EXPECT_EQ(simulator::algorithms[1].starts, 1);
  EXPECT_EQ(simulator::algorithms[2].starts + simulator::algorithms[3].starts, 0);
}

TEST_F(CudaCallsTest, TooMuchSharedMemoryIsSaidInWords) {
  const auto words_about = [](std::size_t kilobytes, const simulator::Failure& failure) {
    return message_and_call(failure, [=] { launch(nullptr, empty_kernel, {}, 32, kilobytes << 10, 0); })
        .first;
  };
  const simulator::Failure none{"no call", 0, 0, {}};
  EXPECT_THAT(words_about(300, none),
              ContainsRegex(place + ".*a block needs 300 KB of shared memory.*take smaller chunks or heads.*"
                                    "cudaErrorInvalidValue"));
  EXPECT_THAT(words_about(100, {"cudaFuncSetAttribute", 0, cudaErrorLaunchFailure, {}}),
              testing::AllOf(ContainsRegex(place + "cudaFuncSetAttribute: cudaErrorLaunchFailure"),
                             testing::Not(testing::HasSubstr("smaller"))));
  EXPECT_EQ(words_about(100, none), "");
}

}  // namespace
}  // namespace flasheva
