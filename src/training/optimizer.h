// Clipping by the global gradient norm and AdamW over the trained parameters of a model.
//
// Sharded (ZeRO stages 1 and 2, Rajbhandari et al., 2020), every rank keeps the moments of its share of the
// elements alone, needs the summed gradients of that share alone, updates it, and gets the rest of the
// weights from the others. The share is one piece of each bucket of gradients, whatever tensors it falls
// into.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "src/config/config.h"
#include "src/distributed/communicator.h"
#include "src/model/parameters.h"

namespace flasheva {

// The gradient's norm over all trained parameters, and by part of the model ("layers.3", "embed_in", ...).
struct GradientNorms {
  double global = 0;
  std::map<std::string, double> by_part;
  // The tensor whose gradient was not finite first, as the backward pass goes; "" if there is none.
  std::string first_non_finite;
};

// What each rank keeps of its share of the elements alone.
enum class Sharding : std::uint8_t { none, moments, gradients /* and moments */ };

class Optimizer {
 public:
  // This rank's piece of a bucket.
  struct Piece {
    Range range;       // of all gradients
    Tensor gradients;  // (range.size()), where they are sharded
  };

  // The elements of one parameter that this rank updates: all of them, or what of them falls into a piece.
  struct Segment {
    Parameter* parameter;
    std::int64_t first, count;
    const Piece* piece;                  // null where they are all of them
    std::int64_t place;                  // of the first in the piece
    Tensor first_moment, second_moment;  // (count) AdamW's m and v

    Tensor gradient() const;  // (count) the piece's or the parameter's

    bool whole() const { return count == parameter->shape.size(); }
  };

  // Foresees the moments of rank `rank` of `ranks`, and its share of gradients; those of `parameters` that
  // are trained must be selected. `buckets` cover all gradients.
  void plan(MemoryPlan& plan, ParameterTable& parameters, Sharding sharding, std::vector<Range> buckets,
            int rank, int ranks);

  // Where gradients are sharded: this rank's share = 0.
  void zero_gradients(Ops& ops);
  // Those of a piece += gradients.
  void add_gradients(Ops& ops, Range range, Tensor gradients);

  // Of gradients / loss_scale; gradients are sums over ranks, everywhere or on this rank's share. The same on
  // all ranks.
  GradientNorms norms(Ops& ops, Communicator& communicator, double loss_scale) const;

  // gradients / loss_scale x min(1, clip / (gradient_norm + 1e-6)) enter AdamW; clip 0: off. `step` counts
  // this phase's updates from 1. Weight decay on tensors of two or more dimensions only. Refreshes the copies
  // in 16 bits where there are any. `scratch` is of one bucket.
  void update(Ops& ops, Communicator& communicator, const OptimizerConfig& config, double lr,
              std::int64_t step, double gradient_norm, double loss_scale, Tensor scratch);

  std::vector<Segment>& segments() { return segments_; }
  bool sharded() const { return sharding_ != Sharding::none; }

 private:
  void gather(Ops& ops, Communicator& communicator, Tensor scratch);

  ParameterTable* parameters_ = nullptr;
  std::vector<Segment> segments_;
  std::vector<Range> buckets_;
  std::vector<Piece> pieces_;  // of the buckets, where anything is sharded
  Sharding sharding_ = Sharding::none;
};

}  // namespace flasheva
