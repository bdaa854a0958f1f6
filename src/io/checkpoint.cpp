#include "src/io/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/pieces_done.h"
#include "src/io/model_folder.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

constexpr const char* manifest_name = "manifest.json";
constexpr const char* temporary_prefix = "writing-";

CheckpointFile describe(const fs::path& file) {
  return {file.filename().string(), fs::file_size(file), checksum_of_file(file)};
}

// The manifest that FOLDER's files deserve; those that are `known` are not read. Readers compare the whole
// text, so that a flipped bit in the manifest itself shows as well.
std::string make_manifest(const fs::path& folder, const std::vector<CheckpointFile>& known = {}) {
  nlohmann::json files = nlohmann::json::object();
  const auto add = [&](const CheckpointFile& file) {
    files[file.name] = {{"bytes", file.bytes}, {"xxh3_128", file.xxh3_128}};
  };
  for (const CheckpointFile& file : known) add(file);
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name != manifest_name && !files.contains(name)) add(describe(entry.path()));
  }
  return nlohmann::json{{"format", 1}, {"files", files}}.dump(1) + "\n";
}

// Checkpoint folders by step, newest first.
std::vector<fs::path> checkpoint_folders(const fs::path& checkpoints) {
  std::vector<fs::path> folders;
  std::error_code missing;
  for (const fs::directory_entry& entry : fs::directory_iterator(checkpoints, missing)) {
    const std::string name = entry.path().filename().string();
    const bool numbered = name.starts_with("step-") && name.size() > 5 && name.size() <= 23 &&
                          name.find_first_not_of("0123456789", 5) == std::string::npos;
    if (numbered && entry.is_directory()) folders.push_back(entry.path());
  }
  const auto number = [](const fs::path& folder) {
    return std::stoull(folder.filename().string().substr(5));
  };
  std::sort(folders.begin(), folders.end(),
            [&](const auto& a, const auto& b) { return number(a) > number(b); });
  return folders;
}

std::string folder_name(std::int64_t step) { return fmt::format("step-{:09}", step); }

nlohmann::json read_state(const fs::path& folder) {
  return nlohmann::json::parse(read_text_file(folder / "state.json"));
}

// A damaged one counts as any other.
bool is_interim(const fs::path& folder) {
  try {
    return read_state(folder).value("interim", false);
  } catch (const std::exception&) {
    return false;
  }
}

// Leaves the checkpoint of `newest` and those before it, `keep` without interim ones. Later ones are damaged,
// or the run would have gone on from them: they must not count, nor be found once this one is pruned. What a
// killed process was writing goes too.
void prune(const fs::path& checkpoints, const fs::path& newest, std::int64_t keep) {
  std::error_code ignored;  // a folder that stays does no harm
  for (const fs::directory_entry& entry : fs::directory_iterator(checkpoints, ignored))
    if (entry.path().filename().string().starts_with(temporary_prefix)) fs::remove_all(entry.path(), ignored);
  const std::vector<fs::path> folders = checkpoint_folders(checkpoints);
  const auto own = std::find(folders.begin(), folders.end(), newest) - folders.begin();
  std::int64_t kept = 0;
  for (auto i = std::ptrdiff_t{0}; i < std::ssize(folders); ++i) {
    const fs::path& folder = folders[static_cast<std::size_t>(i)];
    const bool interim = i >= own && is_interim(folder);
    if (i == own || (i > own && !interim && kept < keep))
      kept += !interim;
    else
      fs::remove_all(folder, ignored);
  }
}

// Refuses before a byte is written where the disk cannot hold the checkpoint.
void require_space(const fs::path& folder, std::uintmax_t bytes) {
  std::error_code unknown;
  const fs::space_info space = fs::space(folder, unknown);
  if (!unknown && space.available < bytes)
    fail(ExitCode::disk, "{}: a checkpoint needs {} MB and {} MB are free; free some space and start again",
         folder.string(), bytes / 1000000 + 1, space.available / 1000000);
}

void move_into_place(const fs::path& temporary, const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (!error) fs::rename(temporary, folder, error);
  if (error) fail(ExitCode::disk, "{}: cannot write: {}", folder.string(), error.message());
  sync_folder(folder.parent_path());
}

}  // namespace

CheckpointWriter::CheckpointWriter(const fs::path& checkpoints, std::int64_t step)
    : folder_(checkpoints / folder_name(step)),
      temporary_(checkpoints / (temporary_prefix + folder_name(step))) {}

void CheckpointWriter::begin(std::uintmax_t bytes) {
  constexpr std::uintmax_t small_files = 1 << 20;
  create_folders(folder_.parent_path());
  abandon();
  require_space(folder_.parent_path(), bytes + small_files);
  create_folders(temporary_);
}

std::string moments_file_name(int part, int parts) {
  return parts == 1 ? "optimizer.safetensors"
                    : fmt::format("optimizer-{:05}-of-{:05}.safetensors", part + 1, parts);
}

CheckpointFile CheckpointWriter::write_moments(const NamedTensors& moments, int part, int parts) {
  const fs::path file = temporary_ / moments_file_name(part, parts);
  write_safetensors(file, moments);
  return describe(file);
}

void CheckpointWriter::write_model(const NamedTensors& model, const nlohmann::json& state,
                                   const ModelConfig& config, const fs::path& tokenizer_from) {
  write_model_folder_files(temporary_, config, "float32", tokenizer_from);
  write_safetensors(temporary_ / "model.safetensors", model, {{"format", "pt"}});
  write_file_atomically(temporary_ / "state.json", state.dump(1) + "\n");
}

void CheckpointWriter::finish(const std::vector<CheckpointFile>& moments, std::int64_t keep) {
  for (const CheckpointFile& file : moments)
    if (!fs::exists(temporary_ / file.name))
      fail(
          ExitCode::disk,
          "{}: another rank wrote it and it is not here; run.output must be a folder that all machines share",
          (temporary_ / file.name).string());
  write_file_atomically(temporary_ / manifest_name, make_manifest(temporary_, moments));
  move_into_place(temporary_, folder_);
  prune(folder_.parent_path(), folder_, keep);
}

void CheckpointWriter::abandon() {
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

std::string checkpoint_fault(const fs::path& folder) {
  try {
    if (!fs::exists(folder / manifest_name)) return "no manifest.json";
    const std::string manifest = read_text_file(folder / manifest_name);
    if (manifest == make_manifest(folder)) return "";
    const nlohmann::json said = nlohmann::json::parse(manifest, nullptr, false);
    const nlohmann::json is = nlohmann::json::parse(make_manifest(folder));
    if (said.is_discarded() || !said.is_object() || !said.contains("files"))
      return "manifest.json is damaged";
    for (const auto& [name, entry] : is["files"].items())
      if (!said["files"].contains(name) || said["files"][name] != entry)
        return fmt::format("{} is not what manifest.json says", name);
    return "files are missing, or manifest.json is damaged";
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::optional<FoundCheckpoint> newest_valid_checkpoint(const fs::path& checkpoints,
                                                       const std::function<void(const std::string&)>& warn) {
  for (const fs::path& folder : checkpoint_folders(checkpoints)) {
    const std::string fault = checkpoint_fault(folder);
    if (fault.empty()) return FoundCheckpoint{folder, read_state(folder)};
    warn(fmt::format("{}: {}; it is passed over", folder.string(), fault));
  }
  return std::nullopt;
}

FoundCheckpoint checkpoint_of_step(const fs::path& checkpoints, std::int64_t step) {
  const fs::path folder = checkpoints / folder_name(step);
  if (!fs::exists(folder / "state.json"))
    fail(ExitCode::data,
         "{}: rank 0 goes on from it and it is not here; run.output must be a folder that all "
         "machines share",
         folder.string());
  return {folder, read_state(folder)};
}

std::string name_of_part(const std::string& tensor, std::int64_t first, bool whole) {
  return whole ? tensor : fmt::format("{}#{}", tensor, first);
}

StoredMoments::StoredMoments(const fs::path& folder) : folder_(folder) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with("optimizer") || entry.path().extension() != ".safetensors") continue;
    files_.push_back(std::make_unique<SafetensorsReader>(entry.path()));
    for (const auto& [name, elements] : files_.back()->tensors()) {
      const std::size_t mark = name.find('#');
      const bool whole = mark == std::string::npos;
      parts_[name.substr(0, mark)].push_back({whole ? 0 : std::stoll(name.substr(mark + 1)), &elements});
    }
  }
}

void StoredMoments::load(Tensor out, const std::string& tensor, std::int64_t first) const {
  std::int64_t found = 0;
  const auto parts = parts_.find(tensor);
  if (parts != parts_.end())
    for (const Part& part : parts->second) {
      const std::int64_t begin = std::max(first, part.first);
      const std::int64_t end = std::min(first + out.size(), part.first + part.elements->size());
      if (begin >= end || part.elements->dtype != StoredType::F32) continue;
      std::memcpy(out.as<float>() + (begin - first),
                  part.elements->data.data() + static_cast<std::size_t>(begin - part.first) * sizeof(float),
                  static_cast<std::size_t>(end - begin) * sizeof(float));
      found += end - begin;
      ++pieces_done;
    }
  if (found != out.size())
    fail(ExitCode::data, "{}: elements {} .. {} of {} are not all there; go on from another checkpoint",
         folder_.string(), first, first + out.size() - 1, tensor);
}

}  // namespace flasheva
