//     forward   out_n = table[token_n]
//     backward  dtable[token_n] += dout_n      "+=", in the order of n whatever the number of threads
#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/elementwise.h"

namespace flasheva {

namespace {

bool all_below(const Tensor& tokens, std::int64_t vocabulary) {
  const auto* token = tokens.as<std::int32_t>();
  bool below = true;
  for (std::int64_t n = 0; n < tokens.size(); ++n) below &= token[n] >= 0 && token[n] < vocabulary;
  return below;
}

// Threads share the columns, so no two of them meet in a row of the table and none waits for another.
template <class T>
void scatter_add(Accumulator<T>* dtable, const T* dout, const std::int32_t* tokens, std::int64_t count,
                 std::int64_t width) {
  const auto add = [](auto sum, auto dout_i) { return sum + dout_i; };
  parallel_columns(width, count, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t n = 0; n < count; ++n) {
      Accumulator<T>* into = dtable + tokens[n] * width;
      const T* from = dout + n * width;
      map(into, first, last, add, into, from);
    }
  });
}

}  // namespace

void CpuOps::embedding_forward(Tensor out, Tensor tokens, Tensor table) {
  FLASHEVA_CHECK(table.shape.rank() == 2 && matches(table, table.dtype, table.shape));
  FLASHEVA_CHECK(tokens.shape.rank() == 1 && matches(tokens, DType::i32, tokens.shape));
  FLASHEVA_CHECK(matches(out, table.dtype, {tokens.dim(0), table.dim(1)}));
  FLASHEVA_CHECK(all_below(tokens, table.dim(0)));
  const std::size_t row_bytes = static_cast<std::size_t>(table.dim(1)) * size_in_bytes(table.dtype);
  const auto* from = static_cast<const std::byte*>(table.data);
  auto* into = static_cast<std::byte*>(out.data);
  const auto* token = tokens.as<std::int32_t>();
  parallel_rows(tokens.dim(0), table.dim(1), [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t n = first; n < last; ++n)
      std::memcpy(into + n * row_bytes, from + token[n] * row_bytes, row_bytes);
  });
}

void CpuOps::embedding_backward(Tensor dtable, Tensor dout, Tensor tokens) {
  FLASHEVA_CHECK(dout.shape.rank() == 2 && matches(dout, dout.dtype, dout.shape));
  FLASHEVA_CHECK(matches(tokens, DType::i32, {dout.dim(0)}));
  FLASHEVA_CHECK(dtable.shape.rank() == 2 &&
                 matches(dtable, accumulation_type(dout.dtype), {dtable.dim(0), dout.dim(1)}));
  FLASHEVA_CHECK(all_below(tokens, dtable.dim(0)));
  dispatch(dout.dtype, [&]<class T>(T) {
    scatter_add(dtable.as<Accumulator<T>>(), dout.as<T>(), tokens.as<std::int32_t>(), dout.dim(0),
                dout.dim(1));
  });
}

}  // namespace flasheva
