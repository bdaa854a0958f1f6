// Attention of all kinds against a plain dense computation in float64.
#include <gtest/gtest.h>

#include <string>

#include "kernels/ops.h"
#include "tests/kernels/attention_cases.h"
#include "tests/kernels/attention_reference.h"
#include "tests/kernels/pytorch_fixtures.h"
#include "tests/support/tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

struct Case {
  std::int64_t B, H, T, d;
  AttentionConfig config;

  std::int64_t chunks() const { return config.visibility.chunks(T); }
};

std::string describe(const Case& c) {
  return "B " + std::to_string(c.B) + " H " + std::to_string(c.H) + " T " + std::to_string(c.T) + " d " +
         std::to_string(c.d) + " " + describe(c.config);
}

AttentionTensors random_inputs(const Case& c, DType dtype, unsigned seed) {
  std::mt19937_64 generator(seed);
  const Shape tokens{c.B, c.H, c.T, c.d}, chunks{c.B, c.H, c.chunks(), c.d};
  AttentionTensors t;
  for (TestTensor* x : {&t.q, &t.k, &t.v}) *x = TestTensor::random(dtype, tokens, generator);
  if (c.chunks() > 0)
    for (TestTensor* x : {&t.kappa, &t.beta}) *x = TestTensor::random(dtype, chunks, generator);
  if (c.config.chunk_bias == ChunkBias::learned) t.chunk_bias = TestTensor::random(dtype, {c.H}, generator);
  t.dout = TestTensor::random(dtype, {c.B, c.T, c.H * c.d}, generator);
  return t;
}

void run_forward(Ops& ops, const Case& c, AttentionTensors& t) {
  const DType dtype = t.q.view().dtype;
  t.out = TestTensor(dtype, {c.B, c.T, c.H * c.d});
  t.log_sum_exp = TestTensor(accumulation_type(dtype), {c.B, c.H, c.T});
  ops.attention_forward(t.out, t.log_sum_exp, t.q, t.k, t.v, t.kappa, t.beta, t.chunk_bias, c.config);
}

void run_backward(Ops& ops, const Case& c, AttentionTensors& t) {
  const DType dtype = t.q.view().dtype;
  for (TestTensor* x : {&t.dq, &t.dk, &t.dv}) *x = TestTensor(dtype, t.q.shape());
  if (c.chunks() > 0)
    for (TestTensor* x : {&t.dkappa, &t.dbeta}) *x = TestTensor(dtype, t.kappa.shape());
  if (c.config.chunk_bias == ChunkBias::learned)
    t.dchunk_bias = TestTensor::zeros(accumulation_type(dtype), {c.H});
  ops.attention_backward(t.dq, t.dk, t.dv, t.dkappa, t.dbeta, t.dchunk_bias, t.dout, t.out, t.log_sum_exp,
                         t.q, t.k, t.v, t.kappa, t.beta, t.chunk_bias, c.config);
}

// The results of both, named; the chunk's only where there are chunks.
struct Compared {
  const char* name;
  const TestTensor *ours, *reference;
};
std::vector<Compared> results(const Case& c, const AttentionTensors& ours,
                              const AttentionTensors& reference) {
  std::vector<Compared> all{{"out", &ours.out, &reference.out},
                            {"log_sum_exp", &ours.log_sum_exp, &reference.log_sum_exp},
                            {"dq", &ours.dq, &reference.dq},
                            {"dk", &ours.dk, &reference.dk},
                            {"dv", &ours.dv, &reference.dv}};
  if (c.chunks() > 0) {
    all.push_back({"dkappa", &ours.dkappa, &reference.dkappa});
    all.push_back({"dbeta", &ours.dbeta, &reference.dbeta});
    if (c.config.chunk_bias == ChunkBias::learned)
      all.push_back({"dchunk_bias", &ours.dchunk_bias, &reference.dchunk_bias});
  }
  return all;
}

AttentionTensors converted(AttentionTensors t, DType dtype) {
  for (TestTensor* x : {&t.q, &t.k, &t.v, &t.kappa, &t.beta, &t.chunk_bias, &t.dout})
    if (x->view().data) *x = x->converted(dtype);
  return t;
}

// One configuration of each kind, for what need not be seen in every variant.
std::vector<AttentionConfig> typical_configs(std::int64_t window, std::int64_t chunk) {
  return {{full()},
          {sliding(window + 3)},
          {eva(window, chunk), ChunkBias::learned},
          {eva(window, chunk, WindowKind::block, ChunkVisibility::all_past), ChunkBias::none},
          {eva(window, chunk, WindowKind::sliding), ChunkBias::log_chunk}};
}

void expect_close(Ops& ops, const Case& c, DType dtype, double bound) {
  AttentionTensors ours = random_inputs(c, dtype, 1), reference = converted(ours, DType::f64);
  run_forward(ops, c, ours);
  run_backward(ops, c, ours);
  reference_attention(reference, c.config);
  for (const auto& [name, x, expected] : results(c, ours, reference)) {
    // The bias's gradient is one sum, with cancellation, over all queries and chunks.
    const bool long_sum = dtype == DType::f32 && std::string(name) == "dchunk_bias";
    ASSERT_LT(relative_error(*x, *expected), long_sum ? 1e-4 : bound) << name << ": " << describe(c);
  }
}

TEST(Attention, MatchesTheDefinitionInFloat64AtEveryLength) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  std::vector<std::int64_t> lengths{1, 2, 3, 4, 7, 8, 15, 16, 17, 23, 31, 40, 63, 64, 65, 70};
  if (device_is_simulated()) lengths = {1, 17, 32, 65};
  for (const AttentionConfig& config : all_configs())
    for (std::int64_t T : lengths) expect_close(*ops, {1, 2, T, 3, config}, DType::f64, 1e-12);
}

// Sequences of several blocks of queries and keys.
TEST(Attention, MatchesTheDefinitionInFloat64AcrossBlocks) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  for (std::int64_t T : {127, 128, 129, 200, 300})
    for (const auto& [window, chunk] : {std::pair{48, 12}, {64, 16}, {100, 5}, {256, 16}})
      for (const AttentionConfig& config : typical_configs(window, chunk))
        expect_close(*ops, {1, 1, T, 5, config}, DType::f64, 1e-12);
}

TEST(Attention, GradientsAreCentralDifferences) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  for (std::int64_t T : {1, 6, 21})
    for (const AttentionConfig& config : typical_configs(6, 3)) {
      if (T == 21 && device_is_simulated()) continue;
      const Case c{1, 2, T, 3, config};
      AttentionTensors t = random_inputs(c, DType::f64, 2);
      run_forward(*ops, c, t);
      run_backward(*ops, c, t);
      const auto loss = [&] {
        run_forward(*ops, c, t);
        return dot(t.out, t.dout);
      };
      std::vector<std::pair<TestTensor*, TestTensor*>> pairs{{&t.q, &t.dq}, {&t.k, &t.dk}, {&t.v, &t.dv}};
      if (c.chunks() > 0) pairs.insert(pairs.end(), {{&t.kappa, &t.dkappa}, {&t.beta, &t.dbeta}});
      if (config.chunk_bias == ChunkBias::learned) pairs.push_back({&t.chunk_bias, &t.dchunk_bias});
      for (const auto& [x, gradient] : pairs)
        ASSERT_LT(relative_error(*gradient, central_differences(*x, loss)), 1e-7) << describe(c);
    }
}

// float32 against float64 on the same inputs: 1e-5, and 1e-4 where thousands of terms are summed.
TEST(Attention, Float32IsCloseToFloat64) {
  const auto ops = make_test_ops();
  for (std::int64_t d : {1, 17, 32, 64, 80, 96, 128})
    for (const AttentionConfig& config : typical_configs(64, 16))
      expect_close(*ops, {1, 1, 300, d, config}, DType::f32, 1e-5);
  for (const AttentionConfig& config : typical_configs(256, 16))
    expect_close(*ops, {1, 1, 2048, 8, config}, DType::f32, 1e-4);
}

// bfloat16 and float16 storage: at most twice the error of the formula done plainly in that type, or that of
// float32 where the plain formula happens to be exact.
class AttentionPrecision : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, AttentionPrecision, testing::ValuesIn(low_precisions),
                         [](const auto& info) { return std::string(name_of(info.param)); });

void expect_at_most_twice_the_error(const Case& c, const AttentionTensors& ours,
                                    const AttentionTensors& plain, const AttentionTensors& exact) {
  const auto of_ours = results(c, ours, exact), of_plain = results(c, plain, exact);
  for (std::size_t i = 0; i < of_ours.size(); ++i)
    ASSERT_LE(relative_error(*of_ours[i].ours, *of_ours[i].reference),
              std::max(1e-5, 2 * relative_error(*of_plain[i].ours, *of_plain[i].reference)))
        << of_ours[i].name << ": " << describe(c);
}

void expect_as_good_as_plain(Ops& ops, const Case& c, DType dtype) {
  AttentionTensors ours = random_inputs(c, dtype, 4);
  AttentionTensors exact = converted(ours, DType::f64), plain = exact;
  run_forward(ops, c, ours);
  run_backward(ops, c, ours);
  reference_attention(exact, c.config);
  reference_attention(plain, c.config, RoundTo{dtype});
  expect_at_most_twice_the_error(c, ours, plain, exact);
}

// The same against the CPU, where the plain formula takes too long.
void expect_as_good_as_cpu(Ops& ops, const Case& c, DType dtype) {
  const auto cpu = make_cpu_ops();
  AttentionTensors ours = random_inputs(c, dtype, 4);
  AttentionTensors exact = converted(ours, DType::f64), plain = ours;
  for (const auto& [device, t] : {std::pair{&ops, &ours}, {cpu.get(), &plain}, {cpu.get(), &exact}}) {
    run_forward(*device, c, *t);
    run_backward(*device, c, *t);
  }
  expect_at_most_twice_the_error(c, ours, plain, exact);
}

TEST_P(AttentionPrecision, IsAsGoodAsThePlainFormula) {
  const auto ops = make_test_ops();
  for (const AttentionConfig& config : typical_configs(64, 16))
    expect_as_good_as_plain(*ops, {1, 2, 300, 32, config}, GetParam());
}

TEST_P(AttentionPrecision, TakesEveryHeadDimension) {
  const auto ops = make_test_ops();
  for (std::int64_t d : {1, 7, 16, 40, 64, 80, 96, 128, 200, 256})
    for (const AttentionConfig& config : {AttentionConfig{full()}, AttentionConfig{eva(36, 12)}})
      expect_as_good_as_plain(*ops, {1, 1, 100, d, config}, GetParam());
}

// So many sequences that an error is the mean of many, however short they are.
TEST_P(AttentionPrecision, TakesEveryLength) {
  const auto ops = make_test_ops();
  for (std::int64_t T : {1, 7, 16, 17, 64, 65, 130})
    for (const AttentionConfig& config : typical_configs(28, 7)) {
      if (device_is_simulated() && T < 16) continue;
      expect_as_good_as_plain(*ops, {1 + 64 / T, 2, T, 24, config}, GetParam());
    }
}

// So long that the queries of a chunk are cut into segments, some of which do not see it.
TEST_P(AttentionPrecision, TakesLongSequences) {
  const auto ops = make_test_ops();
  for (WindowKind window_kind : {WindowKind::block, WindowKind::sliding})
    expect_as_good_as_plain(*ops, {1, 1, 600, 16, {eva(32, 4, window_kind), ChunkBias::none}}, GetParam());
  if (ops->device() == Device::cpu || device_is_simulated()) return;
  for (const AttentionConfig& config : typical_configs(256, 16))
    for (std::int64_t T : {2048, 8192}) expect_as_good_as_cpu(*ops, {1, 4, T, 64, config}, GetParam());
}

// A window as long as the sequence is full attention, to the bit: no chunk is outside of it.
TEST(Attention, WindowOfTheWholeSequenceIsFullAttention) {
  const auto ops = make_test_ops();
  for (WindowKind window_kind : {WindowKind::block, WindowKind::sliding})
    for (std::int64_t T : {1, 37, 200, 208}) {
      const Case windowed{1, 2, T, 20, {eva(208, 16, window_kind), ChunkBias::log_chunk}},
          whole{1, 2, T, 20, {full()}};
      AttentionTensors ours = random_inputs(windowed, DType::f32, 5), reference = ours;
      run_forward(*ops, windowed, ours);
      run_backward(*ops, windowed, ours);
      run_forward(*ops, whole, reference);
      run_backward(*ops, whole, reference);
      for (const auto& [name, x, expected] : results(whole, ours, reference))
        for (std::int64_t i = 0; i < x->size(); ++i)
          ASSERT_EQ(x->get(i), expected->get(i)) << name << ": T " << T;
      for (const TestTensor* gradient : {&ours.dkappa, &ours.dbeta})
        for (std::int64_t i = 0; windowed.chunks() > 0 && i < gradient->size(); ++i)
          ASSERT_EQ(gradient->get(i), 0);
    }
}

TEST(Attention, EveryPastTokenIsCoveredOnceOutsideTheWindow) {
  for (WindowKind window_kind : {WindowKind::block, WindowKind::sliding})
    for (const auto& [window, chunk] : {std::pair{4, 2}, {7, 7}, {12, 3}, {16, 8}, {5, 1}, {256, 16}}) {
      const Visibility visibility = eva(window, chunk, window_kind);
      for (std::int64_t n = 0; n < 600; ++n)
        for (std::int64_t m = 0; m <= n; ++m) {
          const int exactly = m >= visibility.first_token(n),
                    by_chunk = m / chunk < visibility.visible_chunks(n);
          ASSERT_EQ(exactly + by_chunk, 1)
              << "query " << n << " token " << m << " W " << window << " P " << chunk;
        }
    }
}

TEST(Attention, AddsToTheGradientOfTheChunkBias) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  const Case c{3, 2, 40, 4, {eva(8, 4), ChunkBias::learned}};
  AttentionTensors once = random_inputs(c, DType::f64, 6);
  run_forward(*ops, c, once);
  run_backward(*ops, c, once);
  AttentionTensors twice = once;
  ops->attention_backward(twice.dq, twice.dk, twice.dv, twice.dkappa, twice.dbeta, twice.dchunk_bias,
                          twice.dout, twice.out, twice.log_sum_exp, twice.q, twice.k, twice.v, twice.kappa,
                          twice.beta, twice.chunk_bias, c.config);
  for (std::int64_t h = 0; h < c.H; ++h)
    EXPECT_DOUBLE_EQ(twice.dchunk_bias.get(h), 2 * once.dchunk_bias.get(h));
}

TEST(Attention, RepeatsBitwise) {
  const auto ops = make_test_ops();
  for (std::int64_t heads : {1, 3})  // one head is cut between the threads
    for (const AttentionConfig& config : typical_configs(64, 16)) {
      const Case c{1, heads, 500, 40, config};
      AttentionTensors first = random_inputs(c, DType::f32, 7);
      run_forward(*ops, c, first);
      run_backward(*ops, c, first);
      for (int repetition = 0; repetition < 3; ++repetition) {
        AttentionTensors again = random_inputs(c, DType::f32, 7);
        run_forward(*ops, c, again);
        run_backward(*ops, c, again);
        for (const auto& [name, x, expected] : results(c, again, first))
          for (std::int64_t i = 0; i < x->size(); ++i)
            ASSERT_EQ(x->get(i), expected->get(i)) << name << describe(c);
      }
    }
}

AttentionConfig config_of(const nlohmann::json& scalars) {
  const auto is = [&](const char* key, const char* value) {
    return scalars.value(key, std::string()) == value;
  };
  AttentionConfig config;
  config.visibility = {
      is("kind", "full")      ? AttentionKind::full
      : is("kind", "sliding") ? AttentionKind::sliding
                              : AttentionKind::eva,
      is("window_kind", "sliding") ? WindowKind::sliding : WindowKind::block,
      is("chunk_visibility", "all_past") ? ChunkVisibility::all_past : ChunkVisibility::outside_window,
      scalars.value("window", 0), scalars.value("chunk", 0)};
  config.chunk_bias = is("chunk_bias", "log_chunk") ? ChunkBias::log_chunk
                      : is("chunk_bias", "learned") ? ChunkBias::learned
                                                    : ChunkBias::none;
  return config;
}

// Another program's float64: 1e-12 is a thousand roundings.
TEST(Attention, MatchesPyTorch) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  const PyTorchFixtures fixtures;
  ASSERT_GT(fixtures.cases("attention").size(), 20u);
  for (const std::string& name : fixtures.cases("attention")) {
    const auto load = [&](const char* tensor) { return fixtures.tensor(name, tensor); };
    AttentionTensors expected{load("q"),           load("k"),          load("v"),          load("kappa"),
                              load("beta"),        load("chunk_bias"), load("dout"),       load("out"),
                              load("log_sum_exp"), load("dq"),         load("dk"),         load("dv"),
                              load("dkappa"),      load("dbeta"),      load("dchunk_bias")};
    const Shape shape = expected.q.shape();
    const Case c{shape[0], shape[1], shape[2], shape[3], config_of(fixtures.scalars(name))};
    AttentionTensors ours = expected;
    run_forward(*ops, c, ours);
    run_backward(*ops, c, ours);
    for (const auto& [tensor, x, reference] : results(c, ours, expected))
      EXPECT_LT(relative_error(*x, *reference), 1e-12) << name << " " << tensor;
  }
}

}  // namespace
}  // namespace flasheva
