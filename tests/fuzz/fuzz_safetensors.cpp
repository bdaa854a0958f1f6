// Any bytes are either refused with an Error or give tensors that tile the data and convert without a fault.
#include <cstdint>
#include <cstdlib>

#include "src/core/error.h"
#include "src/io/safetensors.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

bool is_floating(flasheva::StoredType type) {
  using enum flasheva::StoredType;
  return type == F64 || type == F32 || type == F16 || type == BF16;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace flasheva;
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    std::size_t covered = 0;
    for (const auto& [name, tensor] : parse_safetensors(bytes, "input").tensors) {
      require(tensor.data.size() == static_cast<std::size_t>(tensor.size()) * size_in_bytes(tensor.dtype));
      require(tensor.data.empty() ||
              (tensor.data.data() >= bytes.data() &&
               tensor.data.data() + tensor.data.size() <= bytes.data() + bytes.size()));
      covered += tensor.data.size();
      if (is_floating(tensor.dtype))
        require(convert_elements(tensor, StoredType::F16).size() ==
                2 * static_cast<std::size_t>(tensor.size()));
    }
    require(covered <= size);
  } catch (const Error& error) {
    require(error.code() == ExitCode::data);
  }
  return 0;
}
