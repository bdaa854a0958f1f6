#include "src/training/optimizer.h"

#include <algorithm>
#include <cmath>

namespace flasheva {

namespace {

// gpt_neox.layers.3.attention.dense.weight -> layers.3; gpt_neox.embed_in.weight -> embed_in.
std::string part_of(const std::string& name) {
  std::string rest = name.starts_with("gpt_neox.") ? name.substr(9) : name;
  const std::size_t dots = rest.starts_with("layers.") ? rest.find('.', 7) : rest.find('.');
  return rest.substr(0, dots);
}

// Elements first .. first + count - 1 of a tensor, as a vector.
Tensor elements(const Tensor& tensor, std::int64_t first, std::int64_t count) {
  return tensor ? tensor.reshaped({tensor.size()}).rows(first, count) : tensor;
}

// Calls f(parameter, first, count, at) for the elements of trained parameters whose gradients stand in a
// range of all gradients: elements first .. first + count - 1 of the parameter, `at` elements behind the
// range's begin.
template <class F>
void for_parameters_in(ParameterTable& parameters, Range range, const F& f) {
  std::int64_t offset = 0;
  for (Parameter& parameter : parameters.all()) {
    if (!parameter.trained) continue;
    const std::int64_t begin = std::max(range.begin, offset);
    const std::int64_t end = std::min(range.end, offset + parameter.shape.size());
    if (begin < end) f(parameter, begin - offset, end - begin, begin - range.begin);
    offset += ParameterTable::gradient_elements_of(parameter);
  }
}

// Casts of vectors, at once for those that go on in memory where the ones before them end, both out and in:
// most parameters do, and a GPU starts a kernel for each cast.
class JoinedCasts {
 public:
  explicit JoinedCasts(Ops& ops) : ops_(ops) {}

  void add(const Tensor& out, const Tensor& in) {
    if (out_ && end_of(out_) == out.data && end_of(in_) == in.data) {
      out_.shape = in_.shape = {out_.size() + out.size()};
    } else {
      finish();
      out_ = out;
      in_ = in;
    }
  }
  // What was added is cast.
  void finish() {
    if (out_) ops_.cast(out_, in_);
    out_ = in_ = Tensor{};
  }

 private:
  static void* end_of(const Tensor& tensor) { return static_cast<std::byte*>(tensor.data) + tensor.bytes(); }

  Ops& ops_;
  Tensor out_, in_;
};

}  // namespace

Tensor Optimizer::Segment::gradient() const {
  const bool sharded = piece != nullptr && piece->gradients;
  return sharded ? piece->gradients.rows(place, count) : elements(parameter->gradient, first, count);
}

void Optimizer::plan(MemoryPlan& plan, ParameterTable& parameters, Sharding sharding,
                     std::vector<Range> buckets, int rank, int ranks) {
  parameters_ = &parameters;
  buckets_ = std::move(buckets);
  sharding_ = sharding;
  segments_.clear();
  pieces_.clear();
  const auto add = [&](Range range, const Piece* piece) {
    for_parameters_in(parameters, range, [&](Parameter& parameter, auto first, auto count, auto at) {
      segments_.push_back({&parameter, first, count, piece, at, {}, {}});
    });
  };
  if (sharded())
    for (const Range& bucket : buckets_) pieces_.push_back({piece_of_rank(bucket, rank, ranks), {}});
  else
    add({0, parameters.gradient_elements()}, nullptr);
  for (const Piece& piece : pieces_) add(piece.range, &piece);
  for (Segment& segment : segments_) {
    const DType type = ParameterTable::training_type(*segment.parameter);
    for (Tensor* moment : {&segment.first_moment, &segment.second_moment})
      plan.add(*moment, "optimizer moments", type, {segment.count});
  }
  if (sharding == Sharding::gradients)
    for (Piece& piece : pieces_) plan.add(piece.gradients, "gradients", DType::f32, {piece.range.size()});
}

void Optimizer::zero_gradients(Ops& ops) {
  for (const Piece& piece : pieces_) ops.zero(piece.gradients);
}

void Optimizer::add_gradients(Ops& ops, Range range, Tensor gradients) {
  const auto same = [&](const Piece& piece) { return piece.range.begin == range.begin; };
  const Tensor sums = std::find_if(pieces_.begin(), pieces_.end(), same)->gradients;
  ops.residual(sums, sums, gradients, {});
}

GradientNorms Optimizer::norms(Ops& ops, Communicator& communicator, double loss_scale) const {
  std::vector<Tensor> gradients;
  for (const Segment& segment : segments_) gradients.push_back(segment.gradient());
  std::vector<double> sums(gradients.size());
  ops.sums_of_squares(sums, gradients);
  std::map<const Parameter*, double> of_parameter;
  for (std::size_t i = 0; i < sums.size(); ++i) of_parameter[segments_[i].parameter] += sums[i];
  std::vector<double> squares(parameters_->all().size());
  for (std::size_t i = 0; i < squares.size(); ++i)
    if (const auto found = of_parameter.find(&parameters_->all()[i]); found != of_parameter.end())
      squares[i] = found->second;
  if (sharded()) communicator.all_reduce_sum(squares);

  GradientNorms norms;
  double total = 0;
  for (std::size_t i = 0; i < squares.size(); ++i) {
    const Parameter& parameter = parameters_->all()[i];
    if (!parameter.trained) continue;
    if (!std::isfinite(squares[i])) norms.first_non_finite = parameter.name;
    norms.by_part[part_of(parameter.name)] += squares[i];
    total += squares[i];
  }
  norms.global = std::fabs(std::sqrt(total)) / loss_scale;  // no sign where it is NaN
  for (auto& [part, sum] : norms.by_part) sum = std::sqrt(sum) / loss_scale;
  return norms;
}

void Optimizer::update(Ops& ops, Communicator& communicator, const OptimizerConfig& config, double lr,
                       std::int64_t step, double gradient_norm, double loss_scale, Tensor scratch) {
  AdamWConfig adamw;
  adamw.lr = lr;
  adamw.beta1 = config.beta1;
  adamw.beta2 = config.beta2;
  adamw.eps = config.eps;
  adamw.step = step;
  const double clipping = config.clip > 0 ? std::min(1.0, config.clip / (gradient_norm + 1e-6)) : 1;
  adamw.gradient_scale = clipping / loss_scale;
  std::vector<AdamWParameter> updates;
  for (const Segment& segment : segments_) {
    const Parameter& parameter = *segment.parameter;
    const Tensor copy = parameter.weight.data != parameter.master.data ? parameter.weight : Tensor{};
    updates.push_back({elements(parameter.master, segment.first, segment.count),
                       elements(copy, segment.first, segment.count), segment.first_moment,
                       segment.second_moment, segment.gradient(),
                       parameter.shape.rank() >= 2 ? config.weight_decay : 0.0});
  }
  ops.adamw(updates, adamw);
  if (sharded()) gather(ops, communicator, scratch);
}

// Every rank's updated weights to all others, bucket by bucket.
void Optimizer::gather(Ops& ops, Communicator& communicator, Tensor scratch) {
  JoinedCasts own_masters(ops), masters(ops), copies(ops);
  for (const Range& bucket : buckets_) {
    const Tensor weights = scratch.rows(0, bucket.size());
    const Range own = piece_of_rank(bucket, communicator.rank(), communicator.size());
    for_parameters_in(*parameters_, own, [&](Parameter& parameter, auto first, auto count, auto at) {
      own_masters.add(weights.rows(own.begin - bucket.begin + at, count),
                      elements(parameter.master, first, count));
    });
    own_masters.finish();
    communicator.start_all_gather(weights);
    communicator.wait();
    for_parameters_in(*parameters_, bucket, [&](Parameter& parameter, auto first, auto count, auto at) {
      masters.add(elements(parameter.master, first, count), weights.rows(at, count));
      if (parameter.weight.data != parameter.master.data)
        copies.add(elements(parameter.weight, first, count), weights.rows(at, count));
    });
    masters.finish();
    copies.finish();
  }
}

}  // namespace flasheva
