#include "src/distributed/gradient_sum.h"

#include <algorithm>

namespace flasheva {

std::int64_t GradientSum::scratch_elements(std::int64_t elements, int ranks) {
  return flasheva::scratch_elements(std::min(elements, bucket_elements), ranks);
}

std::vector<Range> GradientSum::buckets(Range gradients) {
  std::vector<Range> buckets;
  for (std::int64_t end = gradients.end; end > gradients.begin; end = buckets.back().begin)
    buckets.push_back({std::max(gradients.begin, end - bucket_elements), end});
  return buckets;
}

void GradientSum::begin(Tensor gradients, Tensor scratch, bool sharded, DType travel) {
  gradients_ = gradients;
  scratch_ = scratch;
  sharded_ = sharded;
  travel_ = travel;
  buckets_ = buckets({0, gradients.size()});
  started_ = 0;
}

void GradientSum::final_from(std::int64_t first) {
  for (; started_ < buckets_.size() && buckets_[started_].begin >= first; ++started_) {
    const Tensor bucket = gradients_.rows(buckets_[started_].begin, buckets_[started_].size());
    if (sharded_)
      communicator_.start_reduce_scatter_sum(bucket, scratch_, travel_);
    else
      communicator_.start_all_reduce_sum(bucket, scratch_, travel_);
  }
}

void GradientSum::finish() {
  final_from(0);
  communicator_.wait();
}

}  // namespace flasheva
