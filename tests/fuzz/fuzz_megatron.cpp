// Any eight bytes as the size of a .bin and any others as its .idx: refused with an Error of one line, or an
// index whose sequences fill the .bin and whose documents are in order.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "src/core/error.h"
#include "src/io/megatron.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace flasheva;
  std::int64_t bin_bytes = 0;
  if (size < sizeof(bin_bytes)) return 0;
  std::memcpy(&bin_bytes, data, sizeof(bin_bytes));
  if (bin_bytes < 0) return 0;
  try {
    const MegatronIndex index(std::as_bytes(std::span(data, size)).subspan(sizeof(bin_bytes)), bin_bytes,
                              "input");
    std::int64_t bytes = 0, sequence = 0;
    for (std::int64_t i = 0; i < index.sequences(); ++i) {
      require(index.size(i) >= 0);
      bytes += index.size(i) * static_cast<std::int64_t>(bytes_of(index.type()));
    }
    require(bytes == bin_bytes);
    for (std::int64_t i = 0; i < index.documents(); ++i) {
      require(index.document_end(i) >= sequence && index.document_end(i) <= index.sequences());
      sequence = index.document_end(i);
    }
    require(sequence == index.sequences() || index.documents() == 0);
  } catch (const Error& error) {
    require(error.code() == ExitCode::data);
    require(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
