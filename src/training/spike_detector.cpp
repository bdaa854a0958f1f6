#include "src/training/spike_detector.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace flasheva {

namespace {

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

double SpikeDetector::score(double loss) const {
  if (!std::isfinite(loss) || losses_.empty() || losses_.size() < window_ / 2) return 0;
  const double median = median_of({losses_.begin(), losses_.end()});
  std::vector<double> deviations;
  for (const double known : losses_) deviations.push_back(std::abs(known - median));
  // Losses that hardly differ, of a tiny data set, must not make a spike of the next one.
  const double least = 1e-3 * std::abs(median);
  return (loss - median) / (1.4826 * std::max(median_of(std::move(deviations)), least));
}

void SpikeDetector::remember(double loss) {
  if (!std::isfinite(loss)) return;
  losses_.push_back(loss);
  if (losses_.size() > window_) losses_.pop_front();
}

}  // namespace flasheva
