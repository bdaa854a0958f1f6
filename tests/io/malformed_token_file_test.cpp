// Token files that are refused: each starts from a good one.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <functional>
#include <numeric>

#include "src/core/error.h"
#include "src/core/file.h"
#include "src/io/hdf5_handle.h"
#include "tests/io/token_sequences.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;

struct Fields {
  hid_t token_type = H5T_STD_U16LE;
  std::vector<hsize_t> shape{4};
  std::vector<std::uint32_t> tokens{1, 2, 3, 255};
  hid_t properties = H5P_DEFAULT;
  std::function<void(hid_t file, hid_t tokens)> also = [](hid_t, hid_t) {};
  bool has_vocab_size = true;
};

void write_dataset(hid_t file, const char* name, hid_t type, std::vector<std::uint64_t> values) {
  const hsize_t count = values.size();
  const Hdf5Handle space(H5Screate_simple(1, &count, nullptr));
  const Hdf5Handle dataset(H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  ASSERT_TRUE(dataset.valid());
  H5Dwrite(dataset, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
}

void write_attribute(hid_t dataset, const char* name, hid_t type, hsize_t count, const void* values) {
  const Hdf5Handle space(H5Screate_simple(1, &count, nullptr));
  const Hdf5Handle attribute(H5Acreate2(dataset, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
  ASSERT_TRUE(attribute.valid() && H5Awrite(attribute, type, values) >= 0);
}

void write_vocab_size(hid_t dataset, std::int64_t value) {
  write_attribute(dataset, "vocab_size", H5T_NATIVE_INT64, 1, &value);
}

class MalformedTokenFile : public testing::Test {
 protected:
  MalformedTokenFile() { start_hdf5(); }

  fs::path path() const { return folder_ / "x.h5"; }

  void write(const Fields& fields) {
    const Hdf5Handle file(H5Fcreate(path().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
    const Hdf5Handle space(
        H5Screate_simple(static_cast<int>(fields.shape.size()), fields.shape.data(), nullptr));
    const Hdf5Handle dataset(
        H5Dcreate2(file, "/tokens", fields.token_type, space, H5P_DEFAULT, fields.properties, H5P_DEFAULT));
    ASSERT_TRUE(dataset.valid());
    if (!fields.tokens.empty())
      H5Dwrite(dataset, H5T_NATIVE_UINT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, fields.tokens.data());
    if (fields.has_vocab_size) write_vocab_size(dataset, 256);
    fields.also(file, dataset);
  }

  void expect_refused(const std::string& message) {
    expect_error(ExitCode::data, message, [&] { TokenFile(path()).verify(); });
    expect_error(ExitCode::data, path().string(), [&] { TokenFile(path()).verify(); });
  }

  TemporaryFolder folder_;
};

TEST_F(MalformedTokenFile, TheUnbrokenOneIsRead) {
  write({});
  EXPECT_EQ(TokenFile(path()).verify().largest_token, 255);
}

TEST_F(MalformedTokenFile, Missing) { expect_refused("x.h5: cannot read: No such file or directory"); }

TEST_F(MalformedTokenFile, Folder) {
  fs::create_directory(path());
  expect_refused("a folder, not an HDF5 token file");
}

TEST_F(MalformedTokenFile, NotHdf5) {
  write_file_atomically(path(), std::string(5000, 'x'));
  expect_refused("not a readable HDF5 file (file signature not found); make one with");
}

TEST_F(MalformedTokenFile, Empty) {
  write_file_atomically(path(), "");
  expect_refused("not a readable HDF5 file");
}

TEST_F(MalformedTokenFile, CutAnywhere) {
  TokenFileWriter writer(path(), {256, "bytes", "", std::nullopt});
  for (int i = 0; i < 3; ++i) writer.append(tokens_between(0, 50000));
  writer.end_document();
  writer.finish();
  const std::string whole = read_text_file(path());
  for (std::size_t size = 0; size < whole.size(); size += whole.size() / 97) {
    write_file_atomically(path(), whole.substr(0, size));
    expect_refused(size < 8 ? "not a readable HDF5 file" : "truncated file");
  }
}

// Where the file keeps the bytes of the first chunk of /tokens, and how many.
std::pair<std::size_t, std::size_t> first_chunk(const fs::path& path) {
  const Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
  const Hdf5Handle dataset(H5Dopen2(file, "/tokens", H5P_DEFAULT));
  const Hdf5Handle space(H5Dget_space(dataset));
  hsize_t place = 0, bytes = 0;
  unsigned filters = 0;
  haddr_t address = 0;
  EXPECT_GE(H5Dget_chunk_info(dataset, space, 0, &place, &filters, &address, &bytes), 0);
  return {address, bytes};
}

TEST_F(MalformedTokenFile, DamagedGzipChunk) {
  const std::string whole = read_text_file(fixture("tokens-gzip.h5"));
  const auto [begin, bytes] = first_chunk(fixture("tokens-gzip.h5"));
  ASSERT_GT(bytes, 100u);
  for (std::size_t at = begin; at < begin + bytes; at += 3) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    write_file_atomically(path(), damaged);
    expect_refused(":/tokens: cannot read elements 0 to 1000");
  }
}

TEST_F(MalformedTokenFile, NoTokens) {
  write({.also = [](hid_t file, hid_t) {
    H5Lmove(file, "/tokens", file, "/other", H5P_DEFAULT, H5P_DEFAULT);
  }});
  expect_refused("has no dataset /tokens");
}

TEST_F(MalformedTokenFile, TokensIsAGroup) {
  write({.also = [](hid_t file, hid_t) {
    H5Ldelete(file, "/tokens", H5P_DEFAULT);
    const Hdf5Handle group(H5Gcreate2(file, "/tokens", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  }});
  expect_refused(":/tokens: not a readable dataset (not a dataset)");
}

TEST_F(MalformedTokenFile, OtherTypes) {
  const std::array<std::pair<hid_t, const char*>, 8> types{{{H5T_STD_I16LE, "int16"},
                                                            {H5T_STD_I32LE, "int32"},
                                                            {H5T_STD_U8LE, "uint8"},
                                                            {H5T_STD_U64LE, "uint64"},
                                                            {H5T_STD_I64LE, "int64"},
                                                            {H5T_IEEE_F32LE, "float32"},
                                                            {H5T_IEEE_F64LE, "float64"},
                                                            {H5T_STD_B16LE, "another type"}}};
  for (const auto& [type, name] : types) {
    write({.token_type = type});
    expect_refused(std::string(":/tokens: is ") + name + "; it must be uint16 or uint32");
  }
  const Hdf5Handle narrow(H5Tcopy(H5T_STD_U16LE));
  H5Tset_precision(narrow, 12);
  write({.token_type = narrow});
  expect_refused("it must be uint16 or uint32");
}

TEST_F(MalformedTokenFile, OtherRanks) {
  write({.shape = {2, 2}});
  expect_refused(":/tokens: has 2 dimensions; it must be one-dimensional");
  write({.shape = {}});
  expect_refused(":/tokens: has 0 dimensions");
}

TEST_F(MalformedTokenFile, Links) {
  write({.also = [](hid_t file, hid_t) {
    H5Lmove(file, "/tokens", file, "/other", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/other", file, "/tokens", H5P_DEFAULT, H5P_DEFAULT);
  }});
  expect_refused(":/tokens: is a soft link; store the data in this file");
  write({.also = [](hid_t file, hid_t) {
    H5Ldelete(file, "/tokens", H5P_DEFAULT);
    H5Lcreate_external("/etc/passwd", "/tokens", file, "/tokens", H5P_DEFAULT, H5P_DEFAULT);
  }});
  expect_refused(":/tokens: is an external link");
  write({.also = [](hid_t file, hid_t) {
    H5Lcreate_external("other.h5", "/loss_mask", file, "/loss_mask", H5P_DEFAULT, H5P_DEFAULT);
  }});
  expect_refused(":/loss_mask: is an external link");
}

TEST_F(MalformedTokenFile, ExternalStorage) {
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_external(properties, "/etc/passwd", 0, 8);
  write({.tokens = {}, .properties = properties});
  expect_refused(":/tokens: keeps its data in external files");
}

TEST_F(MalformedTokenFile, VirtualDataset) {
  const hsize_t count = 4;
  const Hdf5Handle space(H5Screate_simple(1, &count, nullptr));
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_virtual(properties, space, "other.h5", "/tokens", space);
  write({.tokens = {}, .properties = properties});
  expect_refused(":/tokens: is a virtual dataset");
}

TEST_F(MalformedTokenFile, OtherFilters) {
  const hsize_t chunk = 4;
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_chunk(properties, 1, &chunk);
  H5Pset_scaleoffset(properties, H5Z_SO_INT, 0);
  write({.properties = properties});
  expect_refused(":/tokens: uses filter 6 (scaleoffset); use gzip, shuffle and fletcher32 only");

  const Hdf5Handle plugin(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_chunk(plugin, 1, &chunk);
  H5Pset_filter(plugin, 32015, H5Z_FLAG_OPTIONAL, 0, nullptr);
  write({.properties = plugin});
  expect_refused(":/tokens: uses filter 32015");
}

TEST_F(MalformedTokenFile, HugeFilteredChunks) {
  const hsize_t chunk = 40 << 20;
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_chunk(properties, 1, &chunk);
  H5Pset_deflate(properties, 1);
  write({.shape = {hsize_t{40} << 20}, .tokens = {}, .properties = properties});
  expect_refused(":/tokens: has filtered chunks of 41943040 elements; write chunks of 65536");
}

TEST_F(MalformedTokenFile, VocabSize) {
  write({.has_vocab_size = false});
  expect_refused(":/tokens: has no attribute vocab_size");
  for (const std::int64_t value : {std::int64_t{0}, std::int64_t{-5}, std::int64_t{1} << 40}) {
    write({.also = [&](hid_t, hid_t tokens) { write_vocab_size(tokens, value); }, .has_vocab_size = false});
    expect_refused("attribute vocab_size is " + std::to_string(value) + "; it must be from 1 to 2^31 - 1");
  }
  const double real = 256;
  write({.also = [&](hid_t, hid_t t) { write_attribute(t, "vocab_size", H5T_NATIVE_DOUBLE, 1, &real); },
         .has_vocab_size = false});
  expect_refused("attribute vocab_size is float64; it must be an integer");
  const std::int64_t two[] = {256, 256};
  write({.also = [&](hid_t, hid_t t) { write_attribute(t, "vocab_size", H5T_NATIVE_INT64, 2, two); },
         .has_vocab_size = false});
  expect_refused("attribute vocab_size must be a single value");
}

TEST_F(MalformedTokenFile, AttributesOfTheRootGroupAreReadToo) {
  write({.also = [](hid_t file, hid_t) { write_vocab_size(file, 300); }, .has_vocab_size = false});
  EXPECT_EQ(TokenFile(path()).info().vocab_size, 300);
  write({.also = [](hid_t file, hid_t) { write_vocab_size(file, 300); }});
  EXPECT_EQ(TokenFile(path()).info().vocab_size, 256);
  write({.also = [](hid_t file, hid_t) { write_vocab_size(file, -1); }, .has_vocab_size = false});
  expect_refused("x.h5:/: attribute vocab_size is -1");
}

TEST_F(MalformedTokenFile, OtherAttributes) {
  const std::int64_t number = 256;
  write({.also = [&](hid_t, hid_t t) { write_attribute(t, "tokenizer", H5T_NATIVE_INT64, 1, &number); }});
  expect_refused("attribute tokenizer is int64; it must be a short text");
  write({.also = [&](hid_t, hid_t t) { write_attribute(t, "eos_token_id", H5T_NATIVE_INT64, 1, &number); }});
  expect_refused("attribute eos_token_id is 256, not below vocab_size 256");
}

TEST_F(MalformedTokenFile, IdsBeyondTheVocabulary) {
  write({.token_type = H5T_STD_U32LE, .tokens = {1, 256, 3, 70000}});
  expect_error(ExitCode::data, "x.h5:/tokens: token 256 at place 1 is not below vocab_size 256", [&] {
    TokenFile file(path());
    read(file, 0, 3);
  });
  expect_error(ExitCode::data, "x.h5:/tokens: token 70000 at place 3 is not below", [&] {
    TokenFile file(path());
    read(file, 2, 1);
  });
  expect_refused("token 256 at place 1");
  write({.token_type = H5T_STD_U32LE, .tokens = {1, 2, 3, 0xffffffffu}});
  expect_refused("token 4294967295 at place 3");
  write({.tokens = {1, 2, 3, 256}});  // the first that is not below
  expect_refused("token 256 at place 3");
}

TEST_F(MalformedTokenFile, LossMask) {
  write({.also = [](hid_t file, hid_t) { write_dataset(file, "/loss_mask", H5T_STD_U8LE, {1, 1, 0}); }});
  expect_refused(":/loss_mask: has 3 entries for 4 tokens");
  write({.also = [](hid_t file, hid_t) { write_dataset(file, "/loss_mask", H5T_STD_I8LE, {1, 1, 0, 1}); }});
  expect_refused(":/loss_mask: is int8; it must be uint8");
}

TEST_F(MalformedTokenFile, LossMaskOfOtherValuesCountsWhatIsNotZero) {
  write({.also = [](hid_t file, hid_t) { write_dataset(file, "/loss_mask", H5T_STD_U8LE, {9, 255, 0, 2}); }});
  TokenFile file(path());
  EXPECT_EQ(read(file, 0, 3).mask, (std::vector<std::uint8_t>{1, 0, 1}));
}

TEST_F(MalformedTokenFile, DocumentOffsets) {
  const auto with = [&](hid_t type, std::vector<std::uint64_t> offsets) {
    write({.also = [&](hid_t file, hid_t) { write_dataset(file, "/document_offsets", type, offsets); }});
  };
  with(H5T_STD_I64LE, {0, 4});
  expect_refused(":/document_offsets: is int64; it must be uint64");
  with(H5T_STD_U64LE, {});
  expect_refused(":/document_offsets: is empty");
  with(H5T_STD_U64LE, {0, 3, 2, 4});
  expect_refused(":/document_offsets: falls from 3 to 2 at entry 2");
  with(H5T_STD_U64LE, {1, 4});
  expect_refused(":/document_offsets: runs from 1 to 4; it must run from 0 to the number of tokens, 4");
  with(H5T_STD_U64LE, {0, 5});
  expect_refused(":/document_offsets: runs from 0 to 5");
}

TEST(TokenFile, FailuresPrintNothingOfHdf5) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "x.h5", "not HDF5");
  testing::internal::CaptureStderr();
  EXPECT_THROW(TokenFile(folder / "x.h5"), Error);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace flasheva
