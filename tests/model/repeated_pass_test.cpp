// Passes that go on from others, on a GPU replayed from the third of a kind on, with other tokens, masks,
// sizes and scales: each gives the losses and gradients of a model's first pass, bit for bit.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "tests/support/fixtures.h"
#include "tests/support/test_model.h"

namespace flasheva {
namespace {

constexpr std::int64_t most_sequences = 2, tokens_a_sequence = 11;

struct Pass {
  std::int64_t sequences;
  bool masked;
  double scale;
};

bool same_bits(TestTensor a, TestTensor b) {
  const Tensor x = a, y = b;
  return x.bytes() == y.bytes() && std::memcmp(x.data, y.data, x.bytes()) == 0;
}

class RepeatedPass : public testing::TestWithParam<DType> {
 protected:
  std::unique_ptr<TestModel> new_model() const {
    return std::make_unique<TestModel>(fixture("models") / "eva-block", DType::f32, GetParam(),
                                       Extent{most_sequences, tokens_a_sequence});
  }
  double run(TestModel& model, const Pass& settings, TestTensor& tokens, TestTensor& mask) {
    for (const Parameter& parameter : model.parameters.all()) model.ops->zero(parameter.gradient);
    const Extent extent{settings.sequences, tokens_a_sequence};
    const Tensor used = tokens.view().rows(0, extent.rows());
    const TokenBatch batch{extent, used, used,
                           settings.masked ? mask.view().rows(0, extent.rows()) : Tensor{}};
    return model.forward_backward({*model.ops, extent, {}}, model.on_device(batch), settings.scale);
  }
};

TEST_P(RepeatedPass, GivesWhatAFirstPassGives) {
  const auto repeated = new_model();
  std::mt19937_64 generator(1);
  const std::int64_t most = most_sequences * tokens_a_sequence;
  int number = 0;
  for (const Pass& pass : {Pass{2, true, 0.01},
                           {1, true, 0.02},
                           {2, true, 3},
                           {2, false, 0.5},
                           {1, true, 0.7},
                           {2, false, 0.3},
                           {2, true, 0.25},
                           {1, true, 0.1},
                           {2, false, 2},
                           {2, true, 0}}) {
    SCOPED_TRACE(++number);
    TestTensor tokens = TestTensor::random_tokens({most}, repeated->config.vocab_size, generator),
               mask = TestTensor::random_tokens({most}, 2, generator).converted(DType::u8);
    const auto first = new_model();
    EXPECT_EQ(run(*repeated, pass, tokens, mask), run(*first, pass, tokens, mask));
    for (std::size_t i = 0; i < first->parameters.all().size(); ++i) {
      const Parameter& expected = first->parameters.all()[i];
      EXPECT_TRUE(same_bits(repeated->values_of(repeated->parameters.all()[i].gradient),
                            first->values_of(expected.gradient)))
          << expected.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, RepeatedPass, testing::Values(DType::f32, DType::f16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace flasheva
