// Which gradients are summed when, without ranks.
#include "src/distributed/gradient_sum.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace flasheva {
namespace {

// Remembers what it was asked to sum: (first element, elements).
class Recorder final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  int local_rank() const override { return 0; }
  int threads() const override { return 0; }
  std::string description() override { return ""; }
  void all_reduce_sum(std::span<double>) override {}
  void sum_on_gpu(DeviceSums&) override {}
  void start_all_reduce_sum(Tensor tensor, Tensor, DType) override {
    sums.emplace_back(tensor.as<float>() - origin, tensor.size());
  }
  void start_reduce_scatter_sum(Tensor, Tensor, DType) override {}
  void start_all_gather(Tensor) override {}
  void wait() override { waited = true; }
  void set_timeout(double) override {}
  void set_patience(double, const std::string&) override {}
  void leave() override {}

  const float* origin = nullptr;
  std::vector<std::pair<std::int64_t, std::int64_t>> sums;
  bool waited = false;
};

using Sums = std::vector<std::pair<std::int64_t, std::int64_t>>;
constexpr std::int64_t bucket = GradientSum::bucket_elements;

class GradientSums : public testing::Test {
 protected:
  void begin(std::int64_t elements) {
    gradients.resize(static_cast<std::size_t>(elements));
    communicator.origin = gradients.data();
    sum.begin(Tensor{gradients.data(), DType::f32, {elements}}, {}, false, DType::f32);
  }
  std::vector<float> gradients;
  Recorder communicator;
  GradientSum sum{communicator};
};

TEST_F(GradientSums, BeginWhenABucketIsFinal) {
  begin(3 * bucket + 5);
  sum.final_from(3 * bucket);
  EXPECT_EQ(communicator.sums, Sums{});
  sum.final_from(bucket + 6);
  EXPECT_EQ(communicator.sums, (Sums{{2 * bucket + 5, bucket}}));
  EXPECT_FALSE(communicator.waited);
  sum.finish();
  EXPECT_EQ(communicator.sums, (Sums{{2 * bucket + 5, bucket}, {bucket + 5, bucket}, {5, bucket}, {0, 5}}));
  EXPECT_TRUE(communicator.waited);
}

TEST_F(GradientSums, SmallOnesAreOneSum) {
  begin(7);
  sum.final_from(3);
  sum.finish();
  EXPECT_EQ(communicator.sums, (Sums{{0, 7}}));
}

TEST_F(GradientSums, NoneAreNone) {
  begin(0);
  sum.finish();
  EXPECT_EQ(communicator.sums, Sums{});
}

TEST_F(GradientSums, TheNextStepStartsAnew) {
  for (int step = 0; step < 2; ++step) {
    begin(bucket);
    communicator.sums.clear();
    sum.final_from(0);
    EXPECT_EQ(communicator.sums, (Sums{{0, bucket}}));
    sum.finish();
    EXPECT_EQ(communicator.sums.size(), 1u);
  }
}

TEST(GradientSumScratch, HoldsOneBucketAtMost) {
  EXPECT_EQ(GradientSum::scratch_elements(100, 1), 0);
  EXPECT_EQ(GradientSum::scratch_elements(100, 4), 104);
  EXPECT_EQ(GradientSum::scratch_elements(10 * bucket, 4), bucket + 4);
}

}  // namespace
}  // namespace flasheva
