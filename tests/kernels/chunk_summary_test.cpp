// Chunk summaries: against the formula in float64, central differences, and the plain formula in low
// precision.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "kernels/ops.h"
#include "kernels/philox.h"
#include "tests/kernels/chunk_summary_reference.h"
#include "tests/kernels/pytorch_fixtures.h"
#include "tests/support/tensors.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

struct Case {
  std::int64_t B, H, T, d;
  ChunkSummaryConfig config;

  std::int64_t chunks() const { return T / config.chunk; }
};

std::string describe(const Case& c) {
  return "B " + std::to_string(c.B) + " H " + std::to_string(c.H) + " T " + std::to_string(c.T) + " d " +
         std::to_string(c.d) + " P " + std::to_string(c.config.chunk) + " adapter " +
         std::to_string(static_cast<int>(c.config.adapter)) + " proposal " +
         std::to_string(static_cast<int>(c.config.proposal)) + (c.config.noise.enabled ? " noise" : "");
}

// Step 7, from sequence 2 on.
Tensor noise_place() {
  static std::int32_t place[] = {7, 2};
  return view_of(place, {2});
}

// Every adapter and proposal, with noise and without.
std::vector<ChunkSummaryConfig> all_configs(std::int64_t chunk) {
  std::vector<ChunkSummaryConfig> configs;
  for (Adapter adapter : {Adapter::none, Adapter::linear, Adapter::linear_layernorm, Adapter::learned})
    for (Proposal proposal : {Proposal::qk, Proposal::k, Proposal::zero})
      for (bool noise : {false, true})
        configs.push_back({chunk, adapter, proposal, {noise, 1.5f, 0x123456789abcull, 3, noise_place()}});
  return configs;
}

SummaryTensors random_inputs(const Case& c, DType dtype, unsigned seed) {
  std::mt19937_64 generator = generator_of_inputs(seed);
  const Shape tokens{c.B, c.H, c.T, c.d}, chunks{c.B, c.H, c.chunks(), c.d};
  SummaryTensors t;
  for (TestTensor* x : {&t.q, &t.k, &t.v}) *x = TestTensor::random(dtype, tokens, generator);
  if (c.chunks() > 0)
    for (TestTensor* x : {&t.dkappa, &t.dbeta}) *x = TestTensor::random(dtype, chunks, generator);
  const auto make = [&](TestTensor& x, Shape shape, double mean = 0, double spread = 0.5) {
    x = TestTensor::random(dtype, shape, generator, spread, mean);
  };
  const double even = 1 / std::sqrt(static_cast<double>(c.d));  // products with it are as large at every d
  const ChunkSummaryConfig& config = c.config;
  const bool layernorm = config.adapter == Adapter::linear_layernorm;
  EvaTensors& p = t.parameters;
  if (config.adapter == Adapter::learned) make(p.mu, {c.H, c.d}, 0, even), make(p.phi, {c.H, c.d}, 0, even);
  if (config.adapter == Adapter::linear || layernorm) {
    make(p.key_weight, {c.d, c.d}, 0, even), make(p.key_bias, {c.d});
    if (layernorm) make(p.key_norm_weight, {c.d}, 1), make(p.key_norm_bias, {c.d});
    if (config.proposal == Proposal::qk) {
      make(p.query_weight, {c.d, c.d}, 0, even), make(p.query_bias, {c.d});
      if (layernorm) make(p.query_norm_weight, {c.d}, 1), make(p.query_norm_bias, {c.d});
    }
  }
  return t;
}

// The same inputs in another type.
SummaryTensors converted(SummaryTensors t, DType dtype) {
  std::vector<TestTensor*> inputs{&t.q, &t.k, &t.v, &t.dkappa, &t.dbeta};
  for (TestTensor* x : t.parameters.all()) inputs.push_back(x);
  for (TestTensor* x : inputs)
    if (x->view().data) *x = x->converted(dtype);
  return t;
}

NoiseFunction noise_of(const Case& c) {
  const ChunkNoise noise = c.config.noise;
  if (!noise.enabled) return {};
  const auto d = static_cast<std::uint32_t>(c.d);
  const auto step = static_cast<std::uint32_t>(noise.place.as<std::int32_t>()[0]),
             first = static_cast<std::uint32_t>(noise.place.as<std::int32_t>()[1]);
  return [=](std::int64_t b, std::int64_t h, std::int64_t chunk, std::int64_t i) {
    const FourNormals eps = chunk_noise(noise.seed, step, noise.layer, first + static_cast<std::uint32_t>(b),
                                        static_cast<std::uint32_t>(h), static_cast<std::uint32_t>(chunk), d,
                                        static_cast<std::uint32_t>(i / 4));
    return std::clamp<double>(eps.value[i % 4], -noise.clip, noise.clip);
  };
}

void run_forward(Ops& ops, const Case& c, SummaryTensors& t) {
  for (TestTensor* x : {&t.kappa, &t.beta})
    if (c.chunks() > 0) *x = TestTensor(t.q.view().dtype, {c.B, c.H, c.chunks(), c.d});
  TestTensor qkv(t.q.view().dtype, {c.B, c.T, 3 * c.H * c.d});
  ops.qkv_rotary_backward(qkv, t.q, t.k, t.v, {}, {});  // merges them
  for (TestTensor* x : {&t.q, &t.k, &t.v}) *x = TestTensor(t.q.view().dtype, t.q.shape());
  ops.qkv_summary_forward(t.q, t.k, t.v, t.kappa, t.beta, qkv, {}, {}, t.parameters.view(), c.config);
}

// dq, dk, dv: what reaches q, k and v in other ways on the way in, all of it on the way out. Gradients of
// parameters are added to.
void add_backward(Ops& ops, const Case& c, SummaryTensors& t) {
  TestTensor dqkv(t.q.view().dtype, {c.B, c.T, 3 * c.H * c.d});
  ops.qkv_summary_backward(dqkv, t.gradients.view(), t.dq, t.dk, t.dv, t.dkappa, t.dbeta, t.q, t.k, t.v, {},
                           {}, t.parameters.view(), c.config);
  ops.qkv_rotary_forward(t.dq, t.dk, t.dv, dqkv, {}, {});  // splits it
}

// Gradients start at zero.
void run_backward(Ops& ops, const Case& c, SummaryTensors& t) {
  const DType dtype = t.q.view().dtype;
  for (TestTensor* x : {&t.dq, &t.dk, &t.dv}) *x = TestTensor::zeros(dtype, t.q.shape());
  const auto parameters = t.parameters.all(), gradients = t.gradients.all();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i]->view())
      *gradients[i] = TestTensor::zeros(accumulation_type(dtype), parameters[i]->shape());
  add_backward(ops, c, t);
}

// What forward and backward gave, named.
std::vector<std::pair<std::string, TestTensor*>> results(const Case& c, SummaryTensors& t) {
  std::vector<std::pair<std::string, TestTensor*>> all{{"dq", &t.dq}, {"dk", &t.dk}, {"dv", &t.dv}};
  if (c.chunks() > 0) all.insert(all.end(), {{"kappa", &t.kappa}, {"beta", &t.beta}});
  const char* names[] = {"dkey_weight",   "dkey_bias",   "dkey_norm_weight",   "dkey_norm_bias",
                         "dquery_weight", "dquery_bias", "dquery_norm_weight", "dquery_norm_bias",
                         "dmu",           "dphi"};
  const auto gradients = t.gradients.all(), parameters = t.parameters.all();
  for (std::size_t i = 0; i < gradients.size(); ++i)
    if (parameters[i]->view()) all.push_back({names[i], gradients[i]});
  return all;
}

void expect_close(const Case& c, SummaryTensors& ours, SummaryTensors& reference, double bound) {
  const auto of_ours = results(c, ours), expected = results(c, reference);
  for (std::size_t i = 0; i < expected.size(); ++i)
    ASSERT_LT(relative_error(*of_ours[i].second, *expected[i].second), bound)
        << expected[i].first << ": " << describe(c);
}

// Low precision: at most twice the error of the formula done plainly in that type, or that of float32 where
// the plain formula happens to be exact.
void expect_as_good_as_plain(Ops& ops, const Case& c, DType dtype) {
  SummaryTensors ours = random_inputs(c, dtype, 4);
  SummaryTensors exact = converted(ours, DType::f64), plain = exact;
  run_forward(ops, c, ours);
  run_backward(ops, c, ours);
  reference_chunk_summary(exact, c.config, noise_of(c));
  reference_chunk_summary(plain, c.config, noise_of(c), RoundTo{dtype});
  const auto of_ours = results(c, ours), of_exact = results(c, exact), of_plain = results(c, plain);
  for (std::size_t i = 0; i < of_ours.size(); ++i)
    ASSERT_LE(relative_error(*of_ours[i].second, *of_exact[i].second),
              std::max(1e-5, 2 * relative_error(*of_plain[i].second, *of_exact[i].second)))
        << of_ours[i].first << ": " << describe(c);
}

TEST(ChunkSummary, MatchesTheDefinitionInFloat64) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  std::vector<std::int64_t> lengths{1, 3, 50, 110};
  if (device_is_simulated()) lengths = {3, 34};
  for (std::int64_t chunk : {1, 3, 16})
    for (const ChunkSummaryConfig& config : all_configs(chunk))
      for (std::int64_t T : lengths)
        for (std::int64_t d : {3, 8}) {
          const Case c{2, 2, T, d, config};
          SummaryTensors ours = random_inputs(c, DType::f64, 1), reference = ours;
          run_forward(*ops, c, ours);
          run_backward(*ops, c, ours);
          reference_chunk_summary(reference, config, noise_of(c));
          expect_close(c, ours, reference, 1e-12);
        }
}

TEST(ChunkSummary, GradientsAreCentralDifferences) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  for (const ChunkSummaryConfig& config : all_configs(4)) {
    const Case c = device_is_simulated() ? Case{1, 1, 5, 3, config} : Case{1, 2, 13, 3, config};
    SummaryTensors t = random_inputs(c, DType::f64, 2);
    run_backward(*ops, c, t);
    const auto loss = [&] {
      run_forward(*ops, c, t);
      return dot(t.kappa, t.dkappa) + dot(t.beta, t.dbeta);
    };
    std::vector<std::pair<TestTensor*, TestTensor*>> pairs{{&t.q, &t.dq}, {&t.k, &t.dk}, {&t.v, &t.dv}};
    const auto parameters = t.parameters.all(), gradients = t.gradients.all();
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (parameters[i]->view()) pairs.push_back({parameters[i], gradients[i]});
    for (const auto& [x, gradient] : pairs)
      ASSERT_LT(relative_error(*gradient, central_differences(*x, loss)), 1e-7) << describe(c);
  }
}

// float32 against float64 on the same inputs.
TEST(ChunkSummary, Float32IsCloseToFloat64) {
  const auto ops = make_test_ops(), on_the_cpu = make_cpu_ops(2);
  for (std::int64_t T : {35, 2050})
    for (const ChunkSummaryConfig& config : all_configs(16)) {
      const Case c{1, 2, T, 20, config};
      SummaryTensors ours = random_inputs(c, DType::f32, 3), reference = converted(ours, DType::f64);
      run_forward(*ops, c, ours);
      run_backward(*ops, c, ours);
      run_forward(*on_the_cpu, c, reference);
      run_backward(*on_the_cpu, c, reference);
      expect_close(c, ours, reference, 1e-5);
    }
}

// Kernels take rows of different widths differently.
TEST(ChunkSummary, EveryHeadDimension) {
  const auto ops = make_test_ops();
  const ChunkNoise noise{true, 1.5f, 5, 3, noise_place()};
  for (std::int64_t d : {1, 5, 32, 64, 80, 96, 128, 200, 256})
    for (Adapter adapter : {Adapter::linear_layernorm, Adapter::learned}) {
      if (d == 1 && adapter == Adapter::linear_layernorm) continue;  // of one number, it is a constant
      const Case c{1, 2, 35, d, {16, adapter, Proposal::qk, noise}};
      for (DType dtype : on_this_device({DType::f64, DType::f32})) {
        SummaryTensors ours = random_inputs(c, dtype, 8), exact = converted(ours, DType::f64);
        run_forward(*ops, c, ours);
        run_backward(*ops, c, ours);
        reference_chunk_summary(exact, c.config, noise_of(c));
        expect_close(c, ours, exact, dtype == DType::f64 ? 1e-12 : 1e-5);
      }
      for (DType dtype : low_precisions) expect_as_good_as_plain(*ops, c, dtype);
    }
}

// More chunks than the shares of them whose sums make the parameters' gradients.
TEST(ChunkSummary, ManyChunks) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  for (Adapter adapter : {Adapter::linear, Adapter::learned}) {
    const Case c{2, 2, 520, 2, {2, adapter, Proposal::qk, {}}};
    SummaryTensors ours = random_inputs(c, DType::f64, 9), reference = ours;
    run_forward(*ops, c, ours);
    run_backward(*ops, c, ours);
    reference_chunk_summary(reference, c.config, noise_of(c));
    expect_close(c, ours, reference, 1e-11);
  }
}

// Numbers of every token of a chunk stand in the shared memory of a GPU's block.
TEST(ChunkSummary, ChunksTooLargeForAGpuAreRefusedInWords) {
  const Case c{1, 1, 16384, 4, {16384, Adapter::linear, Proposal::qk, {}}};
  SummaryTensors t = random_inputs(c, DType::f32, 1);
  const auto run = [&] { run_backward(*make_test_ops(), c, t); };
  if (make_device_ops()->device() == Device::cpu) return run();  // takes them
  EXPECT_THAT(run, testing::ThrowsMessage<std::runtime_error>(testing::HasSubstr("take smaller chunks")));
}

class ChunkSummaryPrecision : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, ChunkSummaryPrecision, testing::ValuesIn(low_precisions),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(ChunkSummaryPrecision, IsAsGoodAsThePlainFormula) {
  const auto ops = make_test_ops();
  for (const ChunkSummaryConfig& config : all_configs(16))
    expect_as_good_as_plain(*ops, {1, 2, 200, 32, config}, GetParam());
}

TEST_P(ChunkSummaryPrecision, TakesLongSequences) {
  const auto ops = make_test_ops();
  for (Adapter adapter : {Adapter::linear, Adapter::learned})
    expect_as_good_as_plain(*ops, {1, 1, 2050, 8, {16, adapter, Proposal::qk, {}}}, GetParam());
}

TEST(ChunkSummary, AddsToGradientsAndLeavesAbsentOnesAlone) {
  FLASHEVA_NEEDS_FLOAT64();
  const auto ops = make_test_ops();
  const Case c{1, 2, 21, 5, {4, Adapter::linear_layernorm, Proposal::qk, {}}};
  SummaryTensors once = random_inputs(c, DType::f64, 5);
  run_backward(*ops, c, once);
  SummaryTensors twice = once;
  twice.gradients.query_weight = {};
  add_backward(*ops, c, twice);
  for (auto [sum, part] : {std::pair{&twice.dq, &once.dq},
                           {&twice.dk, &once.dk},
                           {&twice.dv, &once.dv},
                           {&twice.gradients.key_weight, &once.gradients.key_weight},
                           {&twice.gradients.query_norm_bias, &once.gradients.query_norm_bias}})
    for (std::int64_t i = 0; i < part->size(); ++i) ASSERT_NEAR(sum->get(i), 2 * part->get(i), 1e-12);
  for (std::int64_t i = 20 * c.d; i < 21 * c.d; ++i)  // token 20 is in no complete chunk
    EXPECT_EQ(once.dk.get(i), 0);
}

// With rotary dimensions: the split and the merge of qkv_rotary around the summaries without.
TEST(ChunkSummary, TurnsQueriesAndKeysAsTheRotaryOperationDoes) {
  const auto ops = make_test_ops();
  for (DType dtype : on_this_device({DType::f64, DType::f32, DType::bf16}))
    for (auto [T, d, half] : {std::tuple{50, 16, 4}, {50, 16, 8}, {7, 12, 3}, {37, 80, 10}, {33, 136, 17}}) {
      const Case c{2, 2, T, d, {8, Adapter::linear, Proposal::qk, {}}};
      SummaryTensors apart = random_inputs(c, dtype, 11), ours = apart;
      std::mt19937_64 generator = generator_of_inputs(12);
      TestTensor qkv = TestTensor::random(dtype, {c.B, T, 3 * c.H * d}, generator), dqkv = qkv,
                 expected = qkv;
      TestTensor cosine(accumulation_type(dtype), {T, half}), sine = cosine;
      for (std::int64_t i = 0; i < cosine.size(); ++i)
        cosine.set(i, std::cos(0.1 * i)), sine.set(i, std::sin(0.1 * i));
      const double bound = dtype == DType::f64 ? 1e-13 : dtype == DType::f32 ? 1e-6 : 0x1p-7;

      ops->qkv_rotary_forward(apart.q, apart.k, apart.v, qkv, cosine, sine);
      run_forward(*ops, c, apart);
      for (TestTensor* x : {&ours.kappa, &ours.beta})
        if (c.chunks() > 0) *x = TestTensor(dtype, {c.B, c.H, c.chunks(), d});
      ops->qkv_summary_forward(ours.q, ours.k, ours.v, ours.kappa, ours.beta, qkv, cosine, sine,
                               ours.parameters.view(), c.config);
      for (auto [x, y] : {std::pair{&ours.q, &apart.q}, {&ours.k, &apart.k}, {&ours.v, &apart.v}})
        EXPECT_LE(relative_error(*x, *y), bound) << describe(c);
      if (c.chunks() > 0) {
        EXPECT_LE(relative_error(ours.kappa, apart.kappa), bound) << describe(c);
        EXPECT_LE(relative_error(ours.beta, apart.beta), bound) << describe(c);
      }

      run_backward(*ops, c, apart);
      ours.gradients = apart.gradients;
      for (TestTensor* x : {&ours.dq, &ours.dk, &ours.dv})
        *x = TestTensor::random(dtype, ours.q.shape(), generator);
      for (auto [sum, x] : {std::pair{&apart.dq, &ours.dq}, {&apart.dk, &ours.dk}, {&apart.dv, &ours.dv}})
        for (std::int64_t i = 0; i < x->size(); ++i) sum->set(i, sum->get(i) + x->get(i));
      ops->qkv_rotary_backward(expected, apart.dq, apart.dk, apart.dv, cosine, sine);
      ops->qkv_summary_backward(dqkv, ours.gradients.view(), ours.dq, ours.dk, ours.dv, ours.dkappa,
                                ours.dbeta, ours.q, ours.k, ours.v, cosine, sine, ours.parameters.view(),
                                c.config);
      EXPECT_LE(relative_error(dqkv, expected), bound) << describe(c);
    }
}

TEST(ChunkSummary, RepeatsBitwise) {
  const auto ops = make_test_ops();
  const Case c{2, 3, 700, 16, {4, Adapter::linear, Proposal::qk, {true, 2, 1, 1, noise_place()}}};
  SummaryTensors first = random_inputs(c, DType::f32, 6);
  run_forward(*ops, c, first);
  run_backward(*ops, c, first);
  for (int repetition = 0; repetition < 5; ++repetition) {
    SummaryTensors again = random_inputs(c, DType::f32, 6);
    run_forward(*ops, c, again);
    run_backward(*ops, c, again);
    const auto expected = results(c, first);
    for (std::size_t i = 0; i < expected.size(); ++i)
      for (std::int64_t j = 0; j < expected[i].second->size(); ++j)
        ASSERT_EQ(results(c, again)[i].second->get(j), expected[i].second->get(j)) << expected[i].first;
  }
}

ChunkSummaryConfig config_of(const nlohmann::json& scalars) {
  const std::map<std::string, Adapter> adapters{{"none", Adapter::none},
                                                {"linear", Adapter::linear},
                                                {"linear_layernorm", Adapter::linear_layernorm},
                                                {"learned", Adapter::learned}};
  const std::map<std::string, Proposal> proposals{
      {"qk", Proposal::qk}, {"k", Proposal::k}, {"zero", Proposal::zero}};
  return {scalars.at("chunk"), adapters.at(scalars.at("adapter")), proposals.at(scalars.at("proposal")), {}};
}

// Another program's float64: 1e-12 is a thousand roundings. In float32 the inputs' own rounding comes in,
// 2^-24 of values up to a hundred times their spread.
TEST(ChunkSummary, MatchesPyTorch) {
  const auto ops = make_test_ops();
  const PyTorchFixtures fixtures;
  ASSERT_GT(fixtures.cases("chunk_summary").size(), 10u);
  for (const std::string& name : fixtures.cases("chunk_summary")) {
    SummaryTensors expected;
    for (auto [tensor, x] : std::vector<std::pair<const char*, TestTensor*>>{{"q", &expected.q},
                                                                             {"k", &expected.k},
                                                                             {"v", &expected.v},
                                                                             {"kappa", &expected.kappa},
                                                                             {"beta", &expected.beta},
                                                                             {"dkappa", &expected.dkappa},
                                                                             {"dbeta", &expected.dbeta},
                                                                             {"dq", &expected.dq},
                                                                             {"dk", &expected.dk},
                                                                             {"dv", &expected.dv}})
      *x = fixtures.tensor(name, tensor);
    const char* parameters[] = {"key_weight",   "key_bias",   "key_norm_weight",   "key_norm_bias",
                                "query_weight", "query_bias", "query_norm_weight", "query_norm_bias",
                                "mu",           "phi"};
    for (std::size_t i = 0; i < std::size(parameters); ++i) {
      *expected.parameters.all()[i] = fixtures.tensor(name, parameters[i]);
      *expected.gradients.all()[i] = fixtures.tensor(name, std::string("d") + parameters[i]);
    }
    const Shape shape = expected.q.shape();
    const Case c{shape[0], shape[1], shape[2], shape[3], config_of(fixtures.scalars(name))};
    for (const DType dtype : on_this_device({DType::f64, DType::f32})) {
      SCOPED_TRACE(name + " " + name_of(dtype));
      SummaryTensors ours = converted(expected, dtype);
      run_forward(*ops, c, ours);
      run_backward(*ops, c, ours);
      expect_close(c, ours, expected, dtype == DType::f64 ? 1e-12 : 1e-5);
    }
  }
}

}  // namespace
}  // namespace flasheva
