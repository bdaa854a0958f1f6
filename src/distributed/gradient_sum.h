// The sum of all gradients over ranks, begun while the backward pass still computes: gradients stand one
// behind the other in the order of the model, the backward pass finishes them from the end, and every bucket
// of them that is final is summed in the background.
#pragma once

#include <cstdint>
#include <vector>

#include "src/distributed/communicator.h"

namespace flasheva {

class GradientSum {
 public:
  // A bucket: large enough that a sum is bound by the network's bytes, not by its latency.
  static constexpr std::int64_t bucket_elements = 4 << 20;

  explicit GradientSum(Communicator& communicator) : communicator_(communicator) {}

  // Elements of scratch memory that sums of `elements` gradients over `ranks` need.
  static std::int64_t scratch_elements(std::int64_t elements, int ranks);

  // The buckets of a range of gradients, in the order in which they are summed.
  static std::vector<Range> buckets(Range gradients);

  // `gradients` (elements), all of them, are about to be computed. Both tensors stay the caller's. `sharded`:
  // this rank needs the sums of its piece of each bucket alone. `travel`: as what they travel
  // (communicator.h).
  void begin(Tensor gradients, Tensor scratch, bool sharded, DType travel);
  // Those from element `first` on are final.
  void final_from(std::int64_t first);
  // All are final; they (sharded: this rank's pieces) are sums over ranks when this returns.
  void finish();

 private:
  Communicator& communicator_;
  Tensor gradients_, scratch_;
  bool sharded_ = false;
  DType travel_ = DType::f32;
  std::vector<Range> buckets_;
  std::size_t started_ = 0;  // buckets
};

}  // namespace flasheva
