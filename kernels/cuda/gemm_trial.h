// Matrix products on trial: which algorithms add in the same order, told by the bits of what they give.
#pragma once

#include <compare>

#include "kernels/cuda/owned.h"
#include "kernels/tensor.h"

namespace flasheva {

// What a product's algorithm is chosen for. Alignments, in bytes, are those of every row.
struct Product {
  std::int64_t m, n, k;
  bool a_transposed, b_transposed;
  DType in, out;
  bool bias, accumulate, tf32;
  std::uint32_t a_alignment, b_alignment, out_alignment, bias_alignment;
  auto operator<=>(const Product&) const = default;
};

// Where a product's matrices are: d = a b + bias, or c + a b.
struct Operands {
  const void *a, *b, *bias, *c;
  void* d;
};

// Operands of its own for a product, and room for two results.
class ProductTrial {
 public:
  ProductTrial(cudaStream_t stream, const Product& product);

  // Whether there was memory for it.
  explicit operator bool() const { return memory_ != nullptr; }
  // The operands and one result or the other, which both start from the same numbers.
  Operands first() const { return operands_for(first_); }
  Operands second() const { return operands_for(second_); }
  // Whether the results have the same bits.
  bool are_equal() const;

 private:
  Operands operands_for(const Tensor& result) const;

  cudaStream_t stream_;
  Tensor a_, b_, bias_, first_, second_, differ_;
  CudaMemory<std::byte> memory_;
};

}  // namespace flasheva
