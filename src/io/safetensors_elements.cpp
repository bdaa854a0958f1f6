#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/check.h"
#include "src/core/error.h"
#include "src/core/pieces_done.h"
#include "src/io/safetensors.h"

namespace flasheva {

namespace {

// Rounds to odd: the last bit records that something was cut off, so that rounding again to a narrower type
// gives what rounding once would have given.
float sticky_float(double value) {
  const auto nearest = static_cast<float>(value);
  if (!(nearest != value) || std::isnan(value)) return nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(value)) --bits;
  return std::bit_cast<float>(bits | 1u);
}

// What the narrow types are rounded from.
float narrowable(float value) { return value; }
float narrowable(double value) { return sticky_float(value); }

// Exact where `Out` has the value, else the nearest, ties to even.
template <class Out, class In>
Out convert_element(In in) {
  if constexpr (sizeof(In) == 2)
    return convert_element<Out>(static_cast<float>(in));
  else if constexpr (sizeof(Out) == 2)
    return Out(narrowable(in));
  else
    return static_cast<Out>(in);
}

// Elements in the file may stand at any address.
template <class Out, class In>
void convert_all(std::byte* out, const std::byte* in, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    In element;
    std::memcpy(&element, in + i * sizeof(In), sizeof(In));
    const Out converted = convert_element<Out>(element);
    std::memcpy(out + i * sizeof(Out), &converted, sizeof(Out));
  }
}

// False where the stored type is not a floating type.
template <class Out>
bool convert_from(std::byte* out, const StoredTensor& in) {
  const std::int64_t count = in.size();
  switch (in.dtype) {
    case StoredType::F64:
      convert_all<Out, double>(out, in.data.data(), count);
      return true;
    case StoredType::F32:
      convert_all<Out, float>(out, in.data.data(), count);
      return true;
    case StoredType::F16:
      convert_all<Out, f16>(out, in.data.data(), count);
      return true;
    case StoredType::BF16:
      convert_all<Out, bf16>(out, in.data.data(), count);
      return true;
    default:
      return false;
  }
}

template <class In>
void load_int32(std::int32_t* out, const StoredTensor& in, const std::string& where) {
  for (std::int64_t i = 0, count = in.size(); i < count; ++i) {
    In element;
    std::memcpy(&element, in.data.data() + i * sizeof(In), sizeof(In));
    out[i] = static_cast<std::int32_t>(element);
    if (out[i] != element)
      fail(ExitCode::data, "{}: element {}, {}, does not fit 32 bits", where, i, element);
  }
}

bool load_elements(Tensor out, const StoredTensor& in, const std::string& where) {
  auto* bytes = static_cast<std::byte*>(out.data);
  switch (out.dtype) {
    case DType::f32:
      return convert_from<float>(bytes, in);
    case DType::f64:
      return convert_from<double>(bytes, in);
    case DType::bf16:
      return convert_from<bf16>(bytes, in);
    case DType::f16:
      return convert_from<f16>(bytes, in);
    case DType::i32:
      if (in.dtype == StoredType::I32) load_int32<std::int32_t>(out.as<std::int32_t>(), in, where);
      if (in.dtype == StoredType::I64) load_int32<std::int64_t>(out.as<std::int32_t>(), in, where);
      return in.dtype == StoredType::I32 || in.dtype == StoredType::I64;
    case DType::u8:
      return false;
  }
  return false;
}

std::vector<std::int64_t> dims_of(const Shape& shape) {
  std::vector<std::int64_t> dims;
  for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
  return dims;
}

}  // namespace

void load_tensor(Tensor out, const StoredTensor& stored, const std::string& where) {
  FLASHEVA_CHECK(out && out.device == Device::cpu);
  if (dims_of(out.shape) != stored.shape)
    fail(ExitCode::data, "{}: shape [{}] in the file, [{}] expected", where, fmt::join(stored.shape, ", "),
         fmt::join(dims_of(out.shape), ", "));
  if (!load_elements(out, stored, where))
    fail(ExitCode::data, "{}: stored as {}, which does not convert to {}", where, name_of(stored.dtype),
         name_of(out.dtype));
  ++pieces_done;
}

std::vector<std::byte> convert_elements(const StoredTensor& in, StoredType out_type) {
  std::vector<std::byte> out(static_cast<std::size_t>(in.size()) * size_in_bytes(out_type));
  bool converted = false;
  if (out_type == StoredType::F32) converted = convert_from<float>(out.data(), in);
  if (out_type == StoredType::F16) converted = convert_from<f16>(out.data(), in);
  if (out_type == StoredType::BF16) converted = convert_from<bf16>(out.data(), in);
  FLASHEVA_CHECK(converted);
  return out;
}

}  // namespace flasheva
