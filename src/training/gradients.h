// The gradients of a phase: where they stand while they are computed, and how they are summed over ranks.
//
// Whole: memory for all of them. Micro batches add up; during this rank's last backward pass every bucket
// that is final is summed while the next one is computed.
//
// In shares (ZeRO stage 2, Rajbhandari et al., 2020): memory for few layers at a time. As soon as a layer's
// gradients are final they are summed over ranks while the next layer's are computed in another slot, and
// this rank's piece of the sums is added to the optimizer's share. So each micro batch travels for itself:
// that is the price.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/buffer.h"
#include "src/config/config.h"
#include "src/distributed/communicator.h"
#include "src/model/parameters.h"
#include "src/training/optimizer.h"

namespace flasheva {

class Gradients {
 public:
  virtual ~Gradients() = default;

  // Foresees them for a model of so many layers; the trained parameters must be selected.
  virtual void plan(MemoryPlan& plan, ParameterTable& parameters, int layers) = 0;
  // The ranges of all gradients, in the order of the model, that are summed at once; the last ones first.
  virtual std::vector<Range> buckets() const = 0;

  // A step begins. All that is named must last until its end. `scratch`: for sums of one bucket; `travel`: as
  // what gradients travel (communicator.h).
  struct Step {
    Ops& ops;
    Communicator& communicator;
    Optimizer& optimizer;
    Tensor scratch;
    DType travel;
  };
  virtual void begin_step(const Step& step) = 0;
  // A backward pass begins: this rank's last of the step, or not.
  virtual void begin_pass(bool last) = 0;
  // Those of a layer and of all behind it are final in this pass; the number of layers stands for final norm
  // and head.
  virtual void layer_done(int layer) = 0;
  virtual void end_pass() = 0;
  // In place of a pass, where other ranks have more micro batches than this one.
  virtual void pass_by() = 0;
  // All are sums over ranks when this returns, as far as this rank's optimizer needs them.
  virtual void end_step() = 0;
};

std::unique_ptr<Gradients> make_gradients(Sharding sharding);

}  // namespace flasheva
