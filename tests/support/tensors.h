// Owning tensors for tests, their comparison, and central differences.
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "kernels/tensor.h"

namespace flasheva {

// For a test's inputs. They are the same in every run, or others for every number in FLASHEVA_TEST_SEED.
inline std::mt19937_64 generator_of_inputs(std::uint64_t test) {
  const char* seed = std::getenv("FLASHEVA_TEST_SEED");
  return std::mt19937_64(test + 1'000'003 * std::strtoull(seed != nullptr ? seed : "0", nullptr, 10));
}

// Host memory behind a Tensor. Fresh memory is poisoned with NaN bytes, so that an output never written
// shows.
class TestTensor {
 public:
  TestTensor() = default;
  TestTensor(DType dtype, Shape shape)
      : memory_(static_cast<std::size_t>(shape.size()) * size_in_bytes(dtype), std::byte{0xff}),
        dtype_(dtype),
        shape_(shape) {}

  static TestTensor random(DType dtype, Shape shape, std::mt19937_64& generator, double scale = 1,
                           double mean = 0) {
    TestTensor out(dtype, shape);
    std::normal_distribution<double> normal(mean, scale);
    for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, normal(generator));
    return out;
  }
  static TestTensor zeros(DType dtype, Shape shape) {
    TestTensor out(dtype, shape);
    std::fill(out.memory_.begin(), out.memory_.end(), std::byte{0});
    return out;
  }
  static TestTensor random_tokens(Shape shape, std::int32_t vocabulary, std::mt19937_64& generator) {
    TestTensor out(DType::i32, shape);
    std::uniform_int_distribution<std::int32_t> uniform(0, vocabulary - 1);
    for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, uniform(generator));
    return out;
  }

  // The same values rounded to another type.
  TestTensor converted(DType dtype) const {
    TestTensor out(dtype, shape_);
    for (std::int64_t i = 0; i < size(); ++i) out.set(i, get(i));
    return out;
  }

  operator Tensor() { return memory_.empty() ? Tensor{} : view(); }
  Tensor view() { return Tensor{memory_.data(), dtype_, shape_, Device::cpu}; }
  const Shape& shape() const { return shape_; }
  std::int64_t size() const { return shape_.size(); }

  double get(std::int64_t i) const {
    switch (dtype_) {
      case DType::f32:
        return read<float>(i);
      case DType::bf16:
        return static_cast<float>(read<bf16>(i));
      case DType::f16:
        return static_cast<float>(read<f16>(i));
      case DType::f64:
        return read<double>(i);
      case DType::i32:
        return read<std::int32_t>(i);
      case DType::u8:
        return read<std::uint8_t>(i);
    }
    return 0;
  }
  void set(std::int64_t i, double value) {
    switch (dtype_) {
      case DType::f32:
        return write(i, static_cast<float>(value));
      case DType::bf16:
        return write(i, bf16(static_cast<float>(value)));
      case DType::f16:
        return write(i, f16(static_cast<float>(value)));
      case DType::f64:
        return write(i, value);
      case DType::i32:
        return write(i, static_cast<std::int32_t>(value));
      case DType::u8:
        return write(i, static_cast<std::uint8_t>(value));
    }
  }

 private:
  template <class T>
  T read(std::int64_t i) const {
    T value;
    std::memcpy(&value, memory_.data() + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    return value;
  }
  template <class T>
  void write(std::int64_t i, T value) {
    std::memcpy(memory_.data() + i * static_cast<std::int64_t>(sizeof(T)), &value, sizeof(T));
  }

  std::vector<std::byte> memory_;
  DType dtype_ = DType::f32;
  Shape shape_;
};

inline constexpr DType low_precisions[] = {DType::bf16, DType::f16};

// Rounding to bfloat16 or float16, for formulas done plainly in it.
struct RoundTo {
  DType dtype;

  double operator()(double x) const {
    const auto narrow = static_cast<float>(x);
    return dtype == DType::bf16 ? static_cast<float>(bf16(narrow)) : static_cast<float>(f16(narrow));
  }
};

// ||x - reference|| / ||reference|| over all elements; infinite where anything is not finite. A reference of
// zeros gives the plain norm of x.
inline double relative_error(const TestTensor& x, const TestTensor& reference) {
  if (x.size() != reference.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    difference += (x.get(i) - reference.get(i)) * (x.get(i) - reference.get(i));
    norm += reference.get(i) * reference.get(i);
  }
  const double error = std::sqrt(difference) / (norm > 0 ? std::sqrt(norm) : 1.0);
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

// The sum of x * weights: a scalar whose gradient with respect to x is `weights`.
inline double dot(const TestTensor& x, const TestTensor& weights) {
  double sum = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) sum += x.get(i) * weights.get(i);
  return sum;
}

// d loss / d input by central differences in float64, element by element. `input` is restored.
inline TestTensor central_differences(TestTensor& input, const std::function<double()>& loss,
                                      double step = 1e-5) {
  TestTensor gradient(DType::f64, input.shape());
  for (std::int64_t i = 0; i < input.size(); ++i) {
    const double value = input.get(i);
    input.set(i, value + step);
    const double above = loss();
    input.set(i, value - step);
    const double below = loss();
    input.set(i, value);
    gradient.set(i, (above - below) / (2 * step));
  }
  return gradient;
}

}  // namespace flasheva
