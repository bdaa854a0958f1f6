// cuBLASLt counts columns first: what it takes for a matrix of `columns` rows and `rows` columns with leading
// dimension `columns` is our matrix, row by row. So it is asked for the transpose of every product,
//     out^T (N, M) = b^T (N, K) a^T (K, M)
// where b^T and a^T are the stored matrices themselves as it sees them, or, of transposed factors, their
// transposes. The bias is added along the first dimension of out^T, which is N.
#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/device_scratch.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_trial.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/scratch_layouts.h"

namespace flasheva {

namespace {

std::uint32_t alignment_of(const Tensor& tensor) {
  constexpr std::uintptr_t most = MemoryPlan::alignment_bytes;  // where a plan puts a tensor decides nothing
  const int last = tensor.shape.rank() - 1;
  const std::uintptr_t row = last > 0 ? tensor.dim(last) * size_in_bytes(tensor.dtype) : 0;
  const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(tensor.data) | row | most;
  return static_cast<std::uint32_t>(bits & -bits);  // the lowest bit that is set
}

// The library's first factor, A, is our b, its second one, B, our a.
cublasLtMatmulDescOpaque_t make_operation(const Product& product, const void* bias) {
  const bool wide = product.in == DType::f64;
  cublasLtMatmulDescOpaque_t operation{};
  const cublasComputeType_t sums = wide           ? CUBLAS_COMPUTE_64F
                                   : product.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                  : CUBLAS_COMPUTE_32F;
  FLASHEVA_CUBLAS(cublasLtMatmulDescInit(&operation, sums, wide ? CUDA_R_64F : CUDA_R_32F));
  const auto as_stored_or_not = [](bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  set(operation, CUBLASLT_MATMUL_DESC_TRANSA, as_stored_or_not(product.b_transposed));
  set(operation, CUBLASLT_MATMUL_DESC_TRANSB, as_stored_or_not(product.a_transposed));
  if (product.bias) {
    set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  return operation;
}

// A name for the library's nameless type, which containers want (nvcc 13.0 breaks off without).
struct Algorithm {
  cublasLtMatmulAlgo_t config;
};

// A product as the library is told of it.
struct Description {
  Product product;
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, out;

  Description(const Product& p, const void* bias)
      : product(p),
        operation(make_operation(p, bias)),
        a(p.a_transposed ? make_layout(p.in, p.k, p.m) : make_layout(p.in, p.m, p.k)),
        b(p.b_transposed ? make_layout(p.in, p.n, p.k) : make_layout(p.in, p.k, p.n)),
        out(make_layout(p.out, p.m, p.n)) {}
};

// out (rows, columns) = bias (columns) in every row.
template <class T>
__global__ void __launch_bounds__(256) repeat_row_kernel(T* out, const T* bias, std::int64_t columns) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * 256 + threadIdx.x;
  if (column < columns) out[blockIdx.x * columns + column] = bias[column];
}

// Work for a stream, by calculation some 200 us: every step waits for the one before, four cycles or so.
__global__ void __launch_bounds__(1) keep_busy_kernel(float* out, float x) {
  for (int i = 0; i < 80'000; ++i) x = 0.5f * x + 1;
  *out = x;
}

}  // namespace

class CudaGemm::Library {
 public:
  Library(cudaStream_t stream, DeviceScratch& workspace) : stream_(stream), workspace_(workspace) {}

  bool tf32_allowed = false;

  void multiply(Tensor out, Factor a, Factor b, Tensor bias, bool accumulate) {
    if (out.size() == 0) return;
    const Product product{a.rows(),
                          b.columns(),
                          a.columns(),
                          a.transposed,
                          b.transposed,
                          a.matrix.dtype,
                          out.dtype,
                          bias ? true : false,
                          accumulate,
                          tf32_allowed && a.matrix.dtype == DType::f32,
                          alignment_of(a.matrix),
                          alignment_of(b.matrix),
                          alignment_of(out),
                          alignment_of(bias)};
    const Operands operands{a.matrix.data, b.matrix.data, bias.data, out.data, out.data};
    Plan& plan = find_or_make(product, bias.data);
    if (!plan.algorithms.empty()) {
      run(plan, operands);
    } else {  // the library has no such product with a bias: the bias first, then what is added to it
      dispatch(out.dtype, [&]<class T>(T) {
        launch(stream_, repeat_row_kernel<T>, {out.dim(0), divide_up(out.dim(1), 256)}, 256, 0, out.as<T>(),
               bias.as<T>(), out.dim(1));
      });
      multiply(out, a, b, {}, true);
    }
  }

 private:
  struct Plan {
    Description description;
    std::vector<Algorithm> algorithms;  // the first is taken
  };

  // What passed the library's check may still be refused when it is started; then the next one's turn comes.
  void run(Plan& plan, const Operands& operands) {
    while (plan.algorithms.size() > 1 && !start(plan.description, plan.algorithms[0], operands, refusals))
      plan.algorithms.erase(plan.algorithms.begin());
    if (plan.algorithms.size() == 1) start(plan.description, plan.algorithms[0], operands);
  }

  // beta C is what the result is added to; alpha and beta have the type that products are summed in. False
  // where it is refused with one of the errors that are expected.
  bool start(Description& what, const Algorithm& algorithm, const Operands& at,
             std::initializer_list<cublasStatus_t> expected = {}) {
    const Product& product = what.product;
    const float one = 1, beta = product.accumulate ? 1 : 0;
    const double wide_one = 1, wide_beta = beta;
    const bool wide = product.in == DType::f64;
    const auto pick = [=](const float& narrow, const double& in_float64) {
      return wide ? static_cast<const void*>(&in_float64) : &narrow;
    };
    if (product.bias) set(what.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, at.bias);
    const cublasStatus_t status =
        cublasLtMatmul(handle_, &what.operation, pick(one, wide_one), at.b, &what.b, at.a, &what.a,
                       pick(beta, wide_beta), at.c, &what.out, at.d, &what.out, &algorithm.config,
                       workspace<std::byte>(), workspace_bytes, stream_);
    return check_cublas_unless(expected, status, "cublasLtMatmul", __FILE__, __LINE__);
  }

  Plan& find_or_make(const Product& product, const void* bias) {
    const auto found = plans_.find(product);
    if (found != plans_.end()) return found->second;
    if (plans_.size() == most_plans) plans_.clear();
    Plan plan{Description(product, bias), find_algorithms(product, bias)};
    if (!plan.algorithms.empty())
      std::swap(plan.algorithms[0], plan.algorithms[fastest(plan.description, plan.algorithms)]);
    else if (!product.bias)
      throw CudaError("cuBLASLt has no product of " + std::to_string(product.m) + " x " +
                      std::to_string(product.k) + " by " + std::to_string(product.k) + " x " +
                      std::to_string(product.n) + " in " + name_of(product.in));
    return plans_.emplace(product, plan).first->second;
  }

  // Algorithms that can do it, the presumably fastest first. Those for few rows are the ones for `few_rows`
  // that can do any fewer, where there are any: what generation gives must not depend on what is generated
  // beside it, and another algorithm adds in another order. A bias is read as wide as the result, which
  // nobody may promise of it.
  std::vector<Algorithm> find_algorithms(const Product& product, const void* bias) {
    constexpr std::uint32_t widest_read = 16;
    if (product.bias && product.bias_alignment < widest_read) return {};
    const auto with_rows = [&](std::int64_t m) {
      Product other = product;
      other.m = m;
      return Description(other, bias);
    };
    if (!product.a_transposed && product.m < few_rows)
      if (auto found = algorithms_for(with_rows(few_rows), {with_rows(1), with_rows(few_rows - 1)});
          !found.empty())
        return found;
    return algorithms_for(with_rows(product.m), {with_rows(product.m)});
  }

  // Those that the library names for `asked` and that can do all of `wanted`; where none of them may be
  // taken, those that cut no sum.
  std::vector<Algorithm> algorithms_for(Description asked, std::vector<Description> wanted) {
    auto algorithms = algorithms_for(asked, wanted, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    if (algorithms.empty()) algorithms = algorithms_for(asked, wanted, CUBLASLT_REDUCTION_SCHEME_NONE);
    return algorithms;
  }

  std::vector<Algorithm> algorithms_for(Description& asked, std::vector<Description>& wanted,
                                        cublasLtReductionScheme_t reduction) {
    cublasLtMatmulPreferenceOpaque_t preference = make_preference(asked.product, reduction);
    constexpr int most_algorithms = 8;
    cublasLtMatmulHeuristicResult_t results[most_algorithms];
    int count = 0;
    if (!FLASHEVA_CUBLAS_UNLESS(
            cublasLtMatmulAlgoGetHeuristic(handle_, &asked.operation, &asked.b, &asked.a, &asked.out,
                                           &asked.out, &preference, most_algorithms, results, &count),
            CUBLAS_STATUS_NOT_SUPPORTED))
      return {};
    std::vector<Algorithm> algorithms;
    for (int i = 0; i < count; ++i)
      if (results[i].state == CUBLAS_STATUS_SUCCESS && sums_widely(asked.product, results[i].algo) &&
          std::all_of(wanted.begin(), wanted.end(),
                      [&](Description& what) { return can_do(what, results[i].algo); }))
        algorithms.push_back({results[i].algo});
    return algorithms;
  }

  // An algorithm that was named for other rows may not be one for these: the errors that say so.
  bool can_do(Description& what, const cublasLtMatmulAlgo_t& algorithm) {
    cublasLtMatmulHeuristicResult_t checked{};
    return FLASHEVA_CUBLAS_UNLESS(cublasLtMatmulAlgoCheck(handle_, &what.operation, &what.b, &what.a,
                                                          &what.out, &what.out, &algorithm, &checked),
                                  CUBLAS_STATUS_NOT_SUPPORTED, CUBLAS_STATUS_INVALID_VALUE,
                                  CUBLAS_STATUS_ARCH_MISMATCH) &&
           checked.workspaceSize <= workspace_bytes;
  }

  // Parts of a sum are added in float32 (float64), never rounded to 16 bits in between. An algorithm that
  // cuts sums into parts and names no way to add them up may keep them in the result's type.
  static bool sums_widely(const Product& product, const cublasLtMatmulAlgo_t& algorithm) {
    if (!is_low_precision(product.out)) return true;
    const auto parts = get<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    const auto scheme = get<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
    return parts <= 1 || scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  }

  static cublasLtMatmulPreferenceOpaque_t make_preference(const Product& product,
                                                          cublasLtReductionScheme_t reduction) {
    cublasLtMatmulPreferenceOpaque_t preference{};
    FLASHEVA_CUBLAS(cublasLtMatmulPreferenceInit(&preference));
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<std::uint32_t>(reduction));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, product.b_alignment);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, product.a_alignment);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, product.out_alignment);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, product.out_alignment);
    return preference;
  }

  // The place of the fastest of the algorithms that give the bits of the first one on operands that show the
  // order of addition, so that the choice, which may be another one on another day, changes no result. Where
  // there is no memory for them, or the stream is being captured, or the product too small to be worth it,
  // the first one it is; also where another is hardly faster, as measured.
  std::size_t fastest(Description& what, const std::vector<Algorithm>& algorithms) {
    const Product& product = what.product;
    constexpr std::int64_t fewest_results = 1 << 16;
    constexpr float clearly_faster = 0.97f;
    if (algorithms.size() == 1 || product.m * product.n < fewest_results || is_capturing()) return 0;
    const ProductTrial trial(stream_, product);
    if (!trial) return 0;
    std::optional<std::size_t> best;
    float best_time = 0;
    int repetitions = 1;
    for (std::size_t i = 0; i < algorithms.size(); ++i) {
      const Algorithm& algorithm = algorithms[i];
      if (!start(what, algorithm, best ? trial.second() : trial.first(), refusals)) continue;
      if (best && !trial.are_equal()) continue;
      const Operands operands = trial.second();
      if (!best) {
        warm_up(what, algorithm, operands);
        repetitions = repetitions_of(time_of(what, algorithm, operands, 1));
      }
      const float time = time_of(what, algorithm, operands, repetitions);
      if (best && time > clearly_faster * best_time) continue;
      best = i;
      best_time = time;
    }
    return best.value_or(0);
  }

  // Before the first measurement: the clocks of a GPU that did nothing rise within some milliseconds.
  void warm_up(Description& what, const Algorithm& algorithm, const Operands& at) {
    if (is_warm_) return;
    is_warm_ = true;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
    while (std::chrono::steady_clock::now() < end) time_of(what, algorithm, at, 1);
  }

  // For about a millisecond, of a product that takes so long; no more than are started while the GPU is busy.
  static int repetitions_of(float milliseconds) {
    constexpr float most = 50;
    return static_cast<int>(std::clamp(1 / milliseconds, 1.0f, most));
  }

  // Milliseconds of so many on the GPU, one after the other: all of them are started while it is busy.
  float time_of(Description& what, const Algorithm& algorithm, const Operands& at, int repetitions) {
    float milliseconds = 0;
    launch(stream_, keep_busy_kernel, {}, 1, 0, workspace<float>(), 0.0f);
    FLASHEVA_CUDA(cudaEventRecord(begin_, stream_));
    for (int i = 0; i < repetitions; ++i) start(what, algorithm, at);
    FLASHEVA_CUDA(cudaEventRecord(end_, stream_));
    FLASHEVA_CUDA(cudaEventSynchronize(end_));
    FLASHEVA_CUDA(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return milliseconds;
  }

  template <class T>
  T* workspace() {
    return workspace_.take<T>(workspace_bytes / sizeof(T), "the workspace of matrix products");
  }

  bool is_capturing() const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    FLASHEVA_CUDA(cudaStreamIsCapturing(stream_, &status));
    return status != cudaStreamCaptureStatusNone;
  }

  static constexpr std::initializer_list<cublasStatus_t> refusals = {CUBLAS_STATUS_NOT_SUPPORTED,
                                                                     CUBLAS_STATUS_ARCH_MISMATCH};
  static constexpr std::size_t workspace_bytes = products_workspace_bytes;
  static constexpr std::int64_t few_rows = 64;
  // Prompts meet one shape a length; a training step knows a few dozen.
  static constexpr std::size_t most_plans = 1024;

  cudaStream_t stream_;
  DeviceScratch& workspace_;
  const CublasLibrary handle_ = make_cublas_library();
  const CudaEvent begin_ = make_event(), end_ = make_event();
  bool is_warm_ = false;
  std::map<Product, Plan> plans_;
};

CudaGemm::CudaGemm(cudaStream_t stream, DeviceScratch& workspace)
    : library_(std::make_unique<Library>(stream, workspace)) {}
CudaGemm::~CudaGemm() = default;

void CudaGemm::allow_tf32(bool allowed) { library_->tf32_allowed = allowed; }

void CudaGemm::multiply(Tensor out, Factor a, Factor b, Tensor bias) {
  check_product(Device::cuda, out, a.matrix.dtype, a, b, bias);
  library_->multiply(out, a, b, bias, false);
}

void CudaGemm::multiply_add(Tensor out, Factor a, Factor b) {
  check_product(Device::cuda, out, accumulation_type(a.matrix.dtype), a, b, {});
  library_->multiply(out, a, b, {}, true);
}

}  // namespace flasheva
