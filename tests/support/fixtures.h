// Committed fixtures as TestTensors.
#pragma once

#include <filesystem>
#include <string>

#include "src/io/safetensors.h"
#include "tests/support/tensors.h"

namespace flasheva {

inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(FLASHEVA_FIXTURES) / name;
}

// A stored tensor of up to two dimensions (more are flattened), converted to `dtype`.
inline TestTensor fixture_tensor(const SafetensorsReader& file, const std::string& name, DType dtype) {
  const StoredTensor& stored = file.at(name);
  StoredTensor flat = stored;
  flat.shape = {stored.size()};
  TestTensor out(dtype, Shape{stored.size()});
  load_tensor(out, flat, name);
  return out;
}

}  // namespace flasheva
