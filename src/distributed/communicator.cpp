#include "src/distributed/communicator.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace flasheva {

std::vector<std::string> from_all_ranks(Communicator& communicator, const std::string& text) {
  const auto rank = static_cast<std::size_t>(communicator.rank());
  std::vector<double> sizes(static_cast<std::size_t>(communicator.size()));
  sizes[rank] = static_cast<double>(text.size());
  communicator.all_reduce_sum(sizes);
  std::vector<std::size_t> firsts{0};
  for (const double size : sizes) firsts.push_back(firsts.back() + static_cast<std::size_t>(size));
  std::vector<double> characters(firsts.back());
  std::copy(text.begin(), text.end(), characters.begin() + static_cast<std::ptrdiff_t>(firsts[rank]));
  communicator.all_reduce_sum(characters);
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < sizes.size(); ++r) {
    texts.emplace_back();
    for (std::size_t i = firsts[r]; i < firsts[r + 1]; ++i)
      texts.back().push_back(static_cast<char>(characters[i]));
  }
  return texts;
}

double from_first_rank(Communicator& communicator, double value) {
  double sum = communicator.rank() == 0 ? value : 0;
  communicator.all_reduce_sum({&sum, 1});
  return sum;
}

bool on_any_rank(Communicator& communicator, bool value) {
  double count = value ? 1 : 0;
  communicator.all_reduce_sum({&count, 1});
  return count > 0;
}

std::vector<int> ranks_that_differ(Communicator& communicator, std::uint64_t value) {
  // Halves of 32 bits: a double holds each exactly.
  const auto ranks = static_cast<std::size_t>(communicator.size());
  const auto rank = static_cast<std::size_t>(communicator.rank());
  std::vector<double> halves(2 * ranks);
  halves[2 * rank] = static_cast<double>(value >> 32);
  halves[2 * rank + 1] = static_cast<double>(value & 0xffffffffu);
  communicator.all_reduce_sum(halves);

  std::map<std::pair<double, double>, int> counts;
  for (std::size_t r = 0; r < ranks; ++r) ++counts[{halves[2 * r], halves[2 * r + 1]}];
  std::pair<double, double> usual{halves[0], halves[1]};
  for (const auto& [key, count] : counts)
    if (count > counts[usual]) usual = key;
  std::vector<int> different;
  for (std::size_t r = 0; r < ranks; ++r)
    if (std::pair(halves[2 * r], halves[2 * r + 1]) != usual) different.push_back(static_cast<int>(r));
  return different;
}

void fail_together(const Communicator& communicator, ExitCode code, const std::string& message) {
  throw SharedError(code, communicator.rank() == 0 ? message : "");
}

void succeed_together(Communicator& communicator, const std::function<void()>& work) {
  std::optional<Error> own;
  try {
    work();
  } catch (const Error& error) {
    own = error;
  }
  const auto rank = static_cast<std::size_t>(communicator.rank());
  std::vector<double> codes(static_cast<std::size_t>(communicator.size()));
  if (own) codes[rank] = static_cast<double>(own->code());
  communicator.all_reduce_sum(codes);
  const auto first = std::find_if(codes.begin(), codes.end(), [](double code) { return code != 0; });
  if (first == codes.end()) return;
  const bool is_first = static_cast<std::size_t>(first - codes.begin()) == rank;
  throw SharedError(static_cast<ExitCode>(*first), is_first ? own->what() : "");
}

}  // namespace flasheva
