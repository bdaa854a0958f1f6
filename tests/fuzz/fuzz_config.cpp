// Any bytes as a configuration: either a valid one, which its own JSON gives again, or one line of
// Error{usage}. What follows a zero byte is taken as an override.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/config/config.h"
#include "src/core/error.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = input.find('\0');
  std::vector<std::string> overrides;
  if (end != std::string::npos) overrides.push_back(input.substr(end + 1));
  try {
    const flasheva::Config config = flasheva::parse_config(input.substr(0, end), "run.yaml", overrides);
    const nlohmann::json json = flasheva::to_json(config);
    require(flasheva::to_json(flasheva::parse_config(json.dump(), "run.json")) == json);
  } catch (const flasheva::Error& error) {
    require(error.code() == flasheva::ExitCode::usage);
    require(std::string(error.what()).find('\n') == std::string::npos);
  }
  return 0;
}
