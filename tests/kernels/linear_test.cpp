#include "tests/kernels/operation_test.h"
#include "tests/kernels/operations.h"

namespace flasheva {
namespace {

Tensors run(Ops& ops, DType dtype, const Tensors& in, const Scalars&, double begin) {
  TestTensor x = in.at("x").converted(dtype), weight = in.at("weight").converted(dtype),
             dout = in.at("dout").converted(dtype);
  const bool with_bias = in.count("bias") > 0;
  TestTensor bias = with_bias ? in.at("bias").converted(dtype) : TestTensor();
  const DType acc = accumulation_type(dtype);
  TestTensor out(dtype, dout.shape()), dx(dtype, x.shape()),
      dweight = filled(acc, weight.shape(), begin),
      dbias = with_bias ? filled(acc, bias.shape(), begin) : TestTensor();
  ops.linear_forward(out, x, weight, bias);
  ops.linear_backward_input(dx, dout, weight);
  ops.linear_backward_weight(dweight, dbias, dout, x);
  Tensors results{{"out", out}, {"dx", dx}, {"dweight", dweight}};
  if (with_bias) results["dbias"] = dbias;
  return results;
}

Tensors plain(const Tensors& in, const Scalars&, const RoundTo& r) {
  const TestTensor &x = in.at("x"), &weight = in.at("weight"), &dout = in.at("dout");
  const std::int64_t rows = x.shape()[0], width = x.shape()[1], outputs = weight.shape()[0];
  const bool with_bias = in.count("bias") > 0;
  TestTensor out(DType::f64, dout.shape()), dx = filled(DType::f64, x.shape(), 0);
  TestTensor dweight = filled(DType::f64, weight.shape(), 0), dbias = filled(DType::f64, {outputs}, 0);
  for (std::int64_t n = 0; n < rows; ++n)
    for (std::int64_t o = 0; o < outputs; ++o) {
      const double dout_no = dout.get(n * outputs + o);
      double sum = 0;
      for (std::int64_t i = 0; i < width; ++i) {
        sum += x.get(n * width + i) * weight.get(o * width + i);
        dx.set(n * width + i, dx.get(n * width + i) + dout_no * weight.get(o * width + i));
        dweight.set(o * width + i, dweight.get(o * width + i) + dout_no * x.get(n * width + i));
      }
      out.set(n * outputs + o, with_bias ? r(r(sum) + in.at("bias").get(o)) : r(sum));
      dbias.set(o, dbias.get(o) + dout_no);
    }
  return {{"out", out},
          {"dx", dx.converted(r.dtype)},
          {"dweight", dweight.converted(r.dtype)},
          {"dbias", dbias.converted(r.dtype)}};
}

}  // namespace

const Operation linear{"linear", run, {"dweight", "dbias"}, plain};

namespace {

OperationCase sized(std::int64_t rows, std::int64_t width, std::int64_t outputs, bool bias = true) {
  const auto inputs = [=](std::mt19937_64& g) {
    Tensors tensors{{"x", TestTensor::random(DType::f64, {rows, width}, g)},
                    {"weight", TestTensor::random(DType::f64, {outputs, width}, g)},
                    {"dout", TestTensor::random(DType::f64, {rows, outputs}, g)}};
    if (bias) tensors["bias"] = TestTensor::random(DType::f64, {outputs}, g);
    return tensors;
  };
  const std::string name = "rows " + std::to_string(rows) + " width " + std::to_string(width) + " outputs " +
                           std::to_string(outputs) + (bias ? "" : " without bias");
  return {name, &linear, inputs, {}};
}

INSTANTIATE_TEST_SUITE_P(Linear, GradientTest,
                         testing::Values(sized(1, 1, 1), sized(3, 7, 5), sized(7, 3, 17, false)),
                         name_of_parameter);
INSTANTIATE_TEST_SUITE_P(Linear, PrecisionTest,
                         testing::Values(sized(1, 1, 1), sized(1, 33, 7), sized(3, 7, 17), sized(17, 33, 300),
                                         sized(300, 17, 3), sized(33, 300, 33, false), sized(300, 64, 300),
                                         sized(70, 256, 384), sized(16, 1030, 25), sized(32, 40, 12, false),
                                         sized(64, 2051, 13), sized(9, 16, 4224)),
                         name_of_parameter);

TEST(LinearTest, GradientsMayBeAbsent) {
  std::mt19937_64 generator = generator_of_inputs(3);
  const std::unique_ptr<Ops> ops = make_test_ops();
  for (const DType dtype : on_this_device({DType::f64, DType::f32, DType::bf16, DType::f16})) {
    const DType acc = accumulation_type(dtype);
    TestTensor x = TestTensor::random(dtype, {9, 5}, generator);
    TestTensor dout = TestTensor::random(dtype, {9, 6}, generator);
    TestTensor dweight = TestTensor::zeros(acc, {6, 5}), dbias = TestTensor::zeros(acc, {6});
    TestTensor dweight_alone = dweight, dbias_alone = dbias;
    ops->linear_backward_weight(dweight, dbias, dout, x);
    ops->linear_backward_weight(dweight_alone, {}, dout, x);
    ops->linear_backward_weight({}, dbias_alone, dout, x);
    EXPECT_EQ(relative_error(dweight_alone, dweight), 0);
    EXPECT_EQ(relative_error(dbias_alone, dbias), 0);
  }
}

// What generation gives does not depend on what is generated beside it.
TEST(LinearTest, FewRowsDoNotDependOnEachOther) {
  std::mt19937_64 generator = generator_of_inputs(4);
  const std::unique_ptr<Ops> ops = make_test_ops();
  constexpr std::int64_t N = 64, I = 1100, O = 55;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    TestTensor x = TestTensor::random(dtype, {N, I}, generator), out(dtype, {N, O});
    TestTensor weight = TestTensor::random(dtype, {O, I}, generator),
               bias = TestTensor::random(dtype, {O}, generator);
    ops->linear_forward(out, x, weight, bias);
    for (const std::int64_t rows : {1, 5, 16, 33})
      for (std::int64_t first = 0; first + rows <= N; first += rows) {
        TestTensor some(dtype, {rows, O});
        ops->linear_forward(some, x.view().rows(first, rows), weight, bias);
        for (std::int64_t i = 0; i < rows * O; ++i)
          ASSERT_EQ(some.get(i), out.get(first * O + i)) << rows << " rows";
      }
  }
}

// A run that goes on in another process gets the same bits, however its algorithms are chosen.
TEST(LinearTest, IsBitwiseTheSameOnEveryOps) {
  std::mt19937_64 generator = generator_of_inputs(6);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    TestTensor x = TestTensor::random(dtype, {300, 64}, generator), out(dtype, {300, 300}), again = out;
    TestTensor weight = TestTensor::random(dtype, {300, 64}, generator);
    make_test_ops()->linear_forward(out, x, weight, {});
    for (int i = 0; i < 5; ++i) {
      make_test_ops()->linear_forward(again, x, weight, {});
      EXPECT_EQ(relative_error(again, out), 0) << name_of(dtype);
    }
  }
}

// TF32 keeps 10 bits of what it reads, where a device has it and may; then float32 is what it was, to the
// bit.
TEST(LinearTest, RoundsToTf32WhileItMay) {
  std::mt19937_64 generator = generator_of_inputs(8);
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor x = TestTensor::random(DType::f32, {300, 64}, generator), out(DType::f32, {300, 300});
  TestTensor weight = TestTensor::random(DType::f32, {300, 64}, generator), rounded = out, again = out;
  ops->linear_forward(out, x, weight, {});
  ops->allow_tf32(true);
  ops->linear_forward(rounded, x, weight, {});
  ops->allow_tf32(false);
  ops->linear_forward(again, x, weight, {});
  EXPECT_EQ(relative_error(again, out), 0);
  if (make_device_ops()->device() == Device::cpu) {
    EXPECT_EQ(relative_error(rounded, out), 0);
  } else {
    EXPECT_LT(relative_error(rounded, out), 0x1p-10);
    EXPECT_GT(relative_error(rounded, out), 0x1p-14);
  }
}

// Matrices begin at any element, as parts of others may. Another order of additions is allowed there.
TEST(LinearTest, AlignmentDoesNotMatter) {
  std::mt19937_64 generator = generator_of_inputs(5);
  const std::unique_ptr<Ops> ops = make_device_ops(), on_host_memory = make_test_ops();
  for (const DType dtype : on_this_device({DType::f64, DType::f32, DType::bf16, DType::f16})) {
    TestTensor x = TestTensor::random(dtype, {70, 64}, generator), out(dtype, {70, 16}), expected = out;
    TestTensor weight = TestTensor::random(dtype, {16, 64}, generator),
               bias = TestTensor::random(dtype, {16}, generator);
    on_host_memory->linear_forward(expected, x, weight, bias);
    std::vector<DeviceMemory> memories;
    const auto shifted = [&](TestTensor& host, std::size_t elements) {
      const std::size_t shift = elements * size_in_bytes(dtype);
      memories.push_back(ops->allocate(host.view().bytes() + shift));
      const Tensor device{memories.back().get() + shift, dtype, host.shape(), ops->device()};
      ops->copy(device, host);
      return device;
    };
    const Tensor result = shifted(out, 2);
    ops->linear_forward(result, shifted(x, 0), shifted(weight, 1), shifted(bias, 3));
    ops->copy(out, result);
    EXPECT_LE(relative_error(out, expected), is_low_precision(dtype) ? 1e-3 : 1e-6) << name_of(dtype);
  }
}

TEST(LinearTest, RefusesWrongShapesAndTypes) {
  const std::unique_ptr<Ops> ops = make_test_ops();
  TestTensor x = TestTensor::zeros(DType::f32, {9, 5}), weight = TestTensor::zeros(DType::f32, {6, 5}),
             out(DType::f32, {9, 6}), narrow(DType::f32, {9, 5}), bias(DType::bf16, {6}),
             dweight(DType::f64, {6, 5});
  EXPECT_THROW(ops->linear_forward(narrow, x, weight, {}), std::logic_error);
  EXPECT_THROW(ops->linear_forward(out, x, weight, bias), std::logic_error);
  EXPECT_THROW(ops->linear_backward_input(out, x, weight), std::logic_error);
  EXPECT_THROW(ops->linear_backward_weight(dweight, {}, out, x), std::logic_error);
}

}  // namespace
}  // namespace flasheva
