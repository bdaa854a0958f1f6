#include "src/training/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>

#include "src/core/clock.h"
#include "src/core/error.h"
#include "src/core/log.h"
#include "src/core/machine.h"
#include "src/io/model_folder.h"
#include "src/training/guards.h"
#include "src/training/run_state.h"
#include "src/training/stop_signal.h"
#include "src/training/trainer.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

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

// One run in progress.
class Recipe {
 public:
  Recipe(const Config& config, Ops& ops, Communicator& communicator)
      : config_(config),
        ops_(ops),
        model_config_(resolve_model(config, &before_)),
        train_data_(open_tokens(config.data.train, model_config_, config.data.sequence_length)),
        order_(train_data_.sequences(config.data.sequence_length), config.data.shuffle, config.run.seed),
        trainer_(config, model_config_, ops, communicator),
        guards_(config.guards, communicator),
        state_(config, before_, model_config_, train_data_.info().tokenizer, trainer_, guards_, ops,
               communicator),
        communicator_(communicator) {
    if (!config.data.validation.empty())
      validation_data_.emplace(
          open_tokens(config.data.validation, model_config_, config.data.sequence_length));
  }

  TrainOutcome run(bool fresh) {
    state_.open(fresh);
    if (state_.finished()) {
      state_.write_model_if_missing();
      log_line(fmt::format("{}: finished after {} steps", config_.run.output.string(), progress_.step));
      return TrainOutcome::already_finished;
    }
    count_validation_bytes();
    const StopSignal stop;
    try {
      return run_phases();
    } catch (const SharedError&) {
      finish_saving_quietly();
      throw;
    }
  }

 private:
  TrainOutcome run_phases() {
    for (; !state_.finished(); ++progress_.phase, progress_.step_in_phase = progress_.skipped_in_phase = 0)
      if (!run_phase(config_.phases[static_cast<std::size_t>(progress_.phase)]))
        return TrainOutcome::preempted;
    wait_long("the writing of the model");
    state_.write_model();
    return TrainOutcome::finished;
  }

  // After an error that left all ranks at the same call: a checkpoint that is on its way to the disk gets
  // there. Of what fails now nothing is said.
  void finish_saving_quietly() {
    wait_long("the end of a checkpoint");
    try {
      state_.finish_saving();
    } catch (const SharedError&) {
    }
  }

  // False if asked to stop before the whole run was done; a checkpoint is then saved.
  bool run_phase(const PhaseConfig& phase) {
    step_seconds_.reset();
    wait_long("the beginning of phase " + phase.name);
    state_.begin_phase(phase);
    log_line(fmt::format("phase {}: {} steps, {}, {} of {} parameters trained", phase.name, phase.steps,
                         to_string(phase.precision), trainer_.parameters().trained_count(),
                         trainer_.parameters().count()));
    if (progress_.step_in_phase == 0) {
      wait_long("validation");
      validate(phase, /*attention_error=*/progress_.step == 0);
    }
    const bool done = run_steps(phase);
    wait_long("the end of phase " + phase.name);
    return done;
  }

  bool run_steps(const PhaseConfig& phase) {
    timer_start();
    wait_as_long_as_a_step(phase);
    while (progress_.step_in_phase < phase.steps) {
      if (!run_step(phase)) continue;
      const bool last = progress_.step_in_phase == phase.steps;
      if (last || progress_.step % config_.evaluate.every == 0)
        paused(phase, "validation", [&] { validate(phase, /*attention_error=*/last); });
      if (progress_.step % config_.guards.weights_every == 0)
        paused(phase, "a comparison of weights", [&] { guards_.compare_weights(trainer_, place(phase)); });
      std::array<double, 2> any{StopSignal::requested() ? 1.0 : 0.0, state_.saving() ? 1.0 : 0.0};
      communicator_.all_reduce_sum(any);
      const bool stop = any[0] > 0;
      state_.go_on_saving(any[1] > 0);
      save_if_due(phase, last || stop);
      if (stop) return last && progress_.phase + 1 == std::ssize(config_.phases);
    }
    return true;
  }

  // What is being written counts for nothing until it is there, and one is written at a time: so that a crash
  // costs no more than checkpoint.every steps, two are begun in so many, the first of them an interim one.
  void save_if_due(const PhaseConfig& phase, bool leaving) {
    const std::int64_t every = config_.checkpoint.every, since = progress_.step % every;
    const bool due = leaving || since == 0;
    if (due || since == every / 2)
      paused(phase, "a checkpoint", [&] {
        wait_for_checkpoint();
        state_.save(/*interim=*/!due);
      });
    if (leaving || every == 1) paused(phase, "a checkpoint", [&] { state_.finish_saving(); });
  }

  void wait_for_checkpoint() {
    constexpr double worth_a_line = 0.5;
    const double begun = seconds_now();
    state_.finish_saving();
    const double waited = seconds_now() - begun;
    if (waited > worth_a_line)
      log_line(fmt::format(
          "step {}: waited {:.1f} s until the checkpoint before was written; a larger checkpoint.every "
          "would leave more time",
          progress_.step, waited));
  }

  // One step, and what is said of it. False if it made the run go back to a checkpoint.
  bool run_step(const PhaseConfig& phase) {
    const double begun = seconds_now();
    const StepResult result = trainer_.step(train_data_, order_, progress_,
                                            [&](const StepResult& step) { return guards_.accepts(step); });
    step_seconds_ = seconds_now() - begun;
    wait_as_long_as_a_step(phase);
    ++progress_.step;
    ++progress_.step_in_phase;
    if (!result.updated) ++progress_.skipped_in_phase;
    timed_tokens_ += result.tokens;
    show(phase, result);
    const std::string fault = guards_.judge(result, place(phase));
    if (!fault.empty()) warn(phase, result, fault);
    if (guards_.wants_roll_back() && roll_back(phase)) return false;
    const bool last = progress_.step_in_phase == phase.steps;
    if (last || progress_.step % config_.log.every == 0) log_step(phase, result);
    return true;
  }

  bool roll_back(const PhaseConfig& phase) {
    bool done = false;
    paused(phase, "a return to a checkpoint", [&] { done = state_.roll_back(phase); });
    guards_.rolled_back();
    if (!done) return false;
    log_line(fmt::format("back to step {}; its next batches are left out", progress_.step));
    state_.record({{"phase", phase.name}, {"rolled_back_to_step", progress_.step}});
    return true;
  }

  std::int64_t validation_sequences() const {
    return std::min(config_.evaluate.batches * config_.batch.sequences,
                    validation_data_->sequences(config_.data.sequence_length));
  }

  void count_validation_bytes() {
    succeed_together(communicator_, [&] {
      if (validation_data_ && state_.tokenizer() != nullptr)
        validation_bytes_ = bytes_of_targets(*validation_data_, validation_sequences(),
                                             config_.data.sequence_length, *state_.tokenizer());
    });
  }

  void validate(const PhaseConfig& phase, bool attention_error) {
    if (!validation_data_) return;
    attention_error = attention_error && !model_config_.full_attention_everywhere();
    AttentionErrors errors(model_config_);
    const ValidationResult result =
        trainer_.validate(*validation_data_, validation_sequences(), attention_error ? &errors : nullptr);
    if (result.targets == 0)
      fail_together(
          communicator_, ExitCode::data,
          fmt::format("{}: the loss mask counts no target of the first {} sequences, those of validation",
                      config_.data.validation.string(), validation_sequences()));
    log_line(fmt::format("phase {} step {}: validation loss {:.4f}", phase.name, progress_.step_in_phase,
                         result.loss));
    nlohmann::ordered_json entry = entry_of(phase);
    entry["validation_loss"] = result.loss;
    if (validation_bytes_ > 0)
      entry["validation_bits_per_byte"] = result.loss * static_cast<double>(result.targets) /
                                          std::numbers::ln2 / static_cast<double>(validation_bytes_);
    entry["validation_accuracy"] = result.accuracy;
    entry["validation_targets"] = result.targets;
    state_.record(entry);
    if (attention_error) record_attention_error(phase, errors.relative());
  }

  void record_attention_error(const PhaseConfig& phase, const std::vector<double>& errors) {
    nlohmann::ordered_json entry = entry_of(phase);
    entry["attention_error"] = errors;
    state_.record(entry);
    double largest = 0;
    for (const double error : errors) largest = std::fmax(largest, error);
    log_line(
        fmt::format("{}: attention differs from exact softmax attention by at most {:.4f} (a layer's "
                    "relative error)",
                    place(phase), largest));
  }

  // --- what people see ------------------------------------------------------------------------------------

  std::string place(const PhaseConfig& phase) const {
    return fmt::format("phase {}, step {}", phase.name, progress_.step_in_phase);
  }

  // What every entry of metrics.jsonl begins with.
  nlohmann::ordered_json entry_of(const PhaseConfig& phase) const {
    return {{"phase", phase.name}, {"step", progress_.step_in_phase}, {"run_step", progress_.step}};
  }

  void warn(const PhaseConfig& phase, const StepResult& result, const std::string& fault) {
    log_warning(place(phase) + ": " + fault);
    nlohmann::ordered_json entry = entry_of(phase);
    entry["warning"] = fault;
    entry["updated"] = result.updated;
    entry["skipped_in_phase"] = progress_.skipped_in_phase;
    state_.record(entry);
  }

  void timer_start() {
    timed_seconds_ = 0;
    timed_tokens_ = 0;
    timer_from_ = seconds_now();
  }

  // For what nobody knows how long it takes.
  void wait_long(const std::string& during) {
    communicator_.set_patience(config_.distributed.long_timeout(), during);
  }

  void wait_as_long_as_a_step(const PhaseConfig& phase) {
    if (!step_seconds_) return wait_long("the first step of phase " + phase.name);
    communicator_.set_patience(config_.distributed.timeout + *step_seconds_, "a step of phase " + phase.name);
  }

  // Runs something that does not count as training time, and for which ranks wait long; in the step that
  // follows, none waits longer than in any other.
  template <class Work>
  void paused(const PhaseConfig& phase, const char* during, Work work) {
    timed_seconds_ += seconds_now() - timer_from_;
    wait_long(during);
    work();
    on_any_rank(communicator_, false);  // all are through it
    wait_as_long_as_a_step(phase);
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
    nlohmann::ordered_json entry = entry_of(phase);
    entry["loss"] = result.loss;
    entry["lr"] = result.lr;
    entry["grad_norm"] = result.gradient.global;
    if (phase.precision == Precision::fp16) entry["loss_scale"] = result.loss_scale;
    entry["tokens_per_second"] = speed;
    entry["peak_memory_bytes"] = peak_memory_bytes();
    if (const std::size_t taken = ops_.device_memory_taken(); taken > 0) entry["gpu_memory_bytes"] = taken;
    if (progress_.step % config_.log.layers_every == 0) entry["grad_norm_by_part"] = result.gradient.by_part;
    state_.record(entry);
    log_line(fmt::format("phase {} step {}/{}: loss {:.4f}  lr {:.2e}  gradient norm {:.3f}  {:.0f} tokens/s",
                         phase.name, progress_.step_in_phase, phase.steps, result.loss, result.lr,
                         result.gradient.global, speed));
    timer_start();
  }

  const Config& config_;
  Ops& ops_;
  ModelConfig before_, model_config_;
  TokenFile train_data_;
  std::optional<TokenFile> validation_data_;
  SequenceOrder order_;
  Trainer trainer_;
  Guards guards_;
  RunState state_;
  Progress& progress_ = state_.progress;
  Communicator& communicator_;
  std::optional<double> step_seconds_;  // of the last step of this phase
  double timer_from_ = 0, timed_seconds_ = 0;
  std::int64_t timed_tokens_ = 0;
  std::int64_t validation_bytes_ = 0;  // of the validation's targets; 0 where no tokenizer is known
};

}  // namespace

ModelConfig resolve_model(const Config& config, ModelConfig* before) {
  ModelConfig model = config.model.architecture ? *config.model.architecture
                                                : read_model_config(config.model.from, /*training=*/true);
  if (model.attention.empty()) model.attention.resize(static_cast<std::size_t>(model.num_hidden_layers));
  if (before != nullptr) *before = model;
  if (config.model.attention) apply_attention(model, *config.model.attention, config.model.from.string());
  return model;
}

TrainOutcome train(const Config& config, Ops& ops, Communicator& communicator, bool fresh) {
  if (config.batch.sequences < communicator.size())
    fail_together(
        communicator, ExitCode::usage,
        fmt::format("batch.sequences {} is smaller than the number of ranks {}; each needs a sequence",
                    config.batch.sequences, communicator.size()));
  if (communicator.size() > 1) log_line(communicator.description());
  communicator.set_timeout(config.distributed.timeout);
  communicator.set_patience(config.distributed.long_timeout(), "the start");
  std::optional<Recipe> recipe;
  succeed_together(communicator, [&] { recipe.emplace(config, ops, communicator); });
  return recipe->run(fresh);
}

}  // namespace flasheva
