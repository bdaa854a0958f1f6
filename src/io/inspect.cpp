#include <algorithm>

#include "src/core/text.h"
#include "src/io/prepare.h"
#include "src/io/token_file.h"

namespace flasheva {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t max_source_bytes = 1000;
constexpr std::int64_t shown_tokens = 64;

}  // namespace

std::string inspect_token_file(const fs::path& path) {
  TokenFile file(path);
  const TokenFileStatistics statistics = file.verify();
  const TokenFileInfo& info = file.info();
  std::string out = path.string() + "\n";
  const auto line = [&](const char* name, const std::string& value) {
    out += fmt::format("  {:<14}{}\n", name, value);
  };

  line("tokens", fmt::format("{} ({})", info.tokens, info.stored_type));
  line("vocab_size", fmt::format("{}, largest id {}", info.vocab_size, statistics.largest_token));
  line("tokenizer", info.tokenizer.empty() ? "not named" : printable(info.tokenizer));
  line("eos_token_id", info.eos_token_id ? fmt::format("{}", *info.eos_token_id) : "none");
  line("source", info.source.empty() ? "not named" : printable(info.source, max_source_bytes));
  line("documents", info.documents > 0 ? fmt::format("{}", info.documents) : "not marked");
  line("loss_mask", info.has_loss_mask ? fmt::format("{} of {} tokens count as targets",
                                                     statistics.counted_targets, info.tokens)
                                       : "none: every target counts");
  std::vector<std::int32_t> first(static_cast<std::size_t>(std::min(shown_tokens, info.tokens)));
  file.read_tokens(0, first);
  if (info.tokenizer == "bytes" && info.vocab_size == 256)
    line("starts with", printable(make_tokenizer("bytes")->decode(first), 2 * shown_tokens));
  else
    line("starts with", fmt::format("{}", fmt::join(first, " ")));
  return out + "  verified: every id is below vocab_size, every offset in order\n";
}

}  // namespace flasheva
