// Every case of operations.safetensors, made by PyTorch's autograd in float64 (tests/fixtures).
#include <nlohmann/json.hpp>

#include "src/io/safetensors.h"
#include "tests/kernels/operations.h"

namespace flasheva {
namespace {

const SafetensorsReader& fixtures() {
  static const SafetensorsReader reader(std::filesystem::path(FLASHEVA_FIXTURES) / "operations.safetensors");
  return reader;
}

DType type_of(StoredType stored) {
  return stored == StoredType::I32 ? DType::i32 : stored == StoredType::U8 ? DType::u8 : DType::f64;
}

// The tensors CASE.NAME, by NAME.
Tensors tensors_of(const std::string& case_name) {
  Tensors tensors;
  for (const auto& [name, stored] : fixtures().tensors()) {
    if (!name.starts_with(case_name + ".")) continue;
    Shape shape;
    switch (stored.shape.size()) {
      case 1:
        shape = {stored.shape[0]};
        break;
      case 2:
        shape = {stored.shape[0], stored.shape[1]};
        break;
      case 3:
        shape = {stored.shape[0], stored.shape[1], stored.shape[2]};
        break;
      default:
        shape = {stored.shape.at(0), stored.shape.at(1), stored.shape.at(2), stored.shape.at(3)};
    }
    TestTensor tensor(type_of(stored.dtype), shape);
    std::memcpy(tensor.view().data, stored.data.data(), stored.data.size());
    tensors.emplace(name.substr(case_name.size() + 1), tensor);
  }
  return tensors;
}

Scalars scalars_of(const std::string& case_name) {
  return nlohmann::json::parse(fixtures().metadata().at(case_name)).get<Scalars>();
}

class PyTorchTest : public testing::TestWithParam<const Operation*> {
 protected:
  // Both sides compute in float64, in another order: 1e-12 is a thousand roundings. In float32 the inputs'
  // own rounding comes in, 2^-24 of values up to a hundred times their spread.
  void expect_agreement(const Operation& operation, const std::string& name, DType dtype) {
    const Tensors fixture = tensors_of(name);
    for (const auto& [result_name, result] : operation.run(*ops_, dtype, fixture, scalars_of(name), 0)) {
      if (fixture.count(result_name) == 0) continue;
      const double bound = dtype == DType::f64 ? 1e-12 : 1e-5;
      EXPECT_LE(error_of(result, fixture.at(result_name)), bound)
          << name << ' ' << result_name << ' ' << name_of(dtype);
    }
  }

 private:
  std::unique_ptr<Ops> ops_ = make_test_ops();
};

TEST_P(PyTorchTest, AgreesInEveryCase) {
  const Operation& operation = *GetParam();
  int cases = 0;
  while (true) {
    const std::string name = operation.name + '.' + std::to_string(cases);
    if (fixtures().metadata().count(name) == 0) break;
    for (const DType dtype : on_this_device({DType::f64, DType::f32}))
      expect_agreement(operation, name, dtype);
    ++cases;
  }
  EXPECT_GE(cases, 2);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, PyTorchTest,
                         testing::Values(&embedding, &layernorm, &linear, &gelu, &qkv_rotary, &cross_entropy),
                         [](const auto& info) { return info.param->name; });

TEST(PyTorchAdamWTest, AgreesOverThreeSteps) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  for (const std::string name : {"adamw.0", "adamw.1"}) {
    Tensors fixture = tensors_of(name);
    Scalars scalars = scalars_of(name);
    AdamWConfig config{scalars.at("lr"),
                       scalars.at("beta1"),
                       scalars.at("beta2"),
                       scalars.at("eps"),
                       1,
                       scalars.at("gradient_scale")};
    for (const DType dtype : on_this_device({DType::f64, DType::f32})) {
      TestTensor weight = fixture.at("weight").converted(dtype);
      TestTensor m = TestTensor::zeros(dtype, weight.shape()), v = m;
      const double bound = dtype == DType::f64 ? 1e-12 : 1e-5;
      for (config.step = 1; config.step <= 3; ++config.step) {
        const std::string step = '.' + std::to_string(config.step);
        TestTensor gradient = fixture.at("gradient" + step).converted(dtype);
        const AdamWParameter parameter{weight, {}, m, v, gradient, scalars.at("weight_decay")};
        ops->adamw({&parameter, 1}, config);
        EXPECT_LE(relative_error(weight, fixture.at("weight" + step)), bound) << name << step;
        EXPECT_LE(relative_error(m, fixture.at("m" + step)), bound) << name << step;
        EXPECT_LE(relative_error(v, fixture.at("v" + step)), bound) << name << step;
      }
    }
  }
}

}  // namespace
}  // namespace flasheva
