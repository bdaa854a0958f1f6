#include "src/training/trainer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/core/pieces_done.h"
#include "src/core/text.h"
#include "src/distributed/gradient_sum.h"
#include "src/model/planned_memory.h"
#include "src/training/schedule.h"

namespace flasheva {

namespace {

MemoryPlan plan_of_masters(ParameterTable& parameters) {
  MemoryPlan plan;
  parameters.plan_masters(plan, DType::f32);
  return plan;
}

Sharding sharding_of(const DistributedSection& config, int ranks) {
  if (ranks == 1) return Sharding::none;
  return config.shard_gradients   ? Sharding::gradients
         : config.shard_optimizer ? Sharding::moments
                                  : Sharding::none;
}

std::int64_t share(const Config& config, int rank, int ranks) {
  return first_sequence_of_rank(config.batch.sequences, rank + 1, ranks) -
         first_sequence_of_rank(config.batch.sequences, rank, ranks);
}

}  // namespace

void Trainer::plan_phase(MemoryPlan& plan, MemoryPlan& host, Model& model, Work& work, const Config& config,
                         const PhaseConfig& phase, const PlannedDevice& device, int rank, int ranks) {
  const std::int64_t sequences = share(config, rank, ranks), T = config.data.sequence_length;
  const Extent micro{std::min(config.batch.micro, sequences), T};
  const std::string idle = model.parameters.select(phase.train);
  if (!idle.empty())
    fail(ExitCode::usage,
         "phase {}: train: '{}' names no tensor of this model; use attention, all, or a glob such as "
         "gpt_neox.layers.*.attention.*",
         phase.name, idle);
  const DType compute = compute_type(phase.precision);
  model.parameters.plan_weights(plan, compute);
  const Sharding sharding = sharding_of(config.distributed, ranks);
  work.gradients = make_gradients(sharding);
  work.gradients->plan(plan, model.parameters, model.network.config().num_hidden_layers);
  work.optimizer.plan(plan, model.parameters, sharding, work.gradients->buckets(), rank, ranks);
  model.network.plan(plan, device.kind, micro, compute, true, config.batch.recompute);
  plan_training_scratch(plan, work.scratch, device, model.network.config(), micro, compute);
  work.batch.plan(host, sequences, T);
  work.tokens.plan(plan, device.kind, micro.rows());
  const std::int64_t micro_batches = (sequences + micro.sequences - 1) / micro.sequences;
  host.add(work.noise_places, "batch", DType::i32, {micro_batches, 2});
  work.noise_place = Tensor{};
  if (device.kind != Device::cpu) plan.add(work.noise_place, "batch", DType::i32, {2});
  host.add(work.scale_on_host, "batch", DType::f32, {1});
  work.scale = Tensor{};
  if (device.kind != Device::cpu) plan.add(work.scale, "batch", DType::f32, {1});
  host.add(work.losses, "batch", DType::f32, {sequences * T});
  host.add(work.not_finite, "batch", DType::i32, {micro_batches});
  const std::int64_t scratch = GradientSum::scratch_elements(model.parameters.gradient_elements(), ranks);
  work.sum_scratch = Tensor{};
  if (scratch > 0) plan.add(work.sum_scratch, "sums over ranks", DType::f32, {scratch});
  if (config.checkpoint.every > 0) work.snapshot.plan(host, model.parameters, work.optimizer, rank);
}

std::vector<Trainer::PhasePlan> Trainer::plans(const Config& config, const ModelConfig& model_config,
                                               const PlannedDevice& device, int rank, int ranks) {
  std::vector<PhasePlan> plans;
  for (const PhaseConfig& phase : config.phases) {
    Model model(model_config);
    Work work;
    PhasePlan plan{plan_of_masters(model.parameters), {}};
    plan_phase(plan.memory, device.kind == Device::cpu ? plan.memory : plan.host, model, work, config, phase,
               device, rank, ranks);
    plans.push_back(std::move(plan));
  }
  return plans;
}

// The last rank never has fewer sequences than another; the first copies the weights for checkpoints.
std::vector<Trainer::PhasePlan> Trainer::largest_plans(const Config& config, const ModelConfig& model_config,
                                                       const PlannedDevice& device, int ranks) {
  const auto take_larger = [](MemoryPlan& plan, const MemoryPlan& other) {
    if (other.bytes() > plan.bytes()) plan = other;
  };
  std::vector<PhasePlan> largest = plans(config, model_config, device, 0, ranks);
  const std::vector<PhasePlan> last = plans(config, model_config, device, ranks - 1, ranks);
  for (std::size_t i = 0; i < largest.size(); ++i) {
    take_larger(largest[i].memory, last[i].memory);
    take_larger(largest[i].host, last[i].host);
  }
  return largest;
}

Buffer Trainer::memory_of_masters() {
  const MemoryPlan plan = plan_of_masters(model_.parameters);
  return memory_for(plan, plan.bytes(), ops_, "the weights alone are too large for this device");
}

MemoryPlan Trainer::plan_of_largest_phase(const Config& config) const {
  const std::vector<PhasePlan> all =
      plans(config, model_.network.config(), ops_, communicator_.rank(), communicator_.size());
  const auto smaller = [](const PhasePlan& a, const PhasePlan& b) {
    return a.memory.bytes() < b.memory.bytes();
  };
  return std::max_element(all.begin(), all.end(), smaller)->memory;
}

// What takes less memory than `taken` bytes.
std::string Trainer::advice_on_memory(std::size_t taken) const {
  Config rebuilding = config_;
  rebuilding.batch.recompute = Recompute::block;
  const std::size_t rebuilt = plan_of_largest_phase(rebuilding).bytes();
  const bool could_shard = communicator_.size() > 1 && !config_.distributed.shard_gradients;
  return fmt::format(
      "lower batch.micro or data.sequence_length{}, or set a phase's precision to bf16 or fp16{} "
      "(`flasheva plan` shows what is taken)",
      rebuilt < taken ? fmt::format(", set batch.recompute to block ({} in all)", format_bytes(rebuilt)) : "",
      could_shard ? " or distributed.shard_gradients to true" : "");
}

// The masters, which the plan names too, have memory of their own.
Buffer Trainer::memory_of_phases() const {
  const MemoryPlan largest = plan_of_largest_phase(config_);
  ParameterTable parameters(model_.network.config());
  return memory_for(largest, largest.bytes() - plan_of_masters(parameters).bytes(), ops_,
                    advice_on_memory(largest.bytes()));
}

Trainer::Trainer(const Config& config, const ModelConfig& model_config, Ops& ops, Communicator& communicator)
    : config_(config),
      ops_(ops),
      communicator_(communicator),
      model_(model_config),
      masters_(memory_of_masters()),
      phase_memory_(memory_of_phases()),
      first_sequence_(
          first_sequence_of_rank(config.batch.sequences, communicator.rank(), communicator.size())),
      sequences_(share(config, communicator.rank(), communicator.size())),
      most_sequences_(share(config, communicator.size() - 1, communicator.size())) {
  masters_.bind(plan_of_masters(model_.parameters));
}

void Trainer::begin_phase(const PhaseConfig& phase) {
  phase_ = &phase;
  MemoryPlan plan, apart;
  plan_phase(plan, ops_.device() == Device::cpu ? plan : apart, model_, work_, config_, phase, ops_,
             communicator_.rank(), communicator_.size());
  phase_memory_.bind(plan);
  ops_.lend_scratch(work_.scratch);
  host_memory_ = Buffer(0);  // that of the phase before goes first
  host_memory_ =
      host_memory_for(apart, ops_,
                      "checkpoints are written from a copy of the weights and moments there: use a "
                      "machine with more memory, or end what else takes it");
  host_memory_.bind(apart);
  model_.network.prepare(ops_);
  ops_.allow_tf32(phase.tf32);
  loss_scaler_.reset();
  if (phase.precision == Precision::fp16) loss_scaler_.emplace(phase.loss_scale);
  for (Parameter& parameter : model_.parameters.all()) {
    if (compute_type(phase.precision) == DType::f32) continue;
    ops_.cast(parameter.weight, parameter.master);
  }
}

TokenBatch Trainer::micro_batch(std::int64_t first, std::int64_t count) const {
  const std::int64_t T = config_.data.sequence_length;
  return work_.tokens.on_device(ops_, {{count, T},
                                       work_.batch.tokens.rows(first * T, count * T),
                                       work_.batch.targets.rows(first * T, count * T),
                                       work_.batch.mask.rows(first * T, count * T)});
}

StepResult Trainer::step(TokenFile& data, const SequenceOrder& order, const Progress& progress,
                         const Accept& accept) {
  // 1. This rank's sequences of the global batch.
  const std::int64_t position =
      (progress.step + progress.passed_over) * config_.batch.sequences + first_sequence_;
  succeed_together(communicator_, [&] {
    for (std::int64_t i = 0; i < sequences_; ++i)
      read_sequence(data, order(position + i), work_.batch, i, config_.data.sequence_length);
  });
  return step_on_batch(progress, accept);
}

StepResult Trainer::step_on_batch(const Progress& progress, const Accept& accept) {
  StepResult result;
  result.tokens = config_.batch.sequences * config_.data.sequence_length;
  result.lr = learning_rate(phase_->schedule, phase_->optimizer.lr, progress.step_in_phase, phase_->steps);

  // 2. How many targets count, over all ranks: the weight of each in loss and gradient.
  std::array<double, 1> counted{
      static_cast<double>(counted_targets(work_.batch, sequences_, config_.data.sequence_length))};
  communicator_.all_reduce_sum(counted);

  // 3. Forward and backward of every micro batch, gradients added up, and summed over ranks as they become
  //    final.
  if (loss_scaler_) result.loss_scale = loss_scaler_->scale();
  forward_backward(static_cast<std::int64_t>(counted[0]), result.loss_scale, progress);

  // 4. The sums over ranks that are still missing.
  work_.gradients->end_step();

  // 5. Global norm and loss, the first that the host waits for; nothing that is not finite reaches the
  //    weights.
  result.gradient = work_.optimizer.norms(ops_, communicator_, result.loss_scale);
  std::array<double, 1> nats{summed_losses()};
  communicator_.all_reduce_sum(nats);
  result.loss = counted[0] > 0 ? nats[0] / counted[0] : 0;
  adapt_loss_scale(result);
  if (!std::isfinite(result.loss) || !result.gradient.first_non_finite.empty())
    result.not_finite = place_not_finite(result);
  result.updated = result.not_finite.empty() && (!accept || accept(result));

  // 6. Clipping and the update.
  const std::int64_t updates = progress.step_in_phase - progress.skipped_in_phase;
  if (result.updated)
    work_.optimizer.update(ops_, communicator_, phase_->optimizer, result.lr, updates + 1,
                           result.gradient.global, result.loss_scale, work_.sum_scratch);
  return result;
}

// A loss that is not finite itself is none of the scale's business: no other scale would make it so.
void Trainer::adapt_loss_scale(StepResult& result) {
  if (!loss_scaler_ || !std::isfinite(result.loss)) return;
  result.overflow = !result.gradient.first_non_finite.empty();
  if (result.overflow)
    result.exhausted = !loss_scaler_->overflow();
  else
    loss_scaler_->finite();
  result.next_loss_scale = loss_scaler_->scale();
}

// The first place of all ranks; every rank knows that there is one, as sums over ranks are the same on each.
std::string Trainer::place_not_finite(const StepResult& result) {
  const int layers = model_.network.config().num_hidden_layers;
  std::vector<double> ranks_at(static_cast<std::size_t>(layers) + 2);  // embedding, layers, head
  for (std::int64_t i = 0; i < work_.not_finite.size(); ++i)
    if (const int place = work_.not_finite.as<std::int32_t>()[i]; place >= 0)
      ranks_at[static_cast<std::size_t>(place)] = 1;
  communicator_.all_reduce_sum(ranks_at);
  const auto first = std::find_if(ranks_at.begin(), ranks_at.end(), [](double ranks) { return ranks > 0; });
  if (first == ranks_at.end()) return "gradient of " + result.gradient.first_non_finite + ", backward";
  const auto layer = first - ranks_at.begin() - 1;
  if (layer < 0) return "embedding, forward";
  return layer < layers ? fmt::format("layer {}, forward", layer) : "head, forward";
}

Tensor Trainer::on_device(const Tensor& place, const Tensor& host) const {
  if (!place) return host;
  ops_.start_copy(place, host);
  return place;
}

ChunkNoise Trainer::noise_of(const Progress& progress, std::int64_t first) const {
  const auto& attention = config_.model.attention;
  ChunkNoise noise;
  noise.enabled = attention ? attention->noise_enabled : true;
  noise.clip = model_.network.config().eva.noise_clip;
  noise.seed = config_.run.seed;
  const std::int64_t micro_batch = first / std::min(config_.batch.micro, sequences_);
  const Tensor place = work_.noise_places.rows(micro_batch, 1).reshaped({2});
  place.as<std::int32_t>()[0] = static_cast<std::int32_t>(progress.step);
  place.as<std::int32_t>()[1] = static_cast<std::int32_t>(first_sequence_ + first);
  noise.place = on_device(work_.noise_place, place);
  return noise;
}

void Trainer::forward_backward(std::int64_t counted, double loss_scale, const Progress& progress) {
  work_.gradients->begin_step({ops_, communicator_, work_.optimizer, work_.sum_scratch,
                               compute_type(config_.distributed.reduce_dtype)});
  *work_.scale_on_host.as<float>() =
      counted > 0 ? static_cast<float>(loss_scale / static_cast<double>(counted)) : 0;
  const Tensor scale = on_device(work_.scale, work_.scale_on_host);
  const std::int64_t micro = std::min(config_.batch.micro, sequences_);
  for (std::int64_t first = 0; first < sequences_; first += micro) {
    const TokenBatch batch = micro_batch(first, std::min(micro, sequences_ - first));
    const PassContext pass{ops_, batch.extent, noise_of(progress, first)};
    work_.gradients->begin_pass(first + micro >= sequences_);
    model_.network.forward_backward(pass, batch, scale, [this](int layer) {
      work_.gradients->layer_done(layer);
      ++pieces_done;
    });
    work_.gradients->end_pass();
    const std::int64_t targets = batch.extent.rows();
    ops_.start_copy(work_.losses.rows(first * batch.extent.tokens, targets),
                    model_.network.losses().rows(0, targets));
    ops_.start_copy(work_.not_finite.rows(first / micro, 1), model_.network.first_not_finite());
  }
  const auto passes = [&](std::int64_t sequences) {
    return (sequences + config_.batch.micro - 1) / config_.batch.micro;
  };
  for (std::int64_t pass = passes(sequences_); pass < passes(most_sequences_); ++pass)
    work_.gradients->pass_by();
}

double Trainer::summed_losses() const {
  ops_.synchronize();
  const std::int64_t T = config_.data.sequence_length, micro = std::min(config_.batch.micro, sequences_);
  const auto* losses = work_.losses.as<float>();
  double nats = 0;
  for (std::int64_t first = 0; first < sequences_; first += micro)
    nats += std::accumulate(losses + first * T, losses + std::min(first + micro, sequences_) * T, 0.0);
  return nats;
}

const Snapshot& Trainer::take_snapshot() {
  work_.snapshot.take(ops_);
  return work_.snapshot;
}

std::uint64_t Trainer::weights_checksum() const {
  std::vector<std::uint64_t> checksums;
  HostStaging staging;
  for (const Parameter& parameter : model_.parameters.all()) {
    const Tensor master = staging.read(ops_, parameter.master);
    checksums.push_back(checksum_of({static_cast<const std::byte*>(master.data), master.bytes()}));
    ++pieces_done;
  }
  return checksum_of(std::as_bytes(std::span(checksums)));
}

ValidationResult Trainer::validate(TokenFile& data, std::int64_t sequences, AttentionErrors* errors) {
  const std::int64_t T = config_.data.sequence_length, total = std::min(sequences, data.sequences(T));
  const int rank = communicator_.rank(), ranks = communicator_.size();
  const std::int64_t end = first_sequence_of_rank(total, rank + 1, ranks);
  const std::int64_t micro = std::min(config_.batch.micro, sequences_);
  std::array<double, 3> sums{};  // nats, correct, counted
  const auto add = [&](std::int64_t first) {
    const std::int64_t count = std::min(micro, end - first);
    for (std::int64_t i = 0; i < count; ++i) read_sequence(data, first + i, work_.batch, i, T);
    const TokenBatch batch = micro_batch(0, count);
    const LossSums losses = model_.network.evaluate({ops_, batch.extent, {}}, batch, errors);
    sums[0] += losses.nats;
    sums[1] += static_cast<double>(losses.correct);
    sums[2] += static_cast<double>(counted_targets(work_.batch, count, T));
    ++pieces_done;
  };
  succeed_together(communicator_, [&] {
    for (std::int64_t first = first_sequence_of_rank(total, rank, ranks); first < end; first += micro)
      add(first);
  });
  communicator_.all_reduce_sum(sums);
  if (errors != nullptr) communicator_.all_reduce_sum(errors->sums());
  const double counted = std::max(1.0, sums[2]);
  return {sums[0] / counted, sums[1] / counted, static_cast<std::int64_t>(sums[2])};
}

}  // namespace flasheva
