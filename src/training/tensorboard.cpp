#include "src/training/tensorboard.h"

#include <cmath>
#include <fstream>
#include <vector>

#include "src/core/error.h"
#include "src/core/log.h"
#include "src/core/machine.h"

namespace flasheva {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr const char* prefix = "events.out.tfevents.";

// Names sort by time: readers take the files of a folder in order.
fs::path path_at(const fs::path& folder, double seconds) {
  return folder / fmt::format("{}{:017.6f}", prefix, seconds);
}

// Empties earlier files, and removes those that were empty already: a TensorBoard that still reads a file
// stops where it has vanished, and goes on to the next one where it has ended.
void retire_others(const fs::path& folder, const fs::path& kept) {
  std::vector<fs::path> others;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().starts_with(prefix) && entry.path() != kept)
      others.push_back(entry.path());
  for (const fs::path& path : others) {
    std::error_code error;
    if (fs::file_size(path, error) == 0)
      fs::remove(path, error);
    else
      fs::resize_file(path, 0, error);
    if (error) fail(ExitCode::disk, "{}: cannot empty or remove: {}", path.string(), error.message());
  }
}

void add(std::vector<Scalar>& scalars, const std::string& tag, const ordered_json& value) {
  if (value.is_number() && std::isfinite(value.get<double>()))
    scalars.push_back({tag, static_cast<float>(value.get<double>())});
}

// "layers.3" -> "layer_3"
std::string layer_tag(const std::string& part) {
  constexpr std::string_view layers = "layers.";
  return part.starts_with(layers) ? "layer_" + part.substr(layers.size()) : part;
}

std::vector<Scalar> scalars_of(const ordered_json& entry) {
  std::vector<Scalar> scalars;
  for (const auto& [key, value] : entry.items()) {
    if (key == "step" || key == "run_step" || key == "time") continue;
    add(scalars, key, value);
    if (key == "grad_norm_by_part")
      for (const auto& [part, norm] : value.items()) add(scalars, "gradient_norm/" + layer_tag(part), norm);
    if (key == "attention_error")
      for (std::size_t layer = 0; layer < value.size(); ++layer)
        add(scalars, fmt::format("attention_error/layer_{}", layer), value[layer]);
  }
  return scalars;
}

}  // namespace

TensorboardLog::TensorboardLog(const fs::path& folder, const std::string& description)
    : TensorboardLog(folder, description, unix_time()) {}

TensorboardLog::TensorboardLog(const fs::path& folder, const std::string& description, double now)
    : file_(path_at(folder, now), now) {
  file_.begin_session({now, 0});
  file_.write_text({now, 0}, "run", description);
  repeat(folder / "metrics.jsonl");
  retire_others(folder, path_at(folder, now));
}

void TensorboardLog::repeat(const fs::path& metrics) {
  std::ifstream file(metrics);
  std::int64_t number = 1;
  for (std::string line; std::getline(file, line); ++number) {
    const ordered_json entry = ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (entry.is_object())
      write(entry);
    else
      log_warning(
          fmt::format("{}:{}: not a JSON object; TensorBoard goes without it", metrics.string(), number));
  }
}

void TensorboardLog::write(const ordered_json& entry) {
  const double time = entry.value("time", 0.0);
  if (entry.contains("rolled_back_to_step")) {
    file_.begin_session({time, entry["rolled_back_to_step"].get<std::int64_t>() + 1});
    return;
  }
  const std::vector<Scalar> scalars = scalars_of(entry);
  if (!scalars.empty()) file_.write_scalars({time, entry.value("run_step", std::int64_t{0})}, scalars);
}

}  // namespace flasheva
