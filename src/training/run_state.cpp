#include "src/training/run_state.h"

#include <fmt/format.h>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/log.h"
#include "src/core/machine.h"
#include "src/io/model_card.h"
#include "src/io/model_folder.h"
#include "src/io/tokenizer.h"
#include "src/model/initialize.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

// What is no run's folder stays where it is.
void move_aside(const fs::path& output) {
  if (!fs::exists(output / "run.json") && !fs::exists(output / "checkpoints"))
    fail(ExitCode::usage,
         "{}: holds no run (it has no run.json), and --fresh moves runs alone; choose another run.output",
         output.string());
  const FolderLock lock(output, "run.output");
  const fs::path folder = output.has_filename() ? output : output.parent_path();  // "runs/x/"
  for (int number = 1;; ++number) {
    const fs::path aside = folder.string() + fmt::format(".before-{}", number);
    if (fs::exists(aside)) continue;
    std::error_code error;
    fs::rename(output, aside, error);
    if (error) fail(ExitCode::disk, "{}: cannot move aside: {}", output.string(), error.message());
    log_line(fmt::format("the earlier run is now {}", aside.string()));
    return;
  }
}

nlohmann::json to_json(const Progress& progress) {
  return {{"step", progress.step},
          {"phase", progress.phase},
          {"step_in_phase", progress.step_in_phase},
          {"skipped_in_phase", progress.skipped_in_phase},
          {"passed_over", progress.passed_over}};
}

Progress progress_in(const nlohmann::json& state) {
  Progress progress;
  progress.step = state.at("step");
  progress.phase = state.at("phase");
  progress.step_in_phase = state.at("step_in_phase");
  progress.skipped_in_phase = state.value("skipped_in_phase", std::int64_t{0});
  progress.passed_over = state.value("passed_over", std::int64_t{0});
  return progress;
}

nlohmann::json to_json(const LossScaler::State& state) {
  return {{"scale", state.scale}, {"finite_steps", state.finite_steps}, {"overflows", state.overflows}};
}

std::optional<LossScaler::State> loss_scale_in(const nlohmann::json& state) {
  const auto found = state.find("loss_scale");
  if (found == state.end()) return {};
  return LossScaler::State{found->at("scale"), found->at("finite_steps"), found->at("overflows")};
}

nlohmann::json to_json(const Guards::State& state) {
  return {{"losses", state.losses}, {"skips_in_a_row", state.skips_in_a_row}};
}

// Nothing is known in a checkpoint of an earlier version.
Guards::State guards_in(const nlohmann::json& state) {
  const auto found = state.find("guards");
  if (found == state.end()) return {};
  return {found->at("losses"), found->at("skips_in_a_row")};
}

}  // namespace

RunState::RunState(const Config& config, const ModelConfig& before, const ModelConfig& model,
                   std::string tokenizer, Trainer& trainer, Guards& guards, Ops& ops,
                   Communicator& communicator)
    : config_(config),
      before_(before),
      model_config_(model),
      tokenizer_name_(std::move(tokenizer)),
      trainer_(trainer),
      guards_(guards),
      ops_(ops),
      communicator_(communicator),
      writes_(communicator.rank() == 0),
      output_(config.run.output),
      saver_(output_ / "checkpoints", config.checkpoint.keep, communicator) {}

// --- the beginning -------------------------------------------------------------------------------------

void RunState::open(bool fresh) {
  together([&] { prepare_output(fresh); });
  const std::optional<FoundCheckpoint> found = find_checkpoint();
  together([&] { start_from(found); });
}

void RunState::prepare_output(bool fresh) {
  if (!writes_) return;
  find_tokenizer();
  if (fresh && fs::exists(output_) && !fs::is_empty(output_)) move_aside(output_);
  create_folders(output_);
  // The ranks of a run that was lost may still be leaving, and a file system forgets a lost machine's lock
  // only after a while (NFS 4: 90 s): a job that queued itself again must not end for it.
  lock_.emplace(output_, "run.output", 4 * config_.distributed.timeout);
  check_model_folder_destination(output_ / "model");
  if (tokenizer_folder_ == own_tokenizer_folder()) {
    create_folders(tokenizer_folder_);
    tokenizer_->write_files(tokenizer_folder_);
  }
}

// That of the model folder, or the one that the training tokens name, which the run then keeps itself.
void RunState::find_tokenizer() {
  const fs::path& from = config_.model.from;
  std::error_code unusable;  // the tokens may name anything, not always a path
  if (!from.empty() && fs::exists(from / "tokenizer.json")) {
    tokenizer_folder_ = from;
    tokenizer_ = tokenizer_for_tokens(from, config_.data.train, tokenizer_name_);
  } else if (from.empty() && (tokenizer_name_ == "bytes" ||
                              fs::exists(fs::path(tokenizer_name_) / "tokenizer.json", unusable))) {
    tokenizer_folder_ = own_tokenizer_folder();
    tokenizer_ = make_tokenizer(tokenizer_name_);
  }
}

// Rank 0 chooses it, so that all go on from the same.
std::optional<FoundCheckpoint> RunState::find_checkpoint() {
  std::optional<FoundCheckpoint> found;
  together([&] {
    if (writes_) found = newest_valid_checkpoint(output_ / "checkpoints", log_warning);
  });
  const double step = from_first_rank(communicator_, found ? found->state.at("step").get<double>() : -1);
  together([&] {
    if (step >= 0 && !found)
      found = checkpoint_of_step(output_ / "checkpoints", static_cast<std::int64_t>(step));
  });
  return found;
}

void RunState::start_from(const std::optional<FoundCheckpoint>& found) {
  if (found) {
    go_on_from(*found);
    guards_.restore(guards_in(found->state));  // not in go_on_from: skips count on where a run is rolled back
    kept_metrics_bytes_ = found->state.at("metrics_bytes");
    log_line(fmt::format("going on from {}", found->folder.string()));
  } else if (config_.model.from.empty()) {
    initialize_from_scratch(trainer_.parameters(), model_config_, ops_, config_.run.seed);
  } else {
    report_swap(load_parameters(trainer_.parameters(), model_config_, before_, config_.model.from, ops_));
  }
  if (writes_ && !finished()) open_logs();
}

void RunState::open_logs() {
  const std::string text = description().dump(1) + "\n";
  write_file_atomically(output_ / "run.json", text);
  metrics_.emplace(output_ / "metrics.jsonl", kept_metrics_bytes_);
  if (config_.log.tensorboard) tensorboard_.emplace(output_, "```\n" + text + "```\n");
}

nlohmann::ordered_json RunState::description() const {
  const Machine machine = this_machine();
  return {{"started", unix_time()},
          {"ranks", communicator_.size()},
          {"machine",
           {{"name", machine.name},
            {"cpu", machine.cpu},
            {"cores", machine.cores},
            {"memory_bytes", machine.memory_bytes}}},
          {"config", to_json(config_)}};
}

void RunState::go_on_from(const FoundCheckpoint& found) {
  const std::string difference = first_difference(found.state.at("config"), to_json(config_));
  if (!difference.empty())
    fail(ExitCode::usage,
         "{}: the earlier run had another {}; use the same config, another run.output, or --fresh",
         found.folder.string(), difference);
  progress = progress_in(found.state);
  load_parameters(trainer_.parameters(), model_config_, model_config_, found.folder, ops_);
  resumed_from_ = found.folder;
  resumed_loss_scale_ = loss_scale_in(found.state);
  if (progress.step_in_phase == config_.phases.at(static_cast<std::size_t>(progress.phase)).steps) {
    ++progress.phase;
    progress.step_in_phase = progress.skipped_in_phase = 0;
  }
}

void RunState::report_swap(const SwapReport& report) {
  if (!report.started.empty())
    log_line(
        fmt::format("{} EVA tensors start anew, the first {}", report.started.size(), report.started[0]));
  if (!report.dropped.empty())
    log_line(
        fmt::format("{} tensors are no longer used, the first {}", report.dropped.size(), report.dropped[0]));
}

// --- phases and checkpoints ----------------------------------------------------------------------------

// The state of optimizer and loss scaler starts anew with each phase. Ranks take unlike shares of memory, the
// first most of all: it may be missing on one alone.
void RunState::begin_phase(const PhaseConfig& phase) {
  together([&] { trainer_.begin_phase(phase); });
  if (progress.step_in_phase == 0) return;
  together([&] { load_moments(); });
  if (trainer_.loss_scaler()) trainer_.loss_scaler()->restore(resumed_loss_scale_.value());
}

void RunState::load_moments() {
  const StoredMoments stored(*resumed_from_);
  for (Optimizer::Segment& segment : trainer_.optimizer().segments()) {
    const auto load = [&](const char* prefix, const Tensor& moment) {
      staging_.write(ops_, moment, [&](Tensor host) {
        stored.load(host, prefix + segment.parameter->name, segment.first);
      });
    };
    load("first_moment.", segment.first_moment);
    load("second_moment.", segment.second_moment);
  }
}

// Every rank that has moments of its own writes them.
void RunState::save(bool interim) {
  saver_.finish();
  saver_.begin(progress.step, checkpoint_bytes());
  const int rank = communicator_.rank(), parts = trainer_.optimizer().sharded() ? communicator_.size() : 1;
  const Snapshot& snapshot = trainer_.take_snapshot();
  const nlohmann::json state = writes_ ? checkpoint_state(interim) : nlohmann::json();
  saver_.start(
      [this, &snapshot, state, rank, parts](CheckpointWriter& writer) -> std::optional<CheckpointFile> {
        if (writes_) writer.write_model(snapshot.masters(), state, model_config_, tokenizer_folder_);
        if (rank >= parts) return std::nullopt;
        return writer.write_moments(snapshot.moments(), rank, parts);
      });
}

std::uintmax_t RunState::checkpoint_bytes() const {
  const ParameterTable& parameters = trainer_.parameters();
  return sizeof(float) * static_cast<std::uintmax_t>(parameters.count() + 2 * parameters.trained_count());
}

nlohmann::json RunState::checkpoint_state(bool interim) const {
  nlohmann::json state = to_json(progress);
  state["interim"] = interim;
  if (trainer_.loss_scaler()) state["loss_scale"] = to_json(trainer_.loss_scaler()->state());
  state["guards"] = to_json(guards_.state());
  state["metrics_bytes"] = metrics_->bytes();
  state["config"] = to_json(config_);
  return state;
}

StoredTensor RunState::to_store(const Tensor& tensor) {
  if (tensor.device == Device::cpu) return stored(tensor);
  return stored_from(tensor, [this](const Tensor& on_device) { return staging_.read(ops_, on_device); });
}

bool RunState::roll_back(const PhaseConfig& phase) {
  saver_.finish();
  const Progress reached = progress;
  const std::optional<FoundCheckpoint> found = find_checkpoint();
  if (!found) return false;
  together([&] { go_on_from(*found); });
  progress.passed_over = reached.passed_over + reached.step - progress.step;
  begin_phase(phase);
  return true;
}

NamedTensors RunState::masters() {
  NamedTensors tensors;
  for (const Parameter& parameter : trainer_.parameters().all())
    tensors.emplace_back(parameter.name, to_store(parameter.master));
  return tensors;
}

void RunState::write_model() {
  together([&] {
    if (!writes_) return;
    const std::uint64_t metrics_bytes = metrics_ ? metrics_->bytes() : kept_metrics_bytes_;
    const nlohmann::json training =
        training_record(to_json(config_), progress.step, output_ / "metrics.jsonl", metrics_bytes);
    write_model_folder(output_ / "model", model_config_, masters(), tokenizer_folder_, training);
  });
  log_line(fmt::format("wrote {}", (output_ / "model").string()));
}

void RunState::write_model_if_missing() {
  const bool missing = writes_ && !fs::exists(output_ / "model" / "config.json");
  if (on_any_rank(communicator_, missing)) write_model();
}

void RunState::record(nlohmann::ordered_json entry) {
  entry["time"] = unix_time();
  together([&] {
    if (metrics_) metrics_->write(entry);
    if (tensorboard_) tensorboard_->write(entry);
  });
}

}  // namespace flasheva
