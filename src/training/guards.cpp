#include "src/training/guards.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace flasheva {

Guards::Guards(const GuardsSection& config, Communicator& communicator)
    : config_(config),
      communicator_(communicator),
      spikes_(static_cast<std::size_t>(config.spike_window), config.spike_threshold) {}

bool Guards::accepts(const StepResult& result) const {
  return config_.spike_action == SpikeAction::log || !spikes_.is_spike(result.loss);
}

std::string Guards::judge(const StepResult& result, const std::string& where) {
  wants_roll_back_ = false;
  if (result.overflow) return judge_overflow(result, where);
  const bool spike = result.not_finite.empty() && spikes_.is_spike(result.loss);
  wants_roll_back_ = spike && config_.spike_action == SpikeAction::rollback;
  const std::string leap = fmt::format("loss {:.4f} leaps by {:.1f} robust standard deviations", result.loss,
                                       spikes_.score(result.loss));
  if (result.updated) {
    spikes_.remember(result.loss);
    skips_in_a_row_ = 0;
    return spike ? leap : "";
  }
  const std::string fault =
      spike ? leap
            : fmt::format("loss {}, the first value that is not finite: {}", result.loss, result.not_finite);
  if (++skips_in_a_row_ > config_.max_skips)
    fail_together(communicator_, ExitCode::numeric,
                  fmt::format("{}: {}; {} steps in a row changed nothing (guards.max_skips {}); weights are "
                              "those before them; lower optimizer.lr or lengthen schedule.warmup",
                              where, fault, skips_in_a_row_, config_.max_skips));
  return fault + "; the step changes nothing";
}

std::string Guards::judge_overflow(const StepResult& result, const std::string& where) const {
  if (result.exhausted)
    fail_together(communicator_, ExitCode::numeric,
                  fmt::format("{}: gradients overflow at loss scale {}, the lowest that loss_scale.minimum "
                              "allows; the first that is not finite: {}; weights are those before; lower "
                              "optimizer.lr, or use precision bf16 or fp32",
                              where, result.loss_scale, result.gradient.first_non_finite));
  const char* then = result.next_loss_scale < result.loss_scale ? "scale now" : "scale stays";
  return fmt::format("gradients overflow at loss scale {}; skipped, {} {}", result.loss_scale, then,
                     result.next_loss_scale);
}

void Guards::rolled_back() {
  wants_roll_back_ = false;
  spikes_.forget();
}

void Guards::restore(const State& state) {
  spikes_.forget();
  for (const double loss : state.losses) spikes_.remember(loss);
  skips_in_a_row_ = state.skips_in_a_row;
}

void Guards::compare_weights(const Trainer& trainer, const std::string& where) const {
  const std::vector<int> different = ranks_that_differ(communicator_, trainer.weights_checksum());
  if (different.empty()) return;
  fail_together(
      communicator_, ExitCode::numeric,
      fmt::format("{}: the weights of rank {} differ from the others': its memory or processor is at "
                  "fault; go on from a checkpoint without that machine",
                  where, fmt::join(different, ", ")));
}

}  // namespace flasheva
