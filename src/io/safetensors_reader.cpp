#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "src/core/error.h"
#include "src/core/text.h"
#include "src/io/safetensors.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

constexpr const char* single_file_name = "model.safetensors";
constexpr const char* index_file_name = "model.safetensors.index.json";
constexpr std::size_t max_index_bytes = 100'000'000;

using WeightMap = std::map<std::string, std::string>;  // tensor -> shard

// Keys are compared as they come: the parser itself would keep the last of two.
nlohmann::json parse_index(const fs::path& path) {
  constexpr int max_depth = 8;
  std::array<std::set<std::string>, max_depth> keys;  // of the object being read at each depth
  const auto check = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth >= max_depth) fail(ExitCode::data, "{}: nested deeper than an index is", path.string());
    if (event == nlohmann::json::parse_event_t::object_start) keys[depth].clear();
    if (event == nlohmann::json::parse_event_t::key && !keys[depth - 1].insert(parsed).second)
      fail(ExitCode::data, "{}: duplicate key \"{}\"", path.string(), printable(parsed.get<std::string>()));
    return true;
  };
  try {
    return nlohmann::json::parse(read_text_file(path, max_index_bytes), check);
  } catch (const nlohmann::json::exception&) {
    fail(ExitCode::data, "{}: not valid JSON", path.string());
  }
}

WeightMap read_weight_map(const fs::path& path) {
  const nlohmann::json index = parse_index(path);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    fail(ExitCode::data, "{}: weight_map, an object that names each tensor's shard, is missing",
         path.string());
  WeightMap map;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    if (!shard.is_string())
      fail(ExitCode::data, "{}: weight_map: tensor {}: the shard must be text", path.string(),
           printable(tensor));
    const std::string name = shard;
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\\\0", 3)) != name.npos)
      fail(ExitCode::data, "{}: weight_map: tensor {}: \"{}\" is not a plain file name in this folder",
           path.string(), printable(tensor), printable(name));
    map[tensor] = name;
  }
  return map;
}

}  // namespace

SafetensorsReader::SafetensorsReader(const fs::path& path) : path_(path) {
  if (!fs::is_directory(path)) {
    add_file(path);
  } else if (fs::exists(path / single_file_name)) {
    add_file(path / single_file_name);
  } else if (fs::exists(path / index_file_name)) {
    add_shards(path / index_file_name);
  } else {
    fail(ExitCode::data,
         "{}: neither {} nor {} is in this folder; weights in other formats must be saved as safetensors "
         "first",
         path.string(), single_file_name, index_file_name);
  }
}

SafetensorsView SafetensorsReader::add_file(const fs::path& file) {
  files_.push_back(std::make_unique<MappedFile>(file));
  SafetensorsView view = parse_safetensors(files_.back()->bytes(), file.string());
  tensors_.insert(view.tensors.begin(), view.tensors.end());
  metadata_.insert(view.metadata.begin(), view.metadata.end());
  return view;
}

void SafetensorsReader::add_shards(const fs::path& index) {
  const WeightMap shard_of = read_weight_map(index);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);

  for (const std::string& shard : shards) {
    const fs::path file = index.parent_path() / shard;
    if (!fs::exists(file))
      fail(ExitCode::data, "{}: the shard {} is missing", index.string(), printable(shard));
    for (const auto& [name, tensor] : add_file(file).tensors) {
      const auto indexed = shard_of.find(name);
      if (indexed == shard_of.end())
        fail(ExitCode::data, "{}: tensor {} is not in {}", file.string(), printable(name), index_file_name);
      if (indexed->second != shard)
        fail(ExitCode::data, "{}: tensor {} is here, but {} places it in {}", file.string(), printable(name),
             index_file_name, printable(indexed->second));
    }
  }
  for (const auto& [name, shard] : shard_of)
    if (!contains(name))
      fail(ExitCode::data, "{}: tensor {} is missing, which {} places here",
           (index.parent_path() / shard).string(), printable(name), index_file_name);
}

const StoredTensor& SafetensorsReader::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    fail(ExitCode::data, "{}: tensor {} is missing", path_.string(), printable(name));
  return found->second;
}

}  // namespace flasheva
