#include <cmath>
#include <limits>

#include "tests/kernels/operation_test.h"

namespace flasheva {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

// By the definition, for rows of any floating type.
std::vector<std::int32_t> plain(const TestTensor& logits) {
  const std::int64_t rows = logits.shape()[0], vocabulary = logits.shape()[1];
  std::vector<std::int32_t> tokens;
  for (std::int64_t n = 0; n < rows; ++n) {
    std::int64_t best = 0;
    bool nan = false;
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      const double z = logits.get(n * vocabulary + v);
      nan |= std::isnan(z);
      if (z > logits.get(n * vocabulary + best)) best = v;
    }
    tokens.push_back(nan ? -1 : static_cast<std::int32_t>(best));
  }
  return tokens;
}

class MostLikelyTest : public testing::Test {
 protected:
  std::vector<std::int32_t> run(TestTensor& logits) {
    TestTensor tokens = filled(DType::i32, {logits.shape()[0]}, -9);  // what fresh memory has means NaN here
    ops_->most_likely(tokens, logits);
    const auto* begin = tokens.view().as<std::int32_t>();
    return {begin, begin + tokens.size()};
  }

  std::mt19937_64 generator_ = generator_of_inputs(11);
  std::unique_ptr<Ops> ops_ = make_test_ops();
  const std::vector<DType> types_ = on_this_device({DType::f32, DType::bf16, DType::f16, DType::f64});
  // Short rows, whole vectors and blocks, and rows that begin between them.
  const std::vector<std::int32_t> vocabularies_ = {1, 2, 7, 64, 300, 511, 513, 4095, 4097, 50304};
};

TEST_F(MostLikelyTest, IsThePlaceOfTheLargestLogit) {
  for (const DType dtype : types_)
    for (const std::int64_t rows : {1, 3, 33})
      for (const std::int32_t vocabulary : vocabularies_) {
        TestTensor logits = TestTensor::random(dtype, {rows, vocabulary}, generator_, 3, -20);
        EXPECT_EQ(run(logits), plain(logits)) << name_of(dtype) << " " << rows << " x " << vocabulary;
      }
}

// Wherever it stands, against a background of any size below it, that of a row of -infinity too.
TEST_F(MostLikelyTest, FindsItEverywhere) {
  constexpr std::int64_t rows = 3;
  for (const DType dtype : types_)
    for (const std::int32_t vocabulary : {7, 131, 5003})
      for (const double background : {-infinity, -1000.0, 0.0})
        for (std::int32_t place = 0; place < vocabulary; place += vocabulary < 5000 ? 1 : 311) {
          TestTensor logits = filled(dtype, {rows, vocabulary}, background);
          for (std::int64_t n = 0; n < rows; ++n) logits.set(n * vocabulary + place, 1);
          EXPECT_EQ(run(logits), std::vector<std::int32_t>(rows, place))
              << name_of(dtype) << " of " << vocabulary << " above " << background;
        }
}

TEST_F(MostLikelyTest, TakesTheFirstOfEquals) {
  for (const DType dtype : types_) {
    for (const std::int32_t vocabulary : vocabularies_)
      for (const double all : {0.0, -3.0, -infinity, infinity}) {
        TestTensor logits = filled(dtype, {2, vocabulary}, all);
        EXPECT_EQ(run(logits), std::vector<std::int32_t>(2, 0)) << name_of(dtype) << " all " << all;
      }
    for (const std::int32_t vocabulary : {37, 5003})
      for (const std::int32_t first : {1, 8, 15, 30})
        for (const std::int32_t second : {first + 1, first + 5, vocabulary - 1}) {
          TestTensor logits = filled(dtype, {3, vocabulary}, -2);
          for (std::int64_t n = 0; n < 3; ++n)
            for (const std::int32_t place : {first, second}) logits.set(n * vocabulary + place, -1);
          EXPECT_EQ(run(logits), std::vector<std::int32_t>(3, first)) << name_of(dtype) << " " << second;
        }
    TestTensor few = TestTensor::random_tokens({5, 5003}, 4, generator_).converted(dtype);
    EXPECT_EQ(run(few), plain(few)) << name_of(dtype);
    TestTensor zeros = filled(dtype, {1, 9}, -1);
    zeros.set(4, -0.0);
    zeros.set(7, 0.0);
    EXPECT_EQ(run(zeros), std::vector<std::int32_t>{4}) << "zeros are equal";
  }
}

// Of the row that has it, wherever it stands, also beside infinity.
TEST_F(MostLikelyTest, SaysWhereALogitIsNotANumber) {
  for (const DType dtype : types_)
    for (const std::int32_t vocabulary : {1, 7, 131, 5003})
      for (std::int32_t place = 0; place < vocabulary; place += vocabulary < 5000 ? 1 : vocabulary / 2)
        for (const double nan : {not_a_number, -not_a_number})
          for (const double largest : {2.0, infinity}) {
            TestTensor logits = TestTensor::random(dtype, {3, vocabulary}, generator_);
            for (std::int64_t n = 0; n < 3; ++n) logits.set(n * vocabulary + vocabulary / 3, largest);
            logits.set(vocabulary + place, nan);
            const std::vector<std::int32_t> expected = plain(logits);
            ASSERT_EQ(expected[1], -1);
            EXPECT_EQ(run(logits), expected) << name_of(dtype) << " " << place << " of " << vocabulary;
          }
}

TEST_F(MostLikelyTest, RefusesWrongShapesAndTypes) {
  TestTensor logits = filled(DType::f32, {2, 5}, 0), tokens(DType::i32, {2}), more(DType::i32, {3}),
             bytes(DType::u8, {2}), flat = filled(DType::f32, {2}, 0);
  EXPECT_THROW(ops_->most_likely(more, logits), std::logic_error);
  EXPECT_THROW(ops_->most_likely(bytes, logits), std::logic_error);
  EXPECT_THROW(ops_->most_likely(tokens, flat), std::logic_error);
  EXPECT_THROW(ops_->most_likely(tokens, tokens), std::logic_error);
}

}  // namespace
}  // namespace flasheva
