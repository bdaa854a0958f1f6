#include <cmath>

#include "tests/kernels/operation_test.h"

namespace flasheva {
namespace {

class FirstNotFiniteTest : public testing::Test {
 protected:
  // Three tensors of ones, the second of so many elements.
  std::vector<TestTensor> ones(DType dtype, std::int64_t size) const {
    return {filled(dtype, {3, 5}, 1), filled(dtype, {size}, 1), filled(DType::f32, {7}, 1)};
  }
  std::int32_t run(std::vector<TestTensor>& tensors) {
    const std::vector<Tensor> views(tensors.begin(), tensors.end());
    TestTensor first(DType::i32, {1});
    ops_->first_not_finite(first, views);
    return static_cast<std::int32_t>(first.get(0));
  }

  std::unique_ptr<Ops> ops_ = make_test_ops();
};

TEST_F(FirstNotFiniteTest, NamesTheFirstWhereverItsValueStands) {
  for (const DType dtype : on_this_device({DType::f32, DType::bf16, DType::f16, DType::f64}))
    for (const std::int64_t size : {1, 33, 20000})
      for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        SCOPED_TRACE(std::string(name_of(dtype)) + " " + std::to_string(size));
        std::vector<TestTensor> tensors = ones(dtype, size);
        EXPECT_EQ(run(tensors), -1);
        tensors[2].set(6, value);
        EXPECT_EQ(run(tensors), 2);
        for (const std::int64_t place : {std::int64_t{0}, size / 2, size - 1}) {
          tensors[1] = filled(dtype, {size}, 1);
          tensors[1].set(place, value);
          EXPECT_EQ(run(tensors), 1) << place;
        }
        tensors[0].set(14, value);
        EXPECT_EQ(run(tensors), 0);
      }
}

// More than one launch looks at; their types change on the way.
TEST_F(FirstNotFiniteTest, NamesTheFirstOfMany) {
  std::vector<TestTensor> tensors;
  for (int i = 0; i < 500; ++i)
    tensors.push_back(filled(i / 150 % 2 == 0 ? DType::bf16 : DType::f32, {3}, 1));
  for (const std::int32_t place : {499, 498, 449, 301, 300, 299, 150, 149, 0}) {
    tensors[static_cast<std::size_t>(place)].set(1, HUGE_VAL);
    EXPECT_EQ(run(tensors), place);
  }
}

TEST_F(FirstNotFiniteTest, TakesAllAsFiniteWhereTheLastIs) {
  std::vector<TestTensor> tensors = ones(DType::f32, 10);
  tensors[0].set(0, std::nan(""));
  EXPECT_EQ(run(tensors), -1);
  tensors.resize(1);
  EXPECT_EQ(run(tensors), 0);
}

TEST_F(FirstNotFiniteTest, LargeValuesAreFinite) {
  std::vector<TestTensor> tensors = ones(DType::f32, 10);
  tensors[2].set(1, 3e38);
  EXPECT_EQ(run(tensors), -1);
}

TEST_F(FirstNotFiniteTest, RefusesWrongShapesAndTypes) {
  TestTensor x = filled(DType::f32, {3}, 1), first(DType::i32, {1}), two(DType::i32, {2});
  const Tensor one[] = {x}, whole_numbers[] = {two};
  EXPECT_THROW(ops_->first_not_finite(two, one), std::logic_error);
  EXPECT_THROW(ops_->first_not_finite(x, one), std::logic_error);
  EXPECT_THROW(ops_->first_not_finite(first, {}), std::logic_error);
  EXPECT_THROW(ops_->first_not_finite(first, whole_numbers), std::logic_error);
}

}  // namespace
}  // namespace flasheva
