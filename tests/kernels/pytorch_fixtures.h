// Cases of tests/fixtures/operations.safetensors: float64 values of PyTorch's autograd.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/io/safetensors.h"
#include "tests/support/tensors.h"

namespace flasheva {

class PyTorchFixtures {
 public:
  PyTorchFixtures() : reader_(std::filesystem::path(FLASHEVA_FIXTURES) / "operations.safetensors") {}

  // The names of an operation's cases: OPERATION.0, OPERATION.1, ..
  std::vector<std::string> cases(const std::string& operation) const {
    std::vector<std::string> names;
    for (const auto& [name, scalars] : reader_.metadata())
      if (name.starts_with(operation + ".")) names.push_back(name);
    return names;
  }

  nlohmann::json scalars(const std::string& case_name) const {
    return nlohmann::json::parse(reader_.metadata().at(case_name));
  }

  // An absent tensor where the case has none of this name.
  TestTensor tensor(const std::string& case_name, const std::string& name) const {
    const std::string full_name = case_name + "." + name;
    if (!reader_.contains(full_name)) return {};
    const StoredTensor& stored = reader_.at(full_name);
    const auto& s = stored.shape;
    TestTensor out(DType::f64, s.size() == 4   ? Shape{s[0], s[1], s[2], s[3]}
                               : s.size() == 3 ? Shape{s[0], s[1], s[2]}
                               : s.size() == 2 ? Shape{s[0], s[1]}
                                               : Shape{s.at(0)});
    load_tensor(out, stored, full_name);
    return out;
  }

 private:
  SafetensorsReader reader_;
};

}  // namespace flasheva
