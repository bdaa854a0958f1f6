// Owning memory of any device, and what is thrown where there is not enough of it.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <string>

namespace flasheva {

using DeviceMemory = std::unique_ptr<std::byte, void (*)(std::byte*)>;

class OutOfMemory : public std::bad_alloc {
 public:
  // "device memory: 12.3 GiB asked for, 10.1 GiB free of 23.7 GiB"
  explicit OutOfMemory(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

// Host memory, aligned as MemoryPlan says.
DeviceMemory allocate_host_memory(std::size_t bytes);

}  // namespace flasheva
