// The run for TensorBoard: an event file in the output folder that says what metrics.jsonl says.
//
// Every number of an entry is a scalar of the same name at the step of the whole run; a layer's numbers are
// gradient_norm/layer_N and attention_error/layer_N. Each start of the run writes the file anew from what is
// kept of metrics.jsonl, under a new name, so that nothing appears twice and a TensorBoard that watches
// follows.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "src/io/event_file.h"

namespace flasheva {

class TensorboardLog {
 public:
  // The event file of the run in `folder`; earlier ones are emptied. `description` is shown as text
  // (Markdown).
  TensorboardLog(const std::filesystem::path& folder, const std::string& description);

  // An entry of metrics.jsonl.
  void write(const nlohmann::ordered_json& entry);

 private:
  TensorboardLog(const std::filesystem::path& folder, const std::string& description, double now);
  void repeat(const std::filesystem::path& metrics);

  EventFile file_;
};

}  // namespace flasheva
