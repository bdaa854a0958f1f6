#include "src/training/recipe.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/log.h"
#include "src/core/text.h"
#include "src/io/checkpoint.h"
#include "src/io/model_folder.h"
#include "src/io/tokenizer.h"
#include "src/model/initialize.h"
#include "src/training/metrics.h"
#include "src/training/stop_signal.h"
#include "src/training/trainer.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Opens a token file and checks that it fits the model and the sequence length.
TokenFile open_tokens(const fs::path& path, const ModelConfig& model, std::int64_t sequence_length) {
  TokenFile file(path);
  if (file.info().vocab_size > model.vocab_size)
    fail(ExitCode::data, "{}: vocab_size {} is larger than the model's {}", path.string(),
         file.info().vocab_size, model.vocab_size);
  if (file.sequences(sequence_length) < 1)
    fail(ExitCode::data, "{}: {} tokens make no sequence of data.sequence_length {} and its next token",
         path.string(), file.info().tokens, sequence_length);
  return file;
}

void move_aside(const fs::path& output) {
  if (!fs::exists(output)) return;
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

// One run in progress.
class Recipe {
 public:
  Recipe(const Config& config, Ops& ops, Communicator& communicator)
      : config_(config),
        output_(config.run.output),
        model_config_(resolve_model(config, &before_)),
        train_data_(open_tokens(config.data.train, model_config_, config.data.sequence_length)),
        order_(train_data_.sequences(config.data.sequence_length), config.data.shuffle, config.run.seed),
        trainer_(config, model_config_, ops, communicator),
        ops_(ops) {
    if (!config.data.validation.empty())
      validation_data_.emplace(
          open_tokens(config.data.validation, model_config_, config.data.sequence_length));
    if (config.batch.sequences < communicator.size())
      fail(ExitCode::usage,
           "batch.sequences {} is smaller than the number of ranks {}; each rank needs a sequence",
           config.batch.sequences, communicator.size());
  }

  TrainOutcome run(bool fresh) {
    if (fresh) move_aside(output_);
    check_model_folder_destination(output_ / "model");
    create_folders(output_);
    start_or_go_on();
    if (progress_.phase == phase_count()) {
      log_line(fmt::format("{}: finished after {} steps", output_.string(), progress_.step));
      return TrainOutcome::already_finished;
    }
    const StopSignal stop;
    for (; progress_.phase < phase_count(); ++progress_.phase, progress_.step_in_phase = 0)
      if (!run_phase(config_.phases[static_cast<std::size_t>(progress_.phase)]))
        return TrainOutcome::preempted;
    write_model();
    return TrainOutcome::finished;
  }

 private:
  std::int64_t phase_count() const { return static_cast<std::int64_t>(config_.phases.size()); }

  // --- the beginning ------------------------------------------------------------------------------------

  void start_or_go_on() {
    prepare_tokenizer();
    const auto found = newest_valid_checkpoint(output_ / "checkpoints", log_warning);
    std::uint64_t metrics_bytes = 0;
    if (found) {
      metrics_bytes = go_on_from(*found);
    } else if (config_.model.from.empty()) {
      initialize_from_scratch(trainer_.parameters(), model_config_, ops_, config_.run.seed);
    } else {
      report_swap(load_parameters(trainer_.parameters(), model_config_, before_, config_.model.from));
    }
    const bool finished = progress_.phase == phase_count();
    metrics_.emplace(output_ / "metrics.jsonl",
                     finished ? std::numeric_limits<std::uint64_t>::max() : metrics_bytes);
    if (finished && !fs::exists(output_ / "model" / "config.json")) write_model();
  }

  std::uint64_t go_on_from(const FoundCheckpoint& found) {
    const std::string difference = first_difference(found.state.at("config"), to_json(config_));
    if (!difference.empty())
      fail(ExitCode::usage,
           "{}: the earlier run had another {}; use the same config, another run.output, or --fresh",
           found.folder.string(), difference);
    progress_ = {found.state.at("step"), found.state.at("phase"), found.state.at("step_in_phase")};
    load_parameters(trainer_.parameters(), model_config_, model_config_, found.folder);
    resumed_from_ = found.folder;
    if (progress_.step_in_phase == config_.phases.at(static_cast<std::size_t>(progress_.phase)).steps) {
      ++progress_.phase;
      progress_.step_in_phase = 0;
      resumed_from_.reset();  // the next phase starts with fresh optimizer state
    }
    log_line(fmt::format("going on from {}", found.folder.string()));
    return found.state.at("metrics_bytes");
  }

  void report_swap(const SwapReport& report) {
    if (!report.started.empty())
      log_line(
          fmt::format("{} EVA tensors start anew, the first {}", report.started.size(), report.started[0]));
    if (!report.dropped.empty())
      log_line(fmt::format("{} tensors are no longer used, the first {}", report.dropped.size(),
                           report.dropped[0]));
  }

  // Leaves the run's tokenizer files in OUTPUT/tokenizer: those of the model folder, or of the tokenizer that
  // the training tokens name.
  void prepare_tokenizer() {
    const std::string& name = train_data_.info().tokenizer;
    if (!config_.model.from.empty() && fs::exists(config_.model.from / "tokenizer.json")) {
      tokenizer_folder_ = config_.model.from;
    } else if (config_.model.from.empty() &&
               (name == "bytes" || fs::exists(fs::path(name) / "tokenizer.json"))) {
      tokenizer_folder_ = output_ / "tokenizer";
      create_folders(tokenizer_folder_);
      make_tokenizer(name)->write_files(tokenizer_folder_);
    }
  }

  // --- phases ---------------------------------------------------------------------------------------------

  // False if asked to stop before the whole run was done; a checkpoint is then saved.
  bool run_phase(const PhaseConfig& phase) {
    trainer_.begin_phase(phase);
    if (progress_.step_in_phase > 0) load_moments();
    log_line(fmt::format("phase {}: {} steps, {}, {} of {} parameters trained", phase.name, phase.steps,
                         to_string(phase.precision), trainer_.parameters().trained_count(),
                         trainer_.parameters().count()));
    if (progress_.step_in_phase == 0) validate(phase);
    timer_start();
    while (progress_.step_in_phase < phase.steps) {
      const StepResult result = trainer_.step(train_data_, order_, progress_);
      ++progress_.step;
      ++progress_.step_in_phase;
      timed_tokens_ += result.tokens;
      const bool last = progress_.step_in_phase == phase.steps;
      show(phase, result);
      if (last || progress_.step % config_.log.every == 0) log_step(phase, result);
      if (last || progress_.step % config_.evaluate.every == 0) paused([&] { validate(phase); });
      const bool stop = StopSignal::requested();
      if (last || stop || progress_.step % config_.checkpoint.every == 0) paused([&] { save(); });
      if (stop) return last && progress_.phase + 1 == phase_count();
    }
    return true;
  }

  void load_moments() {
    const SafetensorsReader file(*resumed_from_ / optimizer_file_name);
    for (Parameter& parameter : trainer_.parameters().all()) {
      if (!parameter.trained) continue;
      load_tensor(parameter.first_moment, file.at("first_moment." + parameter.name), file.path().string());
      load_tensor(parameter.second_moment, file.at("second_moment." + parameter.name), file.path().string());
    }
  }

  void validate(const PhaseConfig& phase) {
    if (!validation_data_) return;
    const ValidationResult result =
        trainer_.validate(*validation_data_, config_.evaluate.batches * config_.batch.sequences);
    log_line(fmt::format("phase {} step {}: validation loss {:.4f}", phase.name, progress_.step_in_phase,
                         result.loss));
    metrics_->write({{"phase", phase.name},
                     {"step", progress_.step_in_phase},
                     {"run_step", progress_.step},
                     {"validation_loss", result.loss},
                     {"validation_accuracy", result.accuracy},
                     {"validation_targets", result.targets}});
  }

  void save() {
    CheckpointContent content;
    content.step = progress_.step;
    content.state = {{"step", progress_.step},
                     {"phase", progress_.phase},
                     {"step_in_phase", progress_.step_in_phase},
                     {"metrics_bytes", metrics_->bytes()},
                     {"config", to_json(config_)}};
    content.model = masters();
    for (const Parameter& parameter : trainer_.parameters().all()) {
      if (!parameter.trained) continue;
      content.optimizer.emplace_back("first_moment." + parameter.name, stored(parameter.first_moment));
      content.optimizer.emplace_back("second_moment." + parameter.name, stored(parameter.second_moment));
    }
    write_checkpoint(output_ / "checkpoints", content, model_config_, tokenizer_folder_,
                     config_.checkpoint.keep);
  }

  NamedTensors masters() {
    NamedTensors tensors;
    for (const Parameter& parameter : trainer_.parameters().all())
      tensors.emplace_back(parameter.name, stored(parameter.master));
    return tensors;
  }

  void write_model() {
    write_model_folder(output_ / "model", model_config_, masters(), tokenizer_folder_);
    log_line(fmt::format("wrote {}", (output_ / "model").string()));
  }

  // --- what people see ------------------------------------------------------------------------------------

  void timer_start() {
    timed_seconds_ = 0;
    timed_tokens_ = 0;
    timer_from_ = seconds_now();
  }

  // Runs something that does not count as training time.
  template <class Work>
  void paused(Work work) {
    timed_seconds_ += seconds_now() - timer_from_;
    work();
    timer_from_ = seconds_now();
  }

  double tokens_per_second() const {
    return static_cast<double>(timed_tokens_) / (timed_seconds_ + seconds_now() - timer_from_);
  }

  void show(const PhaseConfig& phase, const StepResult& result) {
    if (!progress_is_visible()) return;
    const double speed = tokens_per_second();
    const auto left = static_cast<double>((phase.steps - progress_.step_in_phase) * result.tokens) / speed;
    show_progress(fmt::format("{} {}/{}  loss {:.4f}  {:.0f} tokens/s  {:.0f} s left", phase.name,
                              progress_.step_in_phase, phase.steps, result.loss, speed, left));
  }

  void log_step(const PhaseConfig& phase, const StepResult& result) {
    const double speed = tokens_per_second();
    nlohmann::ordered_json entry = {{"phase", phase.name},
                                    {"step", progress_.step_in_phase},
                                    {"run_step", progress_.step},
                                    {"loss", result.loss},
                                    {"lr", result.lr},
                                    {"grad_norm", result.gradient.global},
                                    {"tokens_per_second", speed}};
    if (progress_.step % config_.log.layers_every == 0) entry["grad_norm_by_part"] = result.gradient.by_part;
    metrics_->write(entry);
    log_line(fmt::format("phase {} step {}/{}: loss {:.4f}  lr {:.2e}  gradient norm {:.3f}  {:.0f} tokens/s",
                         phase.name, progress_.step_in_phase, phase.steps, result.loss, result.lr,
                         result.gradient.global, speed));
    timer_start();
  }

  const Config& config_;
  fs::path output_;
  ModelConfig before_, model_config_;
  TokenFile train_data_;
  std::optional<TokenFile> validation_data_;
  SequenceOrder order_;
  Trainer trainer_;
  Ops& ops_;
  std::optional<MetricsLog> metrics_;
  fs::path tokenizer_folder_;  // empty: no tokenizer
  Progress progress_;
  std::optional<fs::path> resumed_from_;  // where the current phase's moments are
  double timer_from_ = 0, timed_seconds_ = 0;
  std::int64_t timed_tokens_ = 0;
};

}  // namespace

ModelConfig resolve_model(const Config& config, ModelConfig* before) {
  ModelConfig model = config.model.architecture ? *config.model.architecture
                                                : read_model_config(config.model.from, /*training=*/true);
  if (model.attention.empty()) model.attention.resize(static_cast<std::size_t>(model.num_hidden_layers));
  if (before != nullptr) *before = model;
  if (config.model.attention) apply_attention(model, *config.model.attention, "model.attention");
  return model;
}

TrainOutcome train(const Config& config, Ops& ops, Communicator& communicator, bool fresh) {
  return Recipe(config, ops, communicator).run(fresh);
}

}  // namespace flasheva
