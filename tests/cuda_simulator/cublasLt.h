// The part of cuBLASLt that gemm.cu uses, for the simulator: matrices column by column with leading
// dimensions, as documented, and plain loops over them. There are no products with a bias in float64, and a
// user is held to the alignments that an algorithm was asked for.
#pragma once

#include <cuda_runtime.h>

#include <array>

#include "kernels/bf16.h"
#include "kernels/f16.h"

enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_ARCH_MISMATCH = 8,
  CUBLAS_STATUS_EXECUTION_FAILED = 13,
  CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_64F = 1, CUDA_R_16F = 2, CUDA_R_16BF = 14 };
enum cublasComputeType_t {
  CUBLAS_COMPUTE_32F = 68,
  CUBLAS_COMPUTE_64F = 70,
  CUBLAS_COMPUTE_32F_FAST_TF32 = 77
};
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum cublasLtEpilogue_t { CUBLASLT_EPILOGUE_DEFAULT = 1, CUBLASLT_EPILOGUE_BIAS = 4 };
enum cublasLtReductionScheme_t {
  CUBLASLT_REDUCTION_SCHEME_NONE = 0,
  CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2
};
enum cublasLtMatmulAlgoConfigAttributes_t {
  CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
  CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME
};
enum cublasLtMatmulDescAttributes_t {
  CUBLASLT_MATMUL_DESC_TRANSA,
  CUBLASLT_MATMUL_DESC_TRANSB,
  CUBLASLT_MATMUL_DESC_EPILOGUE,
  CUBLASLT_MATMUL_DESC_BIAS_POINTER
};
enum cublasLtMatmulPreferenceAttributes_t {
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
  CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
};

struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t a, b;
  cublasLtEpilogue_t epilogue;
  const void* bias;
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType_t type;
  std::int64_t rows, columns, leading_dimension;
};
struct cublasLtMatmulPreferenceOpaque_t {
  std::uint64_t workspace_bytes;
  std::uint32_t reductions, alignments[4];  // of A, B, C, D
};
struct cublasLtMatmulAlgo_t {
  std::size_t number;  // of flasheva::simulator::algorithms
  std::uint32_t alignments[4];
};
struct cublasLtMatmulHeuristicResult_t {
  cublasLtMatmulAlgo_t algo;
  std::size_t workspaceSize;
  cublasStatus_t state;
};
struct SimulatedLibrary;
using cublasLtHandle_t = SimulatedLibrary*;
using cublasLtMatmulDesc_t = cublasLtMatmulDescOpaque_t*;
using cublasLtMatrixLayout_t = cublasLtMatrixLayoutOpaque_t*;
using cublasLtMatmulPreference_t = cublasLtMatmulPreferenceOpaque_t*;

inline const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "unknown";
}
inline const char* cublasLtGetStatusString(cublasStatus_t status) { return cublasLtGetStatusName(status); }
inline cublasStatus_t cublasLtCreate(cublasLtHandle_t* library) {
  SIMULATED_CALL(cublasStatus_t);
  *library = reinterpret_cast<cublasLtHandle_t>(std::uintptr_t{1});
  ++flasheva::simulator::held;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtDestroy(cublasLtHandle_t) {
  --flasheva::simulator::held;
  return CUBLAS_STATUS_SUCCESS;
}

// --- descriptions ---------------------------------------------------------------------------------------

inline cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t operation, cublasComputeType_t compute,
                                             cudaDataType_t scale) {
  SIMULATED_CALL(cublasStatus_t);
  *operation = {compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType_t type,
                                               std::uint64_t rows, std::uint64_t columns,
                                               std::int64_t leading_dimension) {
  SIMULATED_CALL(cublasStatus_t);
  *layout = {type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), leading_dimension};
  return rows > 0 && columns > 0 && leading_dimension >= layout->rows ? CUBLAS_STATUS_SUCCESS
                                                                      : CUBLAS_STATUS_INVALID_VALUE;
}
inline cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
  SIMULATED_CALL(cublasStatus_t);
  *preference = {0, 7, {256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}

namespace flasheva::simulator {

template <class T>
cublasStatus_t assign(T& attribute, const void* value, std::size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&attribute, value, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace flasheva::simulator

inline cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                                     cublasLtMatmulDescAttributes_t attribute,
                                                     const void* value, std::size_t bytes) {
  SIMULATED_CALL(cublasStatus_t);
  using flasheva::simulator::assign;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return assign(operation->a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return assign(operation->b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return assign(operation->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return assign(operation->bias, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}
inline cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                           cublasLtMatmulPreferenceAttributes_t attribute,
                                                           const void* value, std::size_t bytes) {
  SIMULATED_CALL(cublasStatus_t);
  using flasheva::simulator::assign;
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
    return assign(preference->workspace_bytes, value, bytes);
  if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
    return assign(preference->reductions, value, bytes);
  return assign(preference->alignments[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
}

// --- algorithms -----------------------------------------------------------------------------------------

namespace flasheva::simulator {

// An algorithm. How long it takes and what the library answers of it are for tests to say.
struct Algorithm {
  bool backwards;           // adds in the opposite order
  std::int32_t parts;       // of a sum; of 16-bit results, several lose it: an algorithm that nobody may take
  double milliseconds = 0;  // 0: made up, and never the same twice: what is measured must not show in results
  cublasStatus_t check = CUBLAS_STATUS_SUCCESS, start = CUBLAS_STATUS_SUCCESS;
  std::int64_t fewest_columns = 1;  // of a result, for which it can be taken
  int starts = 0;                   // products that were begun with it
};
// As the library names them. Of long sums for few results it names the first one alone, unless no reduction
// is asked for.
inline std::array<Algorithm, 4> algorithms{{{false, 4}, {false, 1}, {true, 1}, {false, 1}}};
inline int heuristics = 0;  // how often it was asked for them

inline double duration_of(const Algorithm& algorithm) {
  static std::uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return algorithm.milliseconds > 0 ? algorithm.milliseconds : 1 + (state >> 8) * 0x1p-24;
}

// Whether descriptions make a product that there is.
inline cublasStatus_t check_product(const cublasLtMatmulDescOpaque_t& operation,
                                    const cublasLtMatrixLayoutOpaque_t& a,
                                    const cublasLtMatrixLayoutOpaque_t& b,
                                    const cublasLtMatrixLayoutOpaque_t& c,
                                    const cublasLtMatrixLayoutOpaque_t& d) {
  const auto rows = [](auto x, cublasOperation_t op) { return op == CUBLAS_OP_N ? x.rows : x.columns; };
  const auto columns = [](auto x, cublasOperation_t op) { return op == CUBLAS_OP_N ? x.columns : x.rows; };
  const bool wide = operation.compute == CUBLAS_COMPUTE_64F;
  const bool fits = rows(a, operation.a) == d.rows && columns(b, operation.b) == d.columns &&
                    columns(a, operation.a) == rows(b, operation.b) && c.rows == d.rows &&
                    c.columns == d.columns && c.type == d.type && a.type == b.type &&
                    operation.scale == (wide ? CUDA_R_64F : CUDA_R_32F) && wide == (a.type == CUDA_R_64F);
  if (!fits) return CUBLAS_STATUS_INVALID_VALUE;
  if (wide && operation.epilogue == CUBLASLT_EPILOGUE_BIAS) return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace flasheva::simulator

inline cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algorithm,
                                                           cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                           void* value, std::size_t, std::size_t* written) {
  SIMULATED_CALL(cublasStatus_t);
  const std::int32_t is = attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM
                              ? flasheva::simulator::algorithms[algorithm->number].parts
                              : CUBLASLT_REDUCTION_SCHEME_NONE;
  std::memcpy(value, &is, sizeof(is));
  *written = sizeof(is);
  return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              const cublasLtMatmulAlgo_t* algorithm,
                                              cublasLtMatmulHeuristicResult_t* result) {
  SIMULATED_CALL(cublasStatus_t);
  result->workspaceSize = 0;
  result->state = flasheva::simulator::check_product(*operation, *a, *b, *c, *d);
  if (result->state != CUBLAS_STATUS_SUCCESS) return result->state;
  const auto& checked = flasheva::simulator::algorithms[algorithm->number];
  return d->columns < checked.fewest_columns ? CUBLAS_STATUS_NOT_SUPPORTED : checked.check;
}

inline cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                                     cublasLtMatmulPreference_t preference, int most,
                                                     cublasLtMatmulHeuristicResult_t* results, int* count) {
  SIMULATED_CALL(cublasStatus_t);
  ++flasheva::simulator::heuristics;
  *count = 0;
  const cublasStatus_t status = flasheva::simulator::check_product(*operation, *a, *b, *c, *d);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const std::int64_t terms = operation->a == CUBLAS_OP_N ? a->columns : a->rows;
  const bool only_in_parts = terms >= 2048 && d->rows * d->columns < 1024;
  const auto& algorithms = flasheva::simulator::algorithms;
  for (std::size_t number = 0; number < algorithms.size() && *count < most; ++number) {
    const bool in_parts = algorithms[number].parts > 1;
    if (preference->reductions == CUBLASLT_REDUCTION_SCHEME_NONE ? in_parts : only_in_parts && !in_parts)
      continue;
    cublasLtMatmulHeuristicResult_t& result = results[(*count)++] = {};
    result.algo.number = number;
    std::memcpy(result.algo.alignments, preference->alignments, sizeof(preference->alignments));
  }
  return CUBLAS_STATUS_SUCCESS;
}

namespace flasheva::simulator {

// To the nearest of TF32's values, which have float32's exponents and 10 bits of mantissa.
inline float tf32_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits = (bits + 0x1000u) & ~0x1fffu;
  std::memcpy(&x, &bits, sizeof(bits));
  return x;
}

template <class In, class Out, class A>
void multiply_columns(const cublasLtMatmulDescOpaque_t& operation, const Algorithm& algorithm,
                      const void* alpha, const In* a, const cublasLtMatrixLayoutOpaque_t& a_layout,
                      const In* b, const cublasLtMatrixLayoutOpaque_t& b_layout, const void* beta,
                      const Out* c, Out* d, const cublasLtMatrixLayoutOpaque_t& d_layout) {
  const bool in_tf32 = operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  const auto element = [=](const In* x, const auto& layout, cublasOperation_t op, auto row, auto column) {
    const auto value = static_cast<A>(op == CUBLAS_OP_N ? x[row + column * layout.leading_dimension]
                                                        : x[column + row * layout.leading_dimension]);
    return in_tf32 ? static_cast<A>(tf32_of(static_cast<float>(value))) : value;
  };
  const A alpha_value = *static_cast<const A*>(alpha), beta_value = *static_cast<const A*>(beta);
  const std::int64_t terms = operation.a == CUBLAS_OP_N ? a_layout.columns : a_layout.rows;
  const std::int64_t added = sizeof(Out) == 2 ? terms / algorithm.parts : terms;
  for (std::int64_t column = 0; column < d_layout.columns; ++column)
    for (std::int64_t row = 0; row < d_layout.rows; ++row) {
      A sum = 0;
      for (std::int64_t k = 0; k < added; ++k) {
        const std::int64_t term = algorithm.backwards ? terms - 1 - k : k;
        sum += element(a, a_layout, operation.a, row, term) * element(b, b_layout, operation.b, term, column);
      }
      sum *= alpha_value;
      const std::int64_t place = row + column * d_layout.leading_dimension;
      if (beta_value != 0) sum += beta_value * static_cast<A>(c[place]);
      if (operation.epilogue == CUBLASLT_EPILOGUE_BIAS)
        sum += static_cast<A>(static_cast<const Out*>(operation.bias)[row]);
      d[place] = static_cast<Out>(sum);
    }
}

}  // namespace flasheva::simulator

inline cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha,
                                     const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                                     cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                                     cublasLtMatrixLayout_t c_layout, void* d,
                                     cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm,
                                     void*, std::size_t, cudaStream_t stream) {
  SIMULATED_CALL(cublasStatus_t);
  const cublasStatus_t status =
      flasheva::simulator::check_product(*operation, *a_layout, *b_layout, *c_layout, *d_layout);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  flasheva::simulator::Algorithm& chosen = flasheva::simulator::algorithms[algorithm->number];
  if (chosen.start != CUBLAS_STATUS_SUCCESS) return chosen.start;
  const void* const operands[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    if (reinterpret_cast<std::uintptr_t>(operands[i]) % algorithm->alignments[i] != 0)
      return CUBLAS_STATUS_EXECUTION_FAILED;
  if (operation->epilogue == CUBLASLT_EPILOGUE_BIAS &&
      reinterpret_cast<std::uintptr_t>(operation->bias) % 16 != 0)
    return CUBLAS_STATUS_EXECUTION_FAILED;
  struct Scalar {
    alignas(double) std::byte bytes[sizeof(double)];
  };
  const auto scalar = [&](const void* value) {
    Scalar copy;
    std::memcpy(copy.bytes, value, operation->scale == CUDA_R_64F ? sizeof(double) : sizeof(float));
    return copy;
  };
  const auto run = [=, what = *operation, how = chosen, a_shape = *a_layout, b_shape = *b_layout,
                    d_shape = *d_layout, alpha_value = scalar(alpha),
                    beta_value = scalar(beta)]<class In, class Out, class A>(In, Out, A) {
    const flasheva::simulator::Access access;
    flasheva::simulator::multiply_columns<In, Out, A>(
        what, how, alpha_value.bytes, static_cast<const In*>(a), a_shape, static_cast<const In*>(b), b_shape,
        beta_value.bytes, static_cast<const Out*>(c), static_cast<Out*>(d), d_shape);
  };
  const cudaDataType_t in = a_layout->type, out = d_layout->type;
  const auto run_narrow = [=]<class T>(T) {
    return out == CUDA_R_32F ? run(T{}, float{}, float{}) : run(T{}, T{}, float{});
  };
  ++chosen.starts;
  const cudaError_t given = enqueue(stream, [=, duration = flasheva::simulator::duration_of(chosen)] {
    flasheva::simulator::milliseconds += duration;
    if (in == CUDA_R_64F) return run(double{}, double{}, double{});
    if (in == CUDA_R_32F) return run(float{}, float{}, float{});
    return in == CUDA_R_16F ? run_narrow(flasheva::f16{}) : run_narrow(flasheva::bf16{});
  });
  return given == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
