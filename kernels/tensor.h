// A non-owning view of memory: pointer, element type, shape and device. Copying a Tensor copies the view.
// Elements are contiguous in row-major order. Buffer (buffer.h) owns the memory behind views.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/bf16.h"
#include "kernels/f16.h"

namespace flasheva {

enum class Device : std::uint8_t { cpu, cuda };

enum class DType : std::uint8_t { f32, bf16, f16, f64, i32, u8 };

constexpr std::size_t size_in_bytes(DType type) {
  switch (type) {
    case DType::f32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::f64:
      return 8;
    case DType::i32:
      return 4;
    case DType::u8:
      return 1;
  }
  return 0;
}

constexpr const char* name_of(DType type) {
  constexpr const char* names[] = {"float32", "bfloat16", "float16", "float64", "int32", "uint8"};
  return names[static_cast<int>(type)];
}

// The types of 16 bits, for weights and activations whose float32 values are kept elsewhere.
constexpr bool is_low_precision(DType type) { return type == DType::bf16 || type == DType::f16; }

// The type that sums, statistics and parameter gradients have when the operands are of `type`.
constexpr DType accumulation_type(DType type) { return type == DType::f64 ? DType::f64 : DType::f32; }

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<f16> {
  static constexpr DType value = DType::f16;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};

// Up to four dimensions, outermost first.
class Shape {
 public:
  static constexpr int max_rank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) {
    assert(dims.size() <= max_rank);
    for (std::int64_t dim : dims) dims_[rank_++] = dim;
  }

  int rank() const { return rank_; }
  std::int64_t operator[](int i) const {
    assert(i < rank_);
    return dims_[i];
  }
  std::int64_t size() const {
    std::int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= dims_[i];
    return product;
  }
  bool operator==(const Shape& other) const { return rank_ == other.rank_ && dims_ == other.dims_; }

 private:
  std::array<std::int64_t, max_rank> dims_{};
  int rank_ = 0;
};

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;
  Device device = Device::cpu;

  // False for an absent tensor: an optional argument left out, or the gradient of a frozen parameter.
  explicit operator bool() const { return data != nullptr; }

  std::int64_t size() const { return shape.size(); }
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * size_in_bytes(dtype); }
  std::int64_t dim(int i) const { return shape[i]; }

  // The elements, typed; the type must be the tensor's own.
  template <class T>
  T* as() const {
    assert(data == nullptr || dtype == DTypeOf<T>::value);
    return static_cast<T*>(data);
  }

  // The same elements under another shape of the same size.
  Tensor reshaped(Shape other) const {
    assert(other.size() == shape.size());
    return Tensor{data, dtype, other, device};
  }

  // Rows first .. first + count - 1 of the outermost dimension of a matrix or vector.
  Tensor rows(std::int64_t first, std::int64_t count) const {
    assert(shape.rank() <= 2 && first >= 0 && first + count <= shape[0]);
    const std::int64_t width = shape.rank() == 2 ? shape[1] : 1;
    auto* start = static_cast<std::byte*>(data) + first * width * size_in_bytes(dtype);
    return Tensor{start, dtype, shape.rank() == 2 ? Shape{count, width} : Shape{count}, device};
  }
};

// A view of host memory of a known type.
template <class T>
Tensor view_of(T* data, Shape shape) {
  return Tensor{data, DTypeOf<T>::value, shape, Device::cpu};
}

}  // namespace flasheva
