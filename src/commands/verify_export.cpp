#include "src/commands/verify_export.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "kernels/philox.h"
#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/text.h"
#include "src/inference/inference_model.h"
#include "src/io/embedded_files.h"
#include "src/io/model_folder.h"
#include "src/io/safetensors.h"

extern char** environ;

namespace flasheva {

namespace fs = std::filesystem;

namespace {

// Two programs that round every sum in another order differ by a few roundings a layer; a wrong formula
// differs by far more. 100 float32 epsilons, about 1e-5, are between the two.
constexpr double bound_on_relative_l2 = 100.0 * std::numeric_limits<float>::epsilon();

constexpr std::int64_t sequences = 2;

// Tokens of a sequence, and the first that is decoded alone: past the second window of every layer, with a
// window's and several chunks' ends among those decoded.
struct Lengths {
  std::int64_t tokens = 0, decode_from = 0;
};

Lengths lengths_for(const ModelConfig& config) {
  std::int64_t window = 16, chunk = 4;
  for (const LayerAttention& layer : config.attention) {
    if (layer.kind != AttentionKind::full) window = std::max(window, layer.window);
    if (layer.kind == AttentionKind::eva) chunk = std::max(chunk, layer.chunk);
  }
  return {2 * window + chunk + 3, 2 * window - 2};
}

// A folder under the system's temporary one, removed at the end.
class Exchange {
 public:
  Exchange() {
    std::string name = (fs::temp_directory_path() / "flasheva-verify-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) fail(ExitCode::disk, "{}: cannot make a temporary folder", name);
    path = name;
  }
  ~Exchange() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  fs::path path;
};

// Writes random tokens and the logits that we give them.
void write_ours(const fs::path& path, const fs::path& folder, std::int64_t T, Ops& ops) {
  InferenceModel model(folder, ops, Precision::fp32, {1, T},
                       "the folder is kept; for --verify use --device cpu or a machine with more memory");
  const std::int64_t V = model.config().vocab_size;
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(sequences * T));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(philox4x32({{static_cast<std::uint32_t>(i), 0, 0, 4}}, 0).word[0] %
                                          static_cast<std::uint64_t>(V));
  std::vector<float> logits(static_cast<std::size_t>(sequences * T * V));
  for (std::int64_t b = 0; b < sequences; ++b)
    model.logits(view_of(logits.data() + b * T * V, {T, V}), view_of(tokens.data() + b * T, {T}), {1, T});
  write_safetensors(path,
                    {{"tokens", {StoredType::I32, {sequences, T}, std::as_bytes(std::span(tokens))}},
                     {"logits", {StoredType::F32, {sequences, T, V}, std::as_bytes(std::span(logits))}}});
}

// The exit code of a program whose output goes to `log`; 127 where it cannot be run.
int run_program(std::vector<std::string> words, const fs::path& log) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t process = 0;
  const int error = ::posix_spawnp(&process, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return 127;
  int status = 0;
  ::waitpid(process, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

std::string last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of('\n') + 1;
  const std::size_t before = text.rfind('\n', end == 0 ? 0 : end - 1);
  return text.substr(before == std::string::npos ? 0 : before + 1, end);
}

// What went wrong, in one line.
[[noreturn]] void fail_running(const std::string& python, const fs::path& folder, int code,
                               const fs::path& log) {
  if (code == 127)
    fail(ExitCode::usage, "--python {}: cannot be run; name a Python with transformers", python);
  const std::string said = printable(last_line(read_text_file(log)), 200);
  if (said.starts_with("no "))
    fail(ExitCode::usage, "--python {}: has {}; name a Python with torch, transformers and safetensors",
         python, said);
  fail(ExitCode::other, "{}: transformers cannot compute it: {}", folder.string(), said);
}

}  // namespace

Verification verify_export(const fs::path& folder, const std::string& python, Ops& ops) {
  const Exchange exchange;
  const Lengths lengths = lengths_for(read_model_config(folder));
  write_ours(exchange.path / "ours.safetensors", folder, lengths.tokens, ops);
  const fs::path script = exchange.path / "verify_export.py", log = exchange.path / "log";
  write_file_atomically(script, embedded_file("verify_export.py"));
  const int code = run_program({python, script.string(), fs::absolute(folder).string(),
                                exchange.path.string(), std::to_string(lengths.decode_from)},
                               log);
  if (code != 0) fail_running(python, folder, code, log);

  const auto result = nlohmann::json::parse(read_text_file(exchange.path / "result.json"));
  Verification verification{result.at("transformers"), result.at("torch"), bound_on_relative_l2, {}};
  const auto number = [](const nlohmann::json& value) {
    return value.is_number() ? value.get<double>() : std::nan("");
  };
  for (const auto& row : result.at("rows"))
    verification.rows.push_back({row.at("name"), number(row.at("max_abs")), number(row.at("relative_l2"))});
  return verification;
}

void require_within_bound(const fs::path& folder, const Verification& verification) {
  for (const Verification::Row& row : verification.rows)
    if (!(row.relative_l2 <= verification.bound))
      fail(ExitCode::numeric,
           "{}: logits of transformers {} ({}) differ by {:.2e} (relative L2), more than {:.2e}; the folder "
           "is "
           "kept, do not trust it",
           folder.string(), verification.transformers, row.name, row.relative_l2, verification.bound);
}

}  // namespace flasheva
