// What the token files need of the HDF5 C library: owning handles, and its errors as one line of text.
#pragma once

#include <hdf5.h>

#include <string>
#include <utility>

namespace flasheva {

// Owns one HDF5 identifier of any kind (file, dataset, space, type, property list, attribute). A call that
// failed gave a negative identifier: valid() is false then, and nothing is released.
class Hdf5Handle {
 public:
  Hdf5Handle() = default;
  explicit Hdf5Handle(hid_t id) : id_(id) {}
  ~Hdf5Handle() { reset(); }
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }

  bool valid() const { return id_ >= 0; }
  operator hid_t() const { return id_; }

  // Releases now; false where the library reports a failure, which for a file can be a failed write.
  bool reset() { return !valid() || H5Idec_ref(std::exchange(id_, H5I_INVALID_HID)) >= 0; }
  // Never releases it: where a write to a file has failed, HDF5 1.14 crashes over closing its datasets.
  void abandon() { id_ = H5I_INVALID_HID; }

 private:
  hid_t id_ = H5I_INVALID_HID;
};

// Before the first call of the library: stops it from printing its errors, which hdf5_reason() gives instead,
// and from tidying up at exit, where it crashes over a file that a full disk kept it from closing.
void start_hdf5();

// Why the last call failed: the innermost description on the library's error stack, or the system's reason
// where there is one ("No space left on device").
std::string hdf5_reason();

// "uint16", "float32", "string", ...: for messages.
std::string name_of_hdf5_type(hid_t type);

}  // namespace flasheva
