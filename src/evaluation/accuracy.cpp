#include "src/evaluation/accuracy.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>

namespace flasheva {

using nlohmann::ordered_json;

namespace {

struct Mean {
  double value = 0;
  ordered_json standard_error;  // null for a single value
};

Mean mean_of(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  for (const double value : values) squares += (value - sum / n) * (value - sum / n);
  Mean mean{sum / n, nullptr};
  if (n > 1) mean.standard_error = std::sqrt(squares / (n - 1)) / std::sqrt(n);
  return mean;
}

using Places = std::vector<std::size_t>;  // of some questions

class Report {
 public:
  Report(const std::vector<Question>& questions, const Scores& scores)
      : questions_(questions), scores_(scores) {}

  ordered_json metrics(const Places& places) const {
    ordered_json out = {{"questions", places.size()}};
    const bool choices = questions_[places.front()].answer.has_value();
    std::vector<double> right, other;
    for (const std::size_t place : places) {
      const Question& question = questions_[place];
      if (choices) {
        const Prediction prediction = predict(question, scores_[place]);
        right.push_back(prediction.choice == *question.answer);
        other.push_back(prediction.choice_norm == *question.answer);
      } else {
        right.push_back(scores_[place][0].greedy);
        other.push_back(scores_[place][0].log_likelihood);
      }
    }
    const Mean acc = mean_of(right), second = mean_of(other);
    out.update({{"acc", acc.value}, {"acc_stderr", acc.standard_error}});
    if (choices) {
      out.update({{"acc_norm", second.value}, {"acc_norm_stderr", second.standard_error}});
    } else {
      const double perplexity = std::exp(-second.value);
      ordered_json error = second.standard_error;
      if (!error.is_null()) error = perplexity * error.get<double>();
      out.update({{"perplexity", perplexity}, {"perplexity_stderr", error}});
    }
    return out;
  }

  ordered_json with_distances(const Places& places) const {
    ordered_json out = metrics(places);
    std::map<int, Places> buckets;  // by the bits of the distance
    for (const std::size_t place : places)
      if (const auto& distance = questions_[place].distance)
        buckets[std::bit_width(static_cast<std::uint64_t>(*distance))].push_back(place);
    for (const auto& [bits, members] : buckets) {
      const std::int64_t from = bits == 0 ? 0 : std::int64_t{1} << (bits - 1);
      ordered_json bucket = {{"from", from}, {"to", from == 0 ? 0 : 2 * from - 1}};
      bucket.update(metrics(members));
      out["distances"].push_back(bucket);
    }
    return out;
  }

 private:
  const std::vector<Question>& questions_;
  const Scores& scores_;
};

}  // namespace

Prediction predict(const Question& question, const std::vector<ContinuationScore>& scores) {
  const auto likeliest = [&](auto score_of) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < scores.size(); ++i)
      if (score_of(i) > score_of(best)) best = i;
    return static_cast<std::int64_t>(best);
  };
  return {likeliest([&](std::size_t i) { return scores[i].log_likelihood; }), likeliest([&](std::size_t i) {
            return scores[i].log_likelihood / static_cast<double>(question.choices[i].length);
          })};
}

ordered_json accuracy_of(const std::vector<Question>& questions, const Scores& scores) {
  const Report report(questions, scores);
  Places all;
  std::vector<std::pair<std::string, Places>> groups;
  for (std::size_t place = 0; place < questions.size(); ++place) {
    all.push_back(place);
    const std::string& name = questions[place].group;
    if (name.empty()) continue;
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == name; });
    if (group == groups.end()) group = groups.insert(group, {name, {}});
    group->second.push_back(place);
  }
  ordered_json out = report.with_distances(all);
  for (const auto& [name, places] : groups) {
    ordered_json group = {{"group", name}};
    group.update(report.with_distances(places));
    out["groups"].push_back(group);
  }
  return out;
}

}  // namespace flasheva
