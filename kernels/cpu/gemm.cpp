#include "kernels/cpu/gemm.h"

#include <dnnl.hpp>
#include <map>
#include <tuple>
#include <unordered_map>

#include "kernels/check.h"
#include "kernels/cpu/bf16_products.h"
#include "kernels/cpu/elementwise.h"

namespace flasheva {

namespace {

using dnnl::memory;

// A product as oneDNN gets it. Rows of the stored matrices lie a_row and b_row elements apart.
struct Matmul {
  std::int64_t m, n, k;
  bool a_transposed, b_transposed;
  std::int64_t a_row, b_row;
  DType in, out;
  bool bias, accumulate;
  auto operator<=>(const Matmul&) const = default;
};

memory::data_type onednn_type(DType type) {
  return type == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::desc matrix_description(std::int64_t rows, std::int64_t columns, DType type, std::int64_t stored_row,
                                bool transposed = false) {
  const memory::dims strides = transposed ? memory::dims{1, stored_row} : memory::dims{stored_row, 1};
  return {{rows, columns}, onednn_type(type), strides};
}

dnnl::matmul::primitive_desc describe(const Matmul& product, const dnnl::engine& engine) {
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

// Which matrices of a product are copied first, with rows a cache line further apart.
struct Spread {
  bool a = false, b = false;
};

// Weight gradients read `a` down its columns. Where its rows lie a multiple of 512 bytes apart, such a column
// is in few sets of the caches. With AVX-512, oneDNN packs both matrices, and the packing of `a` is what
// suffers: with the copy, whole training steps are 1 to 4 % faster (Zen 5, hidden sizes 512 and 1024). Below,
// matrices with a short side are multiplied where they lie (this is oneDNN's own rule): weight gradients at
// hidden size 512 ran at 60 % of the speed, 1024 x 256 at 40 %, and longer rows gained nothing. Below 256 x
// 256, copying costs what it saves.
Spread spread_of(const Matmul& product) {
  constexpr std::int64_t smallest_worth_copying = 256 * 256, longest_below_avx512 = 4096,
                         crowding_bytes = 512;
  const auto crowds = [&](std::int64_t row) {
    return row * static_cast<std::int64_t>(size_in_bytes(product.in)) % crowding_bytes == 0;
  };
  if (!product.a_transposed || product.b_transposed || product.m * product.n < smallest_worth_copying)
    return {};
  if (has(dnnl::cpu_isa::avx512_core)) return {.a = crowds(product.a_row)};
  const double sides = 1.0 / static_cast<double>(product.m) + 1.0 / static_cast<double>(product.n);
  if (sides < 0.0038) return {};
  const auto worth_copying = [&](std::int64_t row) { return crowds(row) && row <= longest_below_avx512; };
  return {worth_copying(product.a_row), worth_copying(product.b_row)};
}

// What products of matrices of a type are computed from.
DType type_of_products(DType type) {
  static const bool fast_bf16 = has_fast_bf16();
  return type == DType::bf16 && fast_bf16 ? type : DType::f32;
}

// A stored matrix as oneDNN reads it: `rows` of `columns` elements, `row` apart, where they lie or copied.
struct Operand {
  std::int64_t rows, columns, row;
  bool copied = false;

  // Its copy is of these columns, spread or not.
  void copy(std::int64_t of_columns, bool spread, DType type) {
    constexpr std::int64_t line_bytes = 64;
    copied = true;
    columns = of_columns;
    row = columns + (spread ? line_bytes / static_cast<std::int64_t>(size_in_bytes(type)) : 0);
  }
};

// How a product is computed: from which operands, in slices of how many rows.
struct Steps {
  Matmul matmul;  // of one slice
  std::int64_t rows;
  Operand a, b, bias;
  bool rounded;  // the result, to the type of the tensors

  explicit Steps(const Product& product);
  // The rows from `first` on.
  Matmul slice(std::int64_t first) const {
    Matmul some = matmul;
    some.m = std::min(matmul.m, rows - first);
    return some;
  }
};

Operand stored(std::int64_t rows, std::int64_t columns, bool transposed) {
  return transposed ? Operand{columns, rows, rows} : Operand{rows, columns, columns};
}

Steps::Steps(const Product& product)
    : rows(product.m),
      a(stored(product.m, product.k, product.a_transposed)),
      b(stored(product.k, product.n, product.b_transposed)),
      bias{1, product.n, product.n} {
  const auto [m, n, k, a_transposed, b_transposed, type, with_bias, accumulate] = product;
  const DType in = type_of_products(type);
  const bool converted = in != type;
  rounded = converted && !accumulate;
  const DType out = converted || accumulate ? DType::f32 : type;
  matmul = {m, n, k, a_transposed, b_transposed, a.row, b.row, in, out, with_bias, accumulate};
  const Spread spread = spread_of(matmul);
  constexpr std::int64_t most_spread_columns = 4096;  // of a at a time: the copy stays small
  if (spread.a) matmul.m = std::min(m, most_spread_columns);
  if (spread.a || converted) a.copy(spread.a ? matmul.m : a.columns, spread.a, in);
  if (spread.b || converted) b.copy(b.columns, spread.b, in);
  if (with_bias && converted) bias.copy(n, false, in);
  matmul.a_row = a.row;
  matmul.b_row = b.row;
}

// The most that the primitives of a product's slices ask for; bytes_of(matmul) is what one does.
template <class BytesOf>
std::int64_t most_of_slices(const Steps& steps, const BytesOf& bytes_of) {
  const std::int64_t last = (steps.rows - 1) / steps.matmul.m * steps.matmul.m;
  return std::max(bytes_of(steps.slice(0)), bytes_of(steps.slice(last)));
}

std::int64_t scratchpad_bytes(const dnnl::matmul::primitive_desc& description) {
  return static_cast<std::int64_t>(description.scratchpad_desc().get_size());
}

struct ProductScratch {
  std::byte *a, *b, *bias, *scratchpad;
  float* out;  // (M, N), where the result is rounded

  ProductScratch(Carver& carver, const Steps& steps, std::int64_t scratchpad_bytes) {
    const auto copy_of = [&](const Operand& matrix) {
      const auto element_bytes = static_cast<std::int64_t>(size_in_bytes(steps.matmul.in));
      return carver.take<std::byte>(matrix.copied ? matrix.rows * matrix.row * element_bytes : 0);
    };
    a = copy_of(steps.a), b = copy_of(steps.b), bias = copy_of(steps.bias);
    scratchpad = carver.take<std::byte>(scratchpad_bytes);
    out = carver.take<float>(steps.rounded ? steps.rows * steps.matmul.n : 0);
  }
};

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

// Primitives by shape, made when first needed.
class Gemm::OneDnn {
 public:
  std::int64_t scratchpad_bytes(const Matmul& product) { return find_or_make(product).scratchpad_bytes; }

  void execute(const Matmul& product, void* out, void* a, void* b, void* bias, void* scratchpad) {
    Primitive& primitive = find_or_make(product);
    primitive.arguments.at(DNNL_ARG_SRC).set_data_handle(a);
    primitive.arguments.at(DNNL_ARG_WEIGHTS).set_data_handle(b);
    primitive.arguments.at(DNNL_ARG_DST).set_data_handle(out);
    if (product.bias) primitive.arguments.at(DNNL_ARG_BIAS).set_data_handle(bias);
    primitive.arguments.at(DNNL_ARG_SCRATCHPAD).set_data_handle(scratchpad);
    primitive.matmul.execute(stream_, primitive.arguments);
    stream_.wait();
  }

 private:
  struct Primitive {
    dnnl::matmul matmul;
    std::unordered_map<int, memory> arguments;
    std::int64_t scratchpad_bytes;
  };

  Primitive& find_or_make(const Matmul& product) {
    const auto found = primitives_.find(product);
    if (found != primitives_.end()) return found->second;
    if (primitives_.size() == max_primitives) primitives_.clear();
    const auto description = describe(product, engine_);
    const auto argument = [&](const memory::desc& desc) { return memory(desc, engine_, DNNL_MEMORY_NONE); };
    Primitive made{dnnl::matmul(description), {}, flasheva::scratchpad_bytes(description)};
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
  std::map<Matmul, Primitive> primitives_;
};

namespace {

template <class To, class From>
void copy_rows(To* to, std::int64_t to_row, const From* from, std::int64_t from_row, std::int64_t rows,
               std::int64_t columns) {
  parallel_rows(rows, columns, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i)
      if constexpr (std::is_same_v<To, From>)
        std::copy_n(from + i * from_row, columns, to + i * to_row);
      else
        convert_range(to + i * to_row, from + i * from_row, columns);
  });
}

// Columns first .. first + columns - 1 of a stored matrix as elements of `type`: where they lie, or copied to
// `copy`.
void* operand(std::byte* copy, const Operand& how, const Tensor& matrix, DType type, std::int64_t first,
              std::int64_t columns) {
  if (!how.copied) return matrix.data;
  const std::int64_t stored_row = matrix.dim(1);
  dispatch(matrix.dtype, [&]<class From>(From) {
    const From* from = matrix.as<From>() + first;
    if (type == matrix.dtype)
      copy_rows(reinterpret_cast<From*>(copy), how.row, from, stored_row, how.rows, columns);
    else
      copy_rows(reinterpret_cast<float*>(copy), how.row, from, stored_row, how.rows, columns);
  });
  return copy;
}

}  // namespace

Gemm::Gemm(CpuScratch& scratch) : scratch_(scratch), onednn_(std::make_unique<OneDnn>()) {}
Gemm::~Gemm() = default;

std::int64_t Gemm::scratch_bytes(const Product& product) {
  if (product.type == DType::f64) return 0;
  const dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  const Steps steps(product);
  return bytes_of_layout<ProductScratch>(steps, most_of_slices(steps, [&](const Matmul& slice) {
                                           return scratchpad_bytes(describe(slice, engine));
                                         }));
}

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
  const Steps steps({a.rows(), b.columns(), a.columns(), a.transposed, b.transposed, a.matrix.dtype,
                     bias ? true : false, accumulate});
  const DType in = steps.matmul.in;
  const auto scratch = scratch_.shared<ProductScratch>(
      steps, most_of_slices(steps, [&](const Matmul& slice) { return onednn_->scratchpad_bytes(slice); }));
  const Tensor result = steps.rounded ? view_of(scratch.out, out.shape) : out;
  void* bias_data = nullptr;
  if (bias)
    bias_data = operand(scratch.bias, steps.bias, bias.reshaped({1, bias.size()}), in, 0, bias.size());
  void* b_data = operand(scratch.b, steps.b, b.matrix, in, 0, steps.b.columns);
  for (std::int64_t first = 0; first < steps.rows; first += steps.matmul.m) {
    const Matmul slice = steps.slice(first);
    const std::int64_t columns = std::min(steps.a.columns, a.matrix.dim(1) - first);
    void* a_data = operand(scratch.a, steps.a, a.matrix, in, first, columns);
    onednn_->execute(slice, result.rows(first, slice.m).data, a_data, b_data, bias_data, scratch.scratchpad);
  }
  if (steps.rounded)
    dispatch(out.dtype, [&]<class T>(T) { convert(out.as<T>(), result.as<float>(), out.size()); });
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
