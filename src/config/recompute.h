// Which activations a training step keeps from the forward to the backward pass.
#pragma once

#include <cstdint>

namespace flasheva {

// What is not kept is computed again, to the same bits, when a block's backward pass needs it;
// BlockActivations (layers/activations.h) says which tensors those are.
enum class Recompute : std::uint8_t {
  none,       // nothing
  attention,  // what attention reads, and what norms and GELU give: one product a layer
  block,      // everything of a block from its input
};

}  // namespace flasheva
