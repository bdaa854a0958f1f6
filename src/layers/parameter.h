// One named parameter with everything that belongs to it.
#pragma once

#include <string>

#include "kernels/tensor.h"

namespace flasheva {

struct Parameter {
  std::string name;  // as in the Hugging Face file
  Shape shape;
  Tensor master;    // float32 (float64 in gradient checks): what checkpoints hold
  Tensor weight;    // what is computed with: the master itself, or its bfloat16 or float16 copy
  Tensor gradient;  // of the master's type, +=; absent where frozen
  bool trained = false;
};

// Finds parameters by name; layers resolve theirs once, when they are built. nullptr: the model has none.
class ParameterSource {
 public:
  virtual ~ParameterSource() = default;
  virtual Parameter* find(const std::string& name) = 0;
  virtual Parameter& at(const std::string& name) = 0;  // std::logic_error where there is none
};

}  // namespace flasheva
