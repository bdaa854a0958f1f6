// Tells a loss that leaps out of those before it, by its robust z-score
//
//     z = (loss - median) / (1.4826 MAD),   MAD = median of |loss - median|,
//
// which one outlier, or several, cannot move (Iglewicz and Hoaglin, 1993). Losses that are not finite are the
// business of others: they are no spike and leave no trace.
#pragma once

#include <cstddef>
#include <deque>

namespace flasheva {

class SpikeDetector {
 public:
  // Judges by the last `window` losses, once it has seen half of them.
  SpikeDetector(std::size_t window, double threshold) : window_(window), threshold_(threshold) {}

  // The z-score of a loss; 0 while too few are known.
  double score(double loss) const;
  bool is_spike(double loss) const { return score(loss) > threshold_; }

  // The loss is one of those by which the next are judged.
  void remember(double loss);
  void forget() { losses_.clear(); }
  const std::deque<double>& known() const { return losses_; }

 private:
  std::size_t window_;
  double threshold_;
  std::deque<double> losses_;
};

}  // namespace flasheva
