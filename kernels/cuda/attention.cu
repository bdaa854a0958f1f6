// Attention of all kinds, forward and backward (attention_kernels.h has the formulas' kernels):
//
//     forward   out, log_sum_exp =
//     backward  D = rowsum(dO * O);  dq =;  dk, dv =;  dkappa, dbeta = sums over segments of queries;
//               dchunk_bias += sums over tiles of queries
//
// Saved for backward are out and log_sum_exp alone. No sum depends on timing.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/warp.cuh"

namespace flasheva {

namespace {

using namespace attention;

constexpr int block_threads = 128, block_warps = block_threads / warp_size;
constexpr int row_lanes = 8, block_rows = block_threads / row_lanes;

// row_dots (B, H, T) = sums of dout * out (B, T, H d) over d: eight lanes a row. Block (head, tile of rows).
template <int width, class T, class A = Accumulator<T>>
__global__ void __launch_bounds__(block_threads)
    row_dots_kernel(A* row_dots, const T* dout, const T* out, Problem problem) {
  const int head = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x) % row_lanes;
  const int query = static_cast<int>(blockIdx.y * block_rows + threadIdx.x / row_lanes);
  const bool there = query < problem.queries;
  const std::int64_t at = merged_row(problem, head, there ? query : 0);
  A sum = 0;
  for (int i = lane * width; i < problem.head_dim; i += row_lanes * width) {
    const auto left = load_vector<width>(dout + at + i), right = load_vector<width>(out + at + i);
#pragma unroll
    for (int j = 0; j < width; ++j) sum += widened(left.value[j]) * widened(right.value[j]);
  }
  sum = warp_sum<row_lanes>(sum);
  if (there && lane == 0) row_dots[static_cast<std::int64_t>(head) * problem.queries + query] = sum;
}

// out (heads, row_elements) = the sum over segments of parts (heads, segments, row_elements).
template <class T, class A = Accumulator<T>>
__global__ void __launch_bounds__(256)
    add_segments_kernel(T* out, const A* parts, int segments, std::int64_t head_elements, std::int64_t size) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= size) return;
  const A* part = parts + i / head_elements * segments * head_elements + i % head_elements;
  A sum = 0;
  for (int segment = 0; segment < segments; ++segment) sum += part[segment * head_elements];
  out[i] = static_cast<T>(sum);
}

// dbias (H) += sums of parts (B, H, tiles) over b and tiles: a block a head.
template <class A>
__global__ void __launch_bounds__(block_threads)
    add_bias_gradient_kernel(A* dbias, const A* parts, std::int64_t sequences, int heads,
                             std::int64_t tiles) {
  __shared__ A shared[block_warps];
  const std::int64_t head = blockIdx.x;
  A sum = 0;
  for (std::int64_t i = threadIdx.x; i < sequences * tiles; i += block_threads)
    sum += parts[(i / tiles * heads + head) * tiles + i % tiles];
  sum = block_sum<block_threads>(sum, shared);
  if (threadIdx.x == 0) dbias[head] += sum;
}

template <class T, class A = Accumulator<T>>
void add_segments(cudaStream_t stream, Tensor out, const A* parts, int segments) {
  const std::int64_t head_elements = out.dim(2) * out.dim(3);
  launch(stream, add_segments_kernel<T>, {divide_up(out.size(), 256)}, 256, 0, out.as<T>(), parts, segments,
         head_elements, out.size());
}

}  // namespace

void CudaOps::attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v, Tensor kappa,
                                Tensor beta, Tensor chunk_bias, const AttentionConfig& config) {
  const AttentionSizes sizes =
      check_attention(Device::cuda, out, log_sum_exp, q, k, v, kappa, beta, chunk_bias, config);
  FLASHEVA_CHECK(sizes.d <= largest_head_dim);
  const Problem problem = make_problem(sizes, k, kappa, config);
  dispatch(q.dtype, [&]<class T>(T) {
    Kernels<T>::forward(stream_, out.as<T>(), log_sum_exp.as<Accumulator<T>>(),
                        operands_of<T>(q, k, v, kappa, beta, chunk_bias), problem, sizes.B * sizes.H);
  });
}

void CudaOps::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dkappa, Tensor dbeta,
                                 Tensor dchunk_bias, Tensor dout, Tensor out, Tensor log_sum_exp, Tensor q,
                                 Tensor k, Tensor v, Tensor kappa, Tensor beta, Tensor chunk_bias,
                                 const AttentionConfig& config) {
  const AttentionSizes sizes =
      check_attention_backward(Device::cuda, dq, dk, dv, dkappa, dbeta, dchunk_bias, dout, out, log_sum_exp,
                               q, k, v, kappa, beta, chunk_bias, config);
  FLASHEVA_CHECK(sizes.d <= largest_head_dim);
  const Problem problem = make_problem(sizes, k, kappa, config);
  const std::int64_t heads = sizes.B * sizes.H;
  dispatch(q.dtype, [&]<class T>(T) {
    using A = Accumulator<T>;
    using K = Kernels<T>;
    const auto scratch = scratch_.carve<AttentionBackwardScratch>("the backward pass of attention",
                                                                  DTypeOf<A>::value, sizes, multiprocessors_);
    A *row_dots = scratch.row_dots.template as<A>(), *dkappa_parts = scratch.dkappa.template as<A>(),
      *dbeta_parts = scratch.dbeta.template as<A>();
    A* bias_parts = dchunk_bias ? scratch.dchunk_bias.template as<A>() : nullptr;
    const Segments& segments = scratch.segments;
    const Operands<T> in = operands_of<T>(q, k, v, kappa, beta, chunk_bias);
    const OutputGradients<T> gradients{dout.as<T>(), log_sum_exp.as<A>(), row_dots};
    constexpr int width = vector_width<T>;
    launch(stream_,
           rows_are_aligned<width>(sizes.d, dout.as<T>(), out.as<T>()) ? row_dots_kernel<width, T>
                                                                       : row_dots_kernel<1, T>,
           {heads, divide_up(sizes.T, block_rows)}, block_threads, 0, row_dots, dout.as<T>(), out.as<T>(),
           problem);
    if (sizes.C > 0) {
      K::chunk_gradient(stream_, dkappa_parts, dbeta_parts, in, gradients, problem, segments, heads);
      add_segments<T>(stream_, dkappa, dkappa_parts, segments.count);
      add_segments<T>(stream_, dbeta, dbeta_parts, segments.count);
    }
    K::token_gradient(stream_, dk.as<T>(), dv.as<T>(), in, gradients, problem, heads);
    const std::int64_t tiles =
        K::query_gradient(stream_, dq.as<T>(), bias_parts, in, gradients, problem, heads);
    if (bias_parts != nullptr)
      launch(stream_, add_bias_gradient_kernel<A>, {sizes.H}, block_threads, 0, dchunk_bias.as<A>(),
             bias_parts, sizes.B, problem.heads, tiles);
  });
}

}  // namespace flasheva
