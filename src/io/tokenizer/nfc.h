// Unicode's canonical composition (NFC, UAX #15).
#pragma once

#include <string>
#include <string_view>

namespace flasheva {

// `text`, well-formed UTF-8, in NFC: itself where nothing changes, else a copy in `buffer`.
std::string_view nfc(std::string_view text, std::string& buffer);

}  // namespace flasheva
