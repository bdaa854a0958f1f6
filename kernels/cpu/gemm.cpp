#include "kernels/cpu/gemm.h"

#include <dnnl.hpp>
#include <map>
#include <tuple>
#include <unordered_map>

#include "kernels/check.h"
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/growing_buffer.h"

namespace flasheva {

namespace {

using dnnl::memory;

// What a oneDNN primitive is made for. Rows of the stored matrices lie a_row and b_row elements apart.
struct Product {
  std::int64_t m, n, k;
  bool a_transposed, b_transposed;
  std::int64_t a_row, b_row;
  DType in, out;
  bool bias, accumulate;
  auto operator<=>(const Product&) const = default;
};

memory::data_type onednn_type(DType type) {
  return type == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::desc matrix_description(std::int64_t rows, std::int64_t columns, DType type, std::int64_t stored_row,
                                bool transposed = false) {
  const memory::dims strides = transposed ? memory::dims{1, stored_row} : memory::dims{stored_row, 1};
  return {{rows, columns}, onednn_type(type), strides};
}

dnnl::matmul::primitive_desc describe(const Product& product, const dnnl::engine& engine) {
  const auto [m, n, k] = std::tuple(product.m, product.n, product.k);
  const memory::desc a = matrix_description(m, k, product.in, product.a_row, product.a_transposed);
  const memory::desc b = matrix_description(k, n, product.in, product.b_row, product.b_transposed);
  const memory::desc out = matrix_description(m, n, product.out, n);
  const memory::desc bias = product.bias ? matrix_description(1, n, product.in, n) : memory::desc();
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (product.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
#if DNNL_VERSION_MAJOR >= 3
  if (!product.bias) return {engine, a, b, out, attributes};
  return {engine, a, b, bias, out, attributes};
#else
  return {dnnl::matmul::desc(a, b, bias, out), attributes, engine};
#endif
}

// Whether the CPU has the instructions, and DNNL_MAX_CPU_ISA, which caps them, allows them.
bool has(dnnl::cpu_isa level) {
  const auto wanted = static_cast<unsigned>(level);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & wanted) == wanted;
}

// Whether products of bfloat16 matrices are faster than those of the same matrices widened to float32.
// AVX-512's dot product of pairs does twice the arithmetic of a float32 FMA on AMD's cores (Zen 5: 440
// against 230 GFLOP/s a core), but half of it on Intel's (Sapphire Rapids: 78 against 165). AMX's products,
// which oneDNN has, are faster.
bool has_fast_bf16_pairs() { return has(dnnl::cpu_isa::avx512_core_bf16) && !__builtin_cpu_is("intel"); }
bool has_fast_bf16() { return has(dnnl::cpu_isa::avx512_core_amx) || has_fast_bf16_pairs(); }

// Below AVX-512, oneDNN multiplies matrices with a short side where they lie, without packing them (this is
// its own rule). A product down the columns of rows that lie a multiple of 512 bytes apart then sees few sets
// of the caches: weight gradients at hidden size 512 ran at 60 % of the speed, 1024 x 256 at 40 %. Below 256
// x 256, copying costs what it saves.
bool crowds_cache_sets(const Product& product) {
  const double sides = 1.0 / static_cast<double>(product.m) + 1.0 / static_cast<double>(product.n);
  constexpr std::int64_t smallest_worth_copying = 256 * 256;
  return product.in == DType::f32 && product.m * product.n >= smallest_worth_copying &&
         product.a_transposed && !product.b_transposed && sides >= 0.0038 && !has(dnnl::cpu_isa::avx512_core);
}

void product_float64(Tensor out, Factor a, Factor b, Tensor bias, bool accumulate) {
  const std::int64_t m = a.rows(), n = b.columns(), k = a.columns();
  const std::int64_t a_row = a.transposed ? 1 : k, a_column = a.transposed ? m : 1;
  const std::int64_t b_row = b.transposed ? 1 : n, b_column = b.transposed ? k : 1;
  parallel_rows(m, n * k, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        double& element = out.as<double>()[i * n + j];
        double sum = accumulate ? element : bias ? bias.as<double>()[j] : 0;
        for (std::int64_t l = 0; l < k; ++l)
          sum += a.matrix.as<double>()[i * a_row + l * a_column] *
                 b.matrix.as<double>()[l * b_row + j * b_column];
        element = sum;
      }
    }
  });
}

}  // namespace

// Primitives by shape, made when first needed, and the memory they work in.
class Gemm::OneDnn {
 public:
  void execute(const Product& product, void* out, void* a, void* b, void* bias) {
    Primitive& primitive = find_or_make(product);
    primitive.arguments.at(DNNL_ARG_SRC).set_data_handle(a);
    primitive.arguments.at(DNNL_ARG_WEIGHTS).set_data_handle(b);
    primitive.arguments.at(DNNL_ARG_DST).set_data_handle(out);
    if (product.bias) primitive.arguments.at(DNNL_ARG_BIAS).set_data_handle(bias);
    auto* scratchpad = scratchpad_.take<std::byte>(primitive.scratchpad_bytes);
    primitive.arguments.at(DNNL_ARG_SCRATCHPAD).set_data_handle(scratchpad);
    primitive.matmul.execute(stream_, primitive.arguments);
    stream_.wait();
  }

  // The tensor's elements as float32, in memory kept for this use.
  static Tensor widen(GrowingBuffer& memory, const Tensor& tensor) {
    const Tensor wide = view_of(memory.take<float>(tensor.size()), tensor.shape);
    dispatch(tensor.dtype, [&]<class T>(T) { convert(wide.as<float>(), tensor.as<T>(), tensor.size()); });
    return wide;
  }

  // The matrix, in memory kept for this use and with rows a cache line further apart, if they crowd; `row` is
  // their distance.
  static void* spread(GrowingBuffer& memory, const Tensor& matrix, std::int64_t& row) {
    constexpr std::int64_t longest_worth_copying = 4096, line = 16;
    const std::int64_t rows = matrix.dim(0), columns = matrix.dim(1);
    if (columns % 128 != 0 || columns > longest_worth_copying) return matrix.data;
    row = columns + line;
    auto* copy = memory.take<float>(rows * row);
    parallel_rows(rows, columns, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i)
        std::copy_n(matrix.as<float>() + i * columns, columns, copy + i * row);
    });
    return copy;
  }

  GrowingBuffer wide_a, wide_b, wide_bias, wide_out, spread_a, spread_b;
  const bool fast_bf16 = has_fast_bf16();

 private:
  struct Primitive {
    dnnl::matmul matmul;
    std::unordered_map<int, memory> arguments;
    std::int64_t scratchpad_bytes;
  };

  Primitive& find_or_make(const Product& product) {
    const auto found = primitives_.find(product);
    if (found != primitives_.end()) return found->second;
    if (primitives_.size() == max_primitives) primitives_.clear();
    const auto description = describe(product, engine_);
    const auto argument = [&](const memory::desc& desc) { return memory(desc, engine_, DNNL_MEMORY_NONE); };
    Primitive made{
        dnnl::matmul(description), {}, static_cast<std::int64_t>(description.scratchpad_desc().get_size())};
    made.arguments.emplace(DNNL_ARG_SRC, argument(description.src_desc()));
    made.arguments.emplace(DNNL_ARG_WEIGHTS, argument(description.weights_desc()));
    made.arguments.emplace(DNNL_ARG_DST, argument(description.dst_desc()));
    made.arguments.emplace(DNNL_ARG_SCRATCHPAD, argument(description.scratchpad_desc()));
    if (product.bias) made.arguments.emplace(DNNL_ARG_BIAS, argument(description.bias_desc()));
    return primitives_.emplace(product, std::move(made)).first->second;
  }

  // Prompts meet one shape a length; a training step knows a few dozen.
  static constexpr std::size_t max_primitives = 1024;

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::map<Product, Primitive> primitives_;
  GrowingBuffer scratchpad_;
};

Gemm::Gemm() : onednn_(std::make_unique<OneDnn>()) {}
Gemm::~Gemm() = default;

void Gemm::multiply(Tensor out, Factor a, Factor b, Tensor bias) {
  check_product(Device::cpu, out, a.matrix.dtype, a, b, bias);
  product(out, a, b, bias, false);
}

void Gemm::multiply_add(Tensor out, Factor a, Factor b) {
  check_product(Device::cpu, out, accumulation_type(a.matrix.dtype), a, b, {});
  product(out, a, b, {}, true);
}

void Gemm::product(Tensor out, Factor a, Factor b, Tensor bias, bool accumulate) {
  if (a.matrix.dtype == DType::f64) return product_float64(out, a, b, bias, accumulate);
  const DType type = a.matrix.dtype;
  if (is_low_precision(type) && !(type == DType::bf16 && onednn_->fast_bf16))
    return product_widened(out, a, b, bias, accumulate);
  Product product{a.rows(),     b.columns(),         a.columns(),     a.transposed,
                  b.transposed, a.matrix.dim(1),     b.matrix.dim(1), a.matrix.dtype,
                  out.dtype,    bias ? true : false, accumulate};
  void *a_data = a.matrix.data, *b_data = b.matrix.data;
  if (crowds_cache_sets(product)) {
    a_data = OneDnn::spread(onednn_->spread_a, a.matrix, product.a_row);
    b_data = OneDnn::spread(onednn_->spread_b, b.matrix, product.b_row);
  }
  onednn_->execute(product, out.data, a_data, b_data, bias.data);
}

void Gemm::product_widened(Tensor out, Factor a, Factor b, Tensor bias, bool accumulate) {
  OneDnn& onednn = *onednn_;
  const Factor wide_a{OneDnn::widen(onednn.wide_a, a.matrix), a.transposed};
  const Factor wide_b{OneDnn::widen(onednn.wide_b, b.matrix), b.transposed};
  const Tensor wide_bias = bias ? OneDnn::widen(onednn.wide_bias, bias) : Tensor{};
  if (out.dtype == DType::f32) return product(out, wide_a, wide_b, wide_bias, accumulate);
  const Tensor wide_out = view_of(onednn.wide_out.take<float>(out.size()), out.shape);
  product(wide_out, wide_a, wide_b, wide_bias, false);
  dispatch(out.dtype, [&]<class T>(T) { convert(out.as<T>(), wide_out.as<float>(), out.size()); });
}

Bf16Products best_bf16_products() {
#ifdef __AVX512F__
  if (has_fast_bf16_pairs()) return Bf16Products::pairs;
#endif
  return Bf16Products::widened;
}

std::string gemm_library() {
  const dnnl_version_t* version = dnnl_version();
  const char* name = has(dnnl::cpu_isa::avx512_core_amx)    ? "AMX"
                     : has(dnnl::cpu_isa::avx512_core_bf16) ? "AVX-512 with bfloat16"
                     : has(dnnl::cpu_isa::avx512_core)      ? "AVX-512"
                     : has(dnnl::cpu_isa::avx2)             ? "AVX2"
                                                            : "below AVX2";
  return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch) + " (" + name + ")";
}

}  // namespace flasheva
