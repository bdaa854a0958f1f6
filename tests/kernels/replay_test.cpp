// Operations that are recorded and replayed against the same operations called one by one.
#include <gtest/gtest.h>

#include <cstring>
#include <optional>

#include "tests/support/device_tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

bool same_bits(TestTensor a, TestTensor b) {
  const Tensor x = a, y = b;
  return x.bytes() == y.bytes() && std::memcmp(x.data, y.data, x.bytes()) == 0;
}

constexpr std::int64_t rows = 300, width = 24;

// sums += column sums of gelu(x weight^T + bias): a product, a kernel, and one with scratch memory.
class ReplayTest : public testing::Test {
 protected:
  DeviceTensor random(Shape shape) {
    TestTensor values = TestTensor::random(DType::f32, shape, generator_);
    return DeviceTensor(*ops_, values.view());
  }
  void run(const Tensor& sums) {
    ops_->linear_forward(hidden_, x_, weight_, bias_);
    ops_->gelu_forward(out_, hidden_);
    ops_->linear_backward_weight({}, sums, out_, x_);
  }
  // The sums for another x, replayed and not.
  void expect_the_same_bits() {
    TestTensor values = TestTensor::random(DType::f32, {rows, width}, generator_);
    ops_->copy(x_, values);
    for (const Tensor& sums : {Tensor(replayed_), Tensor(plain_)}) ops_->zero(sums);
    ops_->replay(graph_, [&] { run(replayed_); });
    run(plain_);
    EXPECT_TRUE(same_bits(copy_of(*ops_, replayed_), copy_of(*ops_, plain_)));
  }

  std::mt19937_64 generator_ = generator_of_inputs(7);
  std::unique_ptr<Ops> ops_ = make_device_ops();
  DeviceTensor x_ = random({rows, width}), weight_ = random({width, width}), bias_ = random({width});
  DeviceTensor hidden_ = random({rows, width}), out_ = random({rows, width});
  DeviceTensor replayed_ = random({width}), plain_ = random({width});
  std::unique_ptr<OperationGraph> graph_;
};

TEST_F(ReplayTest, GivesWhatTheCallsGive) {
  for (int i = 0; i < 5; ++i) expect_the_same_bits();
}

// What is recorded must not write to scratch memory that has been given back.
TEST_F(ReplayTest, KnowsThatScratchMemoryHasGrown) {
  for (int i = 0; i < 3; ++i) expect_the_same_bits();
  const DeviceTensor wide = random({rows, 40 * width}), sums = random({40 * width});
  ops_->linear_backward_weight({}, sums, wide, wide);
  const DeviceTensor other = random({width}), another = random({rows, width});
  const TestTensor before = copy_of(*ops_, other), before_too = copy_of(*ops_, another);
  for (int i = 0; i < 3; ++i) expect_the_same_bits();
  EXPECT_TRUE(same_bits(copy_of(*ops_, other), before));
  EXPECT_TRUE(same_bits(copy_of(*ops_, another), before_too));
}

// Nor to memory that was lent and has been taken back, or has been lent since.
TEST_F(ReplayTest, KnowsThatOtherScratchMemoryIsLent) {
  const Shape size{33 << 20};
  std::optional<DeviceTensor> lent(std::in_place, *ops_, DType::u8, size);
  for (int turn = 0; turn < 2; ++turn) {
    ops_->lend_scratch({*lent, {}});
    for (int i = 0; i < 3; ++i) expect_the_same_bits();
    ops_->lend_scratch({});
    lent.emplace(*ops_, DType::u8, size);
    const TestTensor before = copy_of(*ops_, *lent);
    for (int i = 0; i < 3; ++i) expect_the_same_bits();
    EXPECT_TRUE(same_bits(copy_of(*ops_, *lent), before));
  }
}

TEST_F(ReplayTest, FindsTokensBeyondTheVocabulary) {
  const DeviceTensor tokens(*ops_, DType::i32, {4}), out = random({4, width});
  std::unique_ptr<OperationGraph> graph;
  const auto run_with = [&](double token) {
    TestTensor values = TestTensor::zeros(DType::i32, {4});
    values.set(2, token);
    ops_->copy(tokens, values);
    ops_->replay(graph, [&] { ops_->embedding_forward(out, tokens, weight_); });
    ops_->synchronize();
  };
  for (int i = 0; i < 3; ++i) {
    EXPECT_NO_THROW(run_with(width - 1));
    EXPECT_THROW(run_with(width), std::logic_error);
  }
}

TEST_F(ReplayTest, RefusesOperationsThatWait) {
  std::unique_ptr<OperationGraph> waiting;
  const auto replay = [&] { ops_->replay(waiting, [&] { ops_->sum_of_squares(x_); }); };
  replay();
  if (ops_->device() == Device::cpu)
    EXPECT_NO_THROW(replay());
  else
    EXPECT_THROW(replay(), std::runtime_error);
  for (int i = 0; i < 3; ++i) expect_the_same_bits();  // nothing is spoiled
}

}  // namespace
}  // namespace flasheva
