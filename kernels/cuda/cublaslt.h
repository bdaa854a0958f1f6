// What gemm.cu says to cuBLASLt, and the library's errors, thrown. Descriptors are plain values here.
#pragma once

#include <cublasLt.h>

#include "kernels/cuda/owned.h"
#include "kernels/tensor.h"

namespace flasheva {

inline void check_cublas(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw CudaError(std::string(file) + ":" + std::to_string(line) + ": " + call + ": " +
                  cublasLtGetStatusName(status) + ": " + cublasLtGetStatusString(status));
}

// The same, but false for an error that the caller expects and goes on after.
inline bool check_cublas_unless(std::initializer_list<cublasStatus_t> expected, cublasStatus_t status,
                                const char* call, const char* file, int line) {
  if (std::find(expected.begin(), expected.end(), status) != expected.end()) return false;
  check_cublas(status, call, file, line);
  return true;
}

}  // namespace flasheva

#define FLASHEVA_CUBLAS(call) ::flasheva::check_cublas((call), #call, __FILE__, __LINE__)
// FLASHEVA_CUBLAS_UNLESS(call, errors...): whether it succeeded; only other errors than these are thrown.
#define FLASHEVA_CUBLAS_UNLESS(call, ...) \
  ::flasheva::check_cublas_unless({__VA_ARGS__}, (call), #call, __FILE__, __LINE__)

namespace flasheva {

using CublasLibrary = Owned<cublasLtHandle_t, cublasLtDestroy>;

inline CublasLibrary make_cublas_library() {
  cublasLtHandle_t library = nullptr;
  FLASHEVA_CUBLAS(cublasLtCreate(&library));
  return CublasLibrary(library);
}

template <class T>
void set(cublasLtMatmulDescOpaque_t& operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  FLASHEVA_CUBLAS(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof(value)));
}
template <class T>
void set(cublasLtMatmulPreferenceOpaque_t& preference, cublasLtMatmulPreferenceAttributes_t attribute,
         const T& value) {
  FLASHEVA_CUBLAS(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value)));
}
template <class T>
T get(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  T value{};
  std::size_t written = 0;
  FLASHEVA_CUBLAS(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof(T), &written));
  return value;
}

// Of a matrix stored row by row, as the library sees it: its columns are our rows.
inline cublasLtMatrixLayoutOpaque_t make_layout(DType type, std::int64_t rows, std::int64_t columns) {
  const cudaDataType_t element = type == DType::f32    ? CUDA_R_32F
                                 : type == DType::bf16 ? CUDA_R_16BF
                                 : type == DType::f16  ? CUDA_R_16F
                                                       : CUDA_R_64F;
  cublasLtMatrixLayoutOpaque_t layout{};
  FLASHEVA_CUBLAS(cublasLtMatrixLayoutInit(&layout, element, static_cast<std::uint64_t>(columns),
                                           static_cast<std::uint64_t>(rows), columns));
  return layout;
}

}  // namespace flasheva
