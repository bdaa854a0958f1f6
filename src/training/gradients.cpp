#include "src/training/gradients.h"

#include <algorithm>
#include <array>

#include "src/distributed/gradient_sum.h"

namespace flasheva {

namespace {

class WholeGradients final : public Gradients {
 public:
  explicit WholeGradients(bool sums_in_pieces) : sums_in_pieces_(sums_in_pieces) {}

  void plan(MemoryPlan& plan, ParameterTable& parameters, int) override {
    parameters_ = &parameters;
    parameters.plan_gradients(plan);
  }
  std::vector<Range> buckets() const override {
    return GradientSum::buckets({0, parameters_->gradient_elements()});
  }

  void begin_step(const Step& step) override {
    const Tensor gradients = parameters_->gradients();
    step.ops.zero(gradients);
    sum_.emplace(step.communicator);
    sum_->begin(gradients, step.scratch, sums_in_pieces_, step.travel);
  }
  void begin_pass(bool last) override { last_ = last; }
  void layer_done(int layer) override {
    if (last_) sum_->final_from(parameters_->gradient_elements_before(layer));
  }
  void end_pass() override {}
  void pass_by() override {}
  void end_step() override { sum_->finish(); }

 private:
  const bool sums_in_pieces_;
  ParameterTable* parameters_ = nullptr;
  std::optional<GradientSum> sum_;
  bool last_ = false;
};

// Head and embedding, the two ends of a backward pass, take turns in one slot, the layers in two others.
class GradientsInShares final : public Gradients {
 public:
  void plan(MemoryPlan& plan, ParameterTable& parameters, int layers) override {
    group_parameters(parameters, layers);
    std::array<std::int64_t, 3> elements{};
    for (const Group& group : groups_)
      elements[group.slot] = std::max(elements[group.slot], group.range.size());
    for (std::size_t slot = 0; slot < slots_.size(); ++slot)
      plan.add(slots_[slot], "gradients under way", DType::f32, {elements[slot]});
  }

  std::vector<Range> buckets() const override {
    std::vector<Range> all;
    for (auto group = groups_.rbegin(); group != groups_.rend(); ++group)
      all.insert(all.end(), group->buckets.begin(), group->buckets.end());
    return all;
  }

  void begin_step(const Step& step) override {
    step_.emplace(step);
    step.optimizer.zero_gradients(step.ops);
  }
  void begin_pass(bool) override { open(groups_.back()); }
  void layer_done(int layer) override {
    sum(groups_[place_of(layer)]);
    open(groups_[place_of(layer) - 1]);
  }
  void end_pass() override {
    sum(groups_.front());
    collect();
  }
  void pass_by() override {
    begin_pass(false);
    for (std::size_t place = groups_.size(); --place > 0;) layer_done(static_cast<int>(place) - 1);
    end_pass();
  }
  void end_step() override {}

 private:
  // The embedding, a layer, or final norm and head.
  struct Group {
    Range range;  // of all gradients
    std::size_t slot;
    std::vector<Parameter*> parameters;  // trained
    std::vector<Range> buckets;
  };

  static std::size_t place_of(int layer) { return static_cast<std::size_t>(layer + 1); }

  void group_parameters(ParameterTable& parameters, int layers) {
    groups_.clear();
    for (int layer = -1; layer <= layers; ++layer) {
      const bool end = layer < 0 || layer == layers;
      const Range range{
          parameters.gradient_elements_before(layer),
          layer == layers ? parameters.gradient_elements() : parameters.gradient_elements_before(layer + 1)};
      groups_.push_back({range, end ? 0 : 1 + place_of(layer) % 2, {}, GradientSum::buckets(range)});
    }
    std::int64_t offset = 0;
    std::size_t place = 0;
    for (Parameter& parameter : parameters.all()) {
      parameter.gradient = Tensor{};
      if (!parameter.trained) continue;
      while (offset >= groups_[place].range.end) ++place;
      groups_[place].parameters.push_back(&parameter);
      offset += ParameterTable::gradient_elements_of(parameter);
    }
  }

  Tensor in_slot(const Group& group, Range range) const {
    return slots_[group.slot].rows(range.begin - group.range.begin, range.size());
  }

  // Its gradients are about to be computed, from 0.
  void open(const Group& group) {
    step_->ops.zero(in_slot(group, group.range));
    Range place{group.range.begin, group.range.begin};
    for (Parameter* parameter : group.parameters) {
      place = {place.end, place.end + ParameterTable::gradient_elements_of(*parameter)};
      parameter->gradient = in_slot(group, place).rows(0, parameter->shape.size()).reshaped(parameter->shape);
    }
  }

  // They are final. The sums of the group before were under way until now, while these were computed; its
  // slot is free afterwards.
  void sum(const Group& group) {
    collect();
    for (const Range& bucket : group.buckets)
      step_->communicator.start_reduce_scatter_sum(in_slot(group, bucket), step_->scratch, step_->travel);
    under_way_ = &group;
  }

  // The sums under way, this rank's pieces of them, enter the optimizer's share.
  void collect() {
    if (under_way_ == nullptr) return;
    step_->communicator.wait();
    for (const Range& bucket : under_way_->buckets) {
      const Range own = piece_of_rank(bucket, step_->communicator.rank(), step_->communicator.size());
      step_->optimizer.add_gradients(step_->ops, own, in_slot(*under_way_, own));
    }
    under_way_ = nullptr;
  }

  std::vector<Group> groups_;  // in the order of the model
  std::array<Tensor, 3> slots_;
  std::optional<Step> step_;
  const Group* under_way_ = nullptr;
};

}  // namespace

std::unique_ptr<Gradients> make_gradients(Sharding sharding) {
  if (sharding == Sharding::gradients) return std::make_unique<GradientsInShares>();
  return std::make_unique<WholeGradients>(sharding == Sharding::moments);
}

}  // namespace flasheva
