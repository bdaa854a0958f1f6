// bench_tokenizer FOLDER TEXT: for benchmarks/tokenizer.py. Encodes the file in pieces of the sizes, in
// bytes, that standard input lists; prints the seconds of user CPU time and the number of tokens as JSON.
#include <fmt/format.h>
#include <sys/resource.h>

#include <exception>
#include <iostream>
#include <vector>

#include "src/core/file.h"
#include "src/io/tokenizer.h"

namespace {

double user_seconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec) + 1e-6 * static_cast<double>(usage.ru_utime.tv_usec);
}

void measure(const std::string& folder, const std::string& path) {
  const auto tokenizer = flasheva::make_tokenizer(folder);
  const std::string text = flasheva::read_text_file(path);
  std::vector<std::string_view> pieces;
  std::string_view rest = text;
  for (std::size_t bytes = 0; std::cin >> bytes; rest.remove_prefix(bytes))
    pieces.push_back(rest.substr(0, bytes));

  const double before = user_seconds();
  std::size_t tokens = 0;
  for (const std::string_view piece : pieces) tokens += tokenizer->encode(piece).size();
  fmt::print("{{\"seconds\": {}, \"tokens\": {}}}\n", user_seconds() - before, tokens);
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count != 3) throw std::runtime_error("bench_tokenizer FOLDER TEXT");
    measure(arguments[1], arguments[2]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "bench_tokenizer: " << error.what() << "\n";
    return 1;
  }
}
