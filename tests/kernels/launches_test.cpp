// How many kernels an operation on many tensors starts.
#include <gtest/gtest.h>

#include "tests/cuda_simulator/simulator.h"
#include "tests/support/device_tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

// As many tensors as Pythia 160M has with FlashEVA attention.
class LaunchesTest : public testing::Test {
 protected:
  static constexpr std::int64_t tensors = 200, size = 33;

  Tensor part(const DeviceTensor& all, std::int64_t i) const { return Tensor(all).rows(i * size, size); }
  int launches_since(int before) const { return simulator::launches - before; }

  std::unique_ptr<Ops> ops_ = make_device_ops();
  const DeviceTensor weights_{*ops_, DType::f32, {tensors * size}},
      copies_{*ops_, DType::bf16, {tensors * size}}, m_{*ops_, DType::f32, {tensors * size}},
      v_{*ops_, DType::f32, {tensors * size}}, gradients_{*ops_, DType::f32, {tensors * size}};
};

TEST_F(LaunchesTest, AStepOfAdamWTakesFour) {
  for (const Tensor& all : {Tensor(weights_), Tensor(m_), Tensor(v_), Tensor(gradients_)}) ops_->zero(all);
  std::vector<AdamWParameter> parameters;
  for (std::int64_t i = 0; i < tensors; ++i)
    parameters.push_back(
        {part(weights_, i), part(copies_, i), part(m_, i), part(v_, i), part(gradients_, i), 0.1});
  const int before = simulator::launches;
  ops_->adamw(parameters, {});
  EXPECT_EQ(launches_since(before), 4);
  ops_->adamw({}, {});
  EXPECT_EQ(launches_since(before), 4);
}

TEST_F(LaunchesTest, TheNormOfAllGradientsTakesFour) {
  ops_->zero(gradients_);
  std::vector<Tensor> parts;
  for (std::int64_t i = 0; i < tensors; ++i) parts.push_back(part(gradients_, i));
  std::vector<double> sums(parts.size());
  const int before = simulator::launches;
  ops_->sums_of_squares(sums, parts);
  EXPECT_EQ(launches_since(before), 4);
}

TEST_F(LaunchesTest, TheSearchForValuesThatAreNotFiniteTakesThree) {
  const DeviceTensor first(*ops_, DType::i32, {1});
  ops_->zero(gradients_);
  std::vector<Tensor> parts;
  for (std::int64_t i = 0; i < tensors; ++i) parts.push_back(part(gradients_, i));
  const int before = simulator::launches;
  ops_->first_not_finite(first, parts);
  EXPECT_EQ(launches_since(before), 3);
}

}  // namespace
}  // namespace flasheva
