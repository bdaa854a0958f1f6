#include "src/io/hdf5_handle.h"

#include <fmt/format.h>

#include "src/core/text.h"

namespace flasheva {

void start_hdf5() {
  H5dont_atexit();
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

std::string hdf5_reason() {
  std::string reason = "unknown HDF5 error";
  const H5E_walk2_t keep_innermost = [](unsigned level, const H5E_error2_t* error, void* out) -> herr_t {
    if (level == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &reason);

  // File errors carry the system's words among times, addresses and flags: "... error message = 'REASON',
  // ...".
  constexpr std::string_view prefix = "error message = '";
  if (const std::size_t at = reason.find(prefix); at != std::string::npos) {
    reason.erase(0, at + prefix.size());
    reason.resize(std::min(reason.size(), reason.find('\'')));
  }
  return printable(reason, 200);
}

std::string name_of_hdf5_type(hid_t type) {
  const std::size_t bits = 8 * H5Tget_size(type);
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      return fmt::format("{}int{}", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits);
    case H5T_FLOAT:
      return fmt::format("float{}", bits);
    case H5T_STRING:
      return "string";
    case H5T_ENUM:
      return "enumeration (NumPy's bool is one)";
    case H5T_COMPOUND:
      return "compound";
    default:
      return "another type";
  }
}

}  // namespace flasheva
