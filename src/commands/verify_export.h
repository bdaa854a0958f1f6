// convert --verify: the logits of a written model folder in Hugging Face transformers, against ours.
#pragma once

#include <filesystem>
#include <string>

#include "kernels/ops.h"
#include "src/io/model_card.h"

namespace flasheva {

// Runs the embedded verify_export.py with the interpreter `python` and compares, in float32 on both sides,
// tokens that cross the windows and chunks of every layer. Error{usage} where `python` cannot be run or lacks
// transformers.
Verification verify_export(const std::filesystem::path& folder, const std::string& python, Ops& ops);

// Error{numeric} naming the row that is above the bound (or not a number).
void require_within_bound(const std::filesystem::path& folder, const Verification& verification);

}  // namespace flasheva
