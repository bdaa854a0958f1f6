// What a device says that has no memory left: what was asked for, by whom, and how much there is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/test_ops.h"

namespace flasheva {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;

template <class Call>
std::string what_is_said(const Call& call) {
  try {
    call();
  } catch (const OutOfMemory& error) {
    return error.what();
  }
  return "nothing";
}

constexpr std::size_t pebibyte = std::size_t{1} << 50;

TEST(DeviceMemory, SaysWhatAPlanAskedFor) {
  const auto ops = make_device_ops();
  const std::string said = what_is_said([&] { ops->allocate(pebibyte); });
  if (ops->device() == Device::cpu)
    EXPECT_EQ(said, "memory: 1073741824 MiB asked for, not there");
  else
    EXPECT_THAT(said, MatchesRegex("GPU memory: a plan asked for 1048576.0 GiB, [0-9]+\\.[0-9] GiB of "
                                   "[0-9]+\\.[0-9] GiB are free"));
}

TEST(DeviceMemory, SaysWhatAPlanAskedForOfTheHost) {
  const auto ops = make_device_ops();
  EXPECT_THAT(what_is_said([&] { ops->allocate_on_host(pebibyte); }),
              AllOf(HasSubstr("memory: "), HasSubstr("asked for"), HasSubstr("not there")));
}

// What Linux keeps of the mapping in which `address` lies ("VmFlags" of /proc/self/smaps).
std::string flags_of_mapping(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  const auto place = reinterpret_cast<std::uintptr_t>(address);
  bool found = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t begin = 0, end = 0;
    char dash = 0;
    if (std::istringstream(line) >> std::hex >> begin >> dash >> end && dash == '-')
      found = begin <= place && place < end;
    else if (found && line.starts_with("VmFlags:"))
      return line + " ";
  }
  return "";
}

TEST(DeviceMemory, OfTheHostAsksForLargePages) {
  if (!std::filesystem::exists("/sys/kernel/mm/transparent_hugepage")) return;  // this Linux has none
  constexpr std::size_t huge_page = 2u << 20;
  const DeviceMemory large = allocate_host_memory(3 * huge_page + 1);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(large.get()) % huge_page, 0u);
  EXPECT_THAT(flags_of_mapping(large.get()), HasSubstr(" hg "));
  EXPECT_THAT(flags_of_mapping(large.get() + 3 * huge_page), HasSubstr(" hg "));
}

// Takes pieces, each half of what was refused before, until none of `smallest` bytes is left.
std::vector<DeviceMemory> fill(Ops& ops, std::size_t smallest) {
  std::vector<DeviceMemory> pieces;
  for (std::size_t bytes = pebibyte; bytes >= smallest;) {
    try {
      pieces.push_back(ops.allocate(bytes));
    } catch (const OutOfMemory&) {
      bytes /= 2;
    }
  }
  return pieces;
}

// Memory that an operation takes for itself, on a GPU that plans have filled.
TEST(CudaMemory, NamesTheOperationThatFoundNone) {
  const auto ops = make_device_ops();
  if (ops->device() == Device::cpu) GTEST_SKIP() << "a host gives more memory than it has";
  constexpr std::int64_t tokens = 8 << 20;  // 16 bytes of scratch memory each
  const DeviceMemory ids = ops->allocate(tokens * sizeof(std::int32_t)),
                     dout = ops->allocate(tokens * sizeof(float)), dtable = ops->allocate(2 * sizeof(float));
  DeviceMemory left = ops->allocate(32 << 20);  // for what CUDA itself may want
  const std::vector<DeviceMemory> rest = fill(*ops, 32 << 20);
  left.reset();
  const auto on_device = [](const DeviceMemory& memory, DType dtype, const Shape& shape) {
    return Tensor{memory.get(), dtype, shape, Device::cuda};
  };
  const auto embedding_backward = [&] {
    ops->embedding_backward(on_device(dtable, DType::f32, {2, 1}), on_device(dout, DType::f32, {tokens, 1}),
                            on_device(ids, DType::i32, {tokens}));
  };
  EXPECT_THAT(
      what_is_said(embedding_backward),
      MatchesRegex("GPU memory: the backward pass of the embedding asked for 0\\.1 GiB, 0\\.[01] GiB of "
                   "[0-9]+\\.[0-9] GiB are free"));
}

}  // namespace
}  // namespace flasheva
