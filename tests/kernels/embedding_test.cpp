#include "tests/kernels/operation_test.h"
#include "tests/kernels/operations.h"

namespace flasheva {
namespace {

Tensors run(Ops& ops, DType dtype, const Tensors& in, const Scalars&, double begin) {
  TestTensor table = in.at("table").converted(dtype), dout = in.at("dout").converted(dtype);
  TestTensor tokens = in.at("tokens");
  TestTensor out(dtype, dout.shape());
  ops.embedding_forward(out, tokens, table);
  TestTensor dtable = filled(accumulation_type(dtype), table.shape(), begin);
  ops.embedding_backward(dtable, dout, tokens);
  return {{"out", out}, {"dtable", dtable}};
}

Tensors plain(const Tensors& in, const Scalars&, const RoundTo& r) {
  const TestTensor &table = in.at("table"), &dout = in.at("dout"), &tokens = in.at("tokens");
  const std::int64_t width = table.shape()[1];
  TestTensor out(DType::f64, dout.shape()), dtable = filled(DType::f64, table.shape(), 0);
  for (std::int64_t n = 0; n < tokens.size(); ++n)
    for (std::int64_t i = 0; i < width; ++i) {
      const std::int64_t element = static_cast<std::int64_t>(tokens.get(n)) * width + i;
      out.set(n * width + i, table.get(element));
      dtable.set(element, dtable.get(element) + dout.get(n * width + i));
    }
  return {{"out", out}, {"dtable", dtable.converted(r.dtype)}};
}

}  // namespace

const Operation embedding{"embedding", run, {"dtable"}, plain};

namespace {

OperationCase sized(std::int64_t tokens, std::int32_t vocabulary, std::int64_t width) {
  const auto inputs = [=](std::mt19937_64& g) -> Tensors {
    return {{"tokens", TestTensor::random_tokens({tokens}, vocabulary, g)},
            {"table", TestTensor::random(DType::f64, {vocabulary, width}, g)},
            {"dout", TestTensor::random(DType::f64, {tokens, width}, g)}};
  };
  const std::string name = "tokens " + std::to_string(tokens) + " vocabulary " + std::to_string(vocabulary) +
                           " width " + std::to_string(width);
  return {name, &embedding, inputs, {}};
}

INSTANTIATE_TEST_SUITE_P(Embedding, GradientTest, testing::Values(sized(1, 1, 1), sized(7, 3, 17)),
                         name_of_parameter);
INSTANTIATE_TEST_SUITE_P(Embedding, PrecisionTest,
                         testing::Values(sized(1, 1, 1), sized(7, 3, 17), sized(33, 50, 7),
                                         sized(300, 33, 300), sized(2500, 70, 24), sized(64, 1, 9)),
                         name_of_parameter);

TEST(EmbeddingTest, RefusesTokensBeyondTheTable) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor table = TestTensor::zeros(DType::f32, {5, 3}), tokens = filled(DType::i32, {2}, 4);
  TestTensor out(DType::f32, {2, 3});
  ops->embedding_forward(out, tokens, table);
  for (const double token : {5.0, -1.0}) {
    tokens.set(1, token);
    EXPECT_THROW(ops->embedding_forward(out, tokens, table), std::logic_error);
    EXPECT_THROW(ops->embedding_backward(table, out, tokens), std::logic_error);
  }
}

}  // namespace
}  // namespace flasheva
