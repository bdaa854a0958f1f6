#include "src/io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "src/core/error.h"
#include "src/core/text.h"
#include "tests/io/stored_values.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

// A file with one float32 tensor `w` whose parts are given.
std::string one(const std::string& shape, const std::string& offsets, std::size_t data_bytes) {
  return file_of("{\"w\":" + tensor("\"F32\"", shape, offsets) + "}", data_bytes);
}

std::string two(const std::string& a_shape, const std::string& a_offsets, const std::string& b_shape,
                const std::string& b_offsets, std::size_t data_bytes) {
  return file_of("{\"a\":" + tensor("\"F32\"", a_shape, a_offsets) +
                     ",\"b\":" + tensor("\"F32\"", b_shape, b_offsets) + "}",
                 data_bytes);
}

// --- malformed files -----------------------------------------------------------------------------------

struct Malformed {
  std::string name;
  std::string file;
  std::string message;  // a part of it
};

std::vector<Malformed> malformed_lengths() {
  return {
      {"empty", "", "too few"},
      {"seven_bytes", std::string(7, '\0'), "too few"},
      {"no_header", length_field(0), "does not start with '{'"},
      {"header_one_byte_short", length_field(3) + "{}", "truncated"},
      {"header_of_all_ones", length_field(~0ull) + "{}", "at most 100000000"},
      {"header_of_half_the_range", length_field(1ull << 63) + "{}", "at most 100000000"},
      {"header_above_the_cap", length_field(100'000'001) + "{}", "at most 100000000"},
      {"header_at_the_cap_truncated", length_field(100'000'000) + "{}", "truncated"},
      {"big_endian_length", std::string(7, '\0') + "\2{}", "at most 100000000"},
      {"pytorch_zip", "PK\3\4" + std::string(100, 'x'), "is this a safetensors file?"},
      {"git_lfs_pointer", "version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"},
  };
}

std::vector<Malformed> malformed_json() {
  const std::string zero(1, '\0');
  return {
      {"leading_space", file_of(" {}"), "does not start with '{'"},
      {"array", file_of("[]"), "does not start with '{'"},
      {"byte_order_mark", file_of("\xef\xbb\xbf{}"), "does not start with '{'"},
      {"unclosed_object", file_of("{"), "not valid JSON"},
      {"missing_colon", file_of("{\"a\" 1}"), "not valid JSON"},
      {"trailing_comma", file_of("{\"a\":" + tensor("\"F32\"", "[]", "[0,4]") + ",}", 4), "not valid JSON"},
      {"single_quotes", file_of("{'a':1}"), "not valid JSON at its byte 2"},
      {"comment", file_of("{/* */}"), "not valid JSON"},
      {"text_after_the_object", file_of("{}x"), "not valid JSON"},
      {"two_objects", file_of("{}{}"), "not valid JSON"},
      {"zero_byte_padding", file_of("{}" + zero + zero), "zero byte"},
      {"zero_byte_hides_text", file_of("{}" + zero + "{\"a\":1}"), "zero byte"},
      {"unclosed_text", file_of("{\"a"), "not valid JSON"},
      {"control_character_in_name", file_of("{\"a\nb\":1}"), "not valid JSON"},
      {"unknown_escape", file_of("{\"\\q\":1}"), "not valid JSON"},
      {"lone_surrogate_escape", file_of("{\"\\ud800\":1}"), "not valid JSON"},
      {"stray_byte", file_of("{\"\xff\":1}"), "not valid UTF-8"},
      {"overlong_utf8", file_of("{\"\xc0\xaf\":1}"), "not valid UTF-8"},
      {"surrogate_in_utf8", file_of("{\"\xed\xa0\x80\":1}"), "not valid UTF-8"},
      {"cut_utf8", file_of("{}\xe2\x82"), "not valid UTF-8"},
      {"nan", one("[NaN]", "[0,4]", 4), "not valid JSON"},
      {"leading_zero", one("[01]", "[0,4]", 4), "not valid JSON"},
      {"hexadecimal", one("[0x1]", "[0,4]", 4), "not valid JSON"},
      {"float_out_of_range", one("[1e999]", "[0,4]", 4), "not valid JSON"},
  };
}

std::vector<Malformed> malformed_keys() {
  const std::string w = tensor("\"F32\"", "[]", "[0,4]");
  return {
      {"duplicate_tensor", file_of("{\"w\":" + w + ",\"w\":" + w + "}", 4), "duplicate key \"w\""},
      {"duplicate_by_escape", file_of("{\"w\":" + w + ",\"\\u0077\":" + w + "}", 4), "duplicate key \"w\""},
      {"duplicate_dtype",
       file_of(R"({"w":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4),
       "tensor w: duplicate key \"dtype\""},
      {"duplicate_shape", file_of(R"({"w":{"dtype":"F32","shape":[],"shape":[1],"data_offsets":[0,4]}})", 4),
       "tensor w: duplicate key \"shape\""},
      {"duplicate_metadata", file_of(R"({"__metadata__":{},"__metadata__":{}})"),
       "duplicate key \"__metadata__\""},
      {"duplicate_metadata_key", file_of(R"({"__metadata__":{"a":"1","a":"2"}})"),
       "__metadata__: duplicate key \"a\""},
      {"unknown_key", file_of(R"({"w":{"dtype":"F32","shape":[],"data_offsets":[0,4],"stride":[1]}})", 4),
       "tensor w: unknown key \"stride\""},
      {"missing_dtype", file_of(R"({"w":{"shape":[],"data_offsets":[0,4]}})", 4),
       "tensor w: dtype is missing"},
      {"missing_shape", file_of(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4),
       "tensor w: shape is missing"},
      {"missing_offsets", file_of(R"({"w":{"dtype":"F32","shape":[]}})"),
       "tensor w: data_offsets is missing"},
      {"empty_tensor_object", file_of(R"({"w":{}})"), "tensor w: dtype is missing"},
      {"name_that_needs_escaping", file_of("{\"a\\u0000\\n\":1}"), "tensor a\\x00\\x0a: must be an object"},
  };
}

std::vector<Malformed> malformed_depth() {
  const std::size_t deep = 1'000'000;
  return {
      {"deep_arrays", file_of("{\"w\":" + repeated("[", deep)),
       "must be an object of dtype, shape and data_offsets"},
      {"deep_objects", file_of(repeated("{\"w\":", deep)), "tensor w: unknown key \"w\""},
      {"deep_shape", one(repeated("[", deep), "[0,4]", 4), "shape must be an array of non-negative integers"},
      {"deep_offsets", one("[]", repeated("[", deep), 4), "data_offsets must be an array of two"},
      {"deep_metadata", file_of("{\"__metadata__\":{\"a\":" + repeated("{\"a\":", deep)),
       "must be text, found an object"},
  };
}

std::vector<Malformed> malformed_types() {
  const auto field = [](const std::string& dtype) {
    return file_of("{\"w\":" + tensor(dtype, "[]", "[0,4]") + "}", 4);
  };
  return {
      {"tensor_null", file_of(R"({"w":null})"), "found null"},
      {"tensor_number", file_of(R"({"w":1})"), "found a number"},
      {"tensor_text", file_of(R"({"w":"F32"})"), "found text"},
      {"tensor_truth_value", file_of(R"({"w":true})"), "found a truth value"},
      {"metadata_null", file_of(R"({"__metadata__":null})"),
       "__metadata__: must be an object of texts, found null"},
      {"metadata_array", file_of(R"({"__metadata__":[]})"), "must be an object of texts, found an array"},
      {"metadata_number", file_of(R"({"__metadata__":{"a":1}})"), "\"a\" must be text, found a number"},
      {"metadata_value_null", file_of(R"({"__metadata__":{"a":null}})"), "\"a\" must be text, found null"},
      {"dtype_number", field("32"), "dtype must be text, found a number"},
      {"dtype_null", field("null"), "dtype must be text, found null"},
      {"dtype_unknown", field("\"F8_E4M3\""), "unknown dtype \"F8_E4M3\"; known are F64, F32"},
      {"dtype_lower_case", field("\"f32\""), "unknown dtype \"f32\""},
      {"dtype_empty", field("\"\""), "unknown dtype \"\""},
      {"shape_number", one("1", "[0,4]", 4),
       "shape must be an array of non-negative integers, found a number"},
      {"shape_object", one("{}", "[0,4]", 4),
       "shape must be an array of non-negative integers, found an object"},
      {"shape_negative", one("[-1]", "[0,4]", 4), "found a negative number"},
      {"shape_fraction", one("[1.0]", "[0,4]", 4), "found a number that is no 64-bit integer"},
      {"shape_of_text", one("[\"1\"]", "[0,4]", 4), "found text"},
      {"shape_2_63", one("[9223372036854775808]", "[0,4]", 4), "found a number beyond 2^63"},
      {"shape_2_64", one("[18446744073709551616]", "[0,4]", 4), "found a number that is no 64-bit integer"},
      {"offsets_number", one("[]", "4", 4),
       "data_offsets must be an array of two non-negative integers, found a number"},
      {"offsets_negative", one("[]", "[-4,0]", 4), "found a negative number"},
      {"offsets_fraction", one("[]", "[0,4.5]", 4), "found a number that is no 64-bit integer"},
      {"offsets_none", one("[]", "[]", 4), "data_offsets must be two integers, found 0"},
      {"offsets_one", one("[]", "[4]", 4), "data_offsets must be two integers, found 1"},
      {"offsets_three", one("[]", "[0,2,4]", 4), "data_offsets must be two integers, found 3"},
  };
}

std::vector<Malformed> malformed_extents() {
  return {
      {"offsets_reversed", one("[1]", "[4,0]", 4), "tensor w: data_offsets [4, 0] are not in order"},
      {"product_overflows", one("[4294967296,4294967296]", "[0,0]", 0), "overflows 64 bits"},
      {"product_overflows_before_zero", one("[4611686018427387904,4,0]", "[0,0]", 0), "overflows 64 bits"},
      {"element_size_overflows", one("[2305843009213693952]", "[0,0]", 0), "overflows 64 bits"},
      {"extent_too_small", one("[3]", "[0,8]", 8),
       "F32 of this shape takes 12 bytes, its data_offsets [0, 8] hold 8"},
      {"extent_too_large", one("[1]", "[0,8]", 8), "takes 4 bytes, its data_offsets [0, 8] hold 8"},
      {"scalar_without_data", one("[]", "[0,0]", 0), "takes 4 bytes, its data_offsets [0, 0] hold 0"},
      {"empty_with_data", one("[0]", "[0,4]", 4), "takes 0 bytes, its data_offsets [0, 4] hold 4"},
      {"data_one_byte_short", one("[2]", "[0,8]", 7),
       "end beyond the 7 bytes of data; the file is truncated"},
      {"no_data", one("[2]", "[0,8]", 0), "end beyond the 0 bytes"},
      {"extent_at_the_end_of_the_range", one("[1]", "[18446744073709551611,18446744073709551615]", 4),
       "end beyond"},
      {"empty_beyond_the_data", one("[0]", "[8,8]", 0), "end beyond"},
      {"gap_at_the_start", one("[1]", "[4,8]", 8),
       "tensor w: its data_offsets [4, 8] leave a gap after byte 0"},
      {"gap_between", two("[1]", "[0,4]", "[1]", "[8,12]", 12),
       "tensor b: its data_offsets [8, 12] leave a gap after byte 4"},
      {"overlap", two("[2]", "[0,8]", "[2]", "[4,12]", 12), "tensor b: its data_offsets [4, 12] overlap"},
      {"same_extent_twice", two("[1]", "[0,4]", "[1]", "[0,4]", 4), "overlap"},
      {"empty_inside_another", two("[2]", "[0,8]", "[0]", "[4,4]", 8),
       "tensor b: its data_offsets [4, 4] overlap"},
      {"left_over", one("[1]", "[0,4]", 5), "1 bytes after the last tensor's data belong to no tensor"},
      {"data_without_tensors", file_of("{}", 3), "3 bytes after the last tensor's data belong to no tensor"},
  };
}

std::vector<Malformed> malformed_files() {
  std::vector<Malformed> all;
  for (auto part : {malformed_lengths, malformed_json, malformed_keys, malformed_depth, malformed_types,
                    malformed_extents})
    for (Malformed& row : part()) all.push_back(std::move(row));
  return all;
}

class MalformedSafetensors : public ::testing::TestWithParam<Malformed> {};

TEST_P(MalformedSafetensors, IsRefusedWithOneLineThatNamesTheFault) {
  const std::string message =
      message_of([&] { parse_safetensors(bytes_of(GetParam().file), "model.safetensors"); });
  EXPECT_THAT(message, StartsWith("model.safetensors: "));
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  EXPECT_TRUE(is_valid_utf8(message));
  EXPECT_LT(message.size(), 400u);
}

INSTANTIATE_TEST_SUITE_P(Table, MalformedSafetensors, ::testing::ValuesIn(malformed_files()),
                         [](const auto& info) { return info.param.name; });

// --- well-formed files ---------------------------------------------------------------------------------

TEST(Safetensors, AcceptsWhatTheFormatAllows) {
  EXPECT_THAT(parse_safetensors(bytes_of(file_of("{}")), "f").tensors, IsEmpty());
  EXPECT_THAT(parse_safetensors(bytes_of(file_of("{}      ")), "f").tensors, IsEmpty());
  EXPECT_EQ(
      parse_safetensors(bytes_of(file_of(R"({"__metadata__":{"a":"","b":"é"}})")), "f").metadata.at("b"),
      "é");
  EXPECT_EQ(parse_safetensors(bytes_of(one("[]", "[0,4]", 4)), "f").tensors.at("w").size(), 1);
  EXPECT_EQ(
      parse_safetensors(bytes_of(one("[0,9223372036854775807]", "[0,0]", 0)), "f").tensors.at("w").size(), 0);
  // Stored in another order than named; an empty tensor between two others.
  const std::string swapped = two("[2]", "[4,12]", "[1]", "[0,4]", 12);
  EXPECT_EQ(parse_safetensors(bytes_of(swapped), "f").tensors.at("a").data.size(), 8u);
  EXPECT_EQ(parse_safetensors(bytes_of(two("[1]", "[0,4]", "[0]", "[4,4]", 4)), "f").tensors.size(), 2u);
}

TEST(Safetensors, ReadsWhatPythonWrites) {
  const SafetensorsReader file(FLASHEVA_FIXTURES "/python.safetensors");
  EXPECT_EQ(file.tensors().size(), 11u);
  EXPECT_THAT(loaded(file.at("float64")), ElementsAre(0.1, -1e300));
  EXPECT_THAT(loaded(file.at("float32")), ElementsAre(0, 0.25, 0.5, 0.75, 1, 1.25));
  EXPECT_THAT(file.at("float32").shape, ElementsAre(2, 3));
  EXPECT_THAT(loaded(file.at("float16")), ElementsAre(1.5, -65504, 0x1p-24));
  EXPECT_THAT(loaded(file.at("bfloat16")), ElementsAre(1, -3.140625));
  EXPECT_THAT(file.at("scalar").shape, IsEmpty());
  EXPECT_THAT(loaded(file.at("scalar")), ElementsAre(2.5));
  EXPECT_THAT(file.at("nothing").shape, ElementsAre(0, 4));
  EXPECT_THAT(loaded(file.at("name with \" and é")), ElementsAre(1));
  EXPECT_THAT(file.at("uint8").data, ElementsAre(std::byte{0}, std::byte{255}, std::byte{1}));
  EXPECT_EQ(file.at("bool").dtype, StoredType::BOOL);
  std::vector<std::int32_t> ids(2);
  load_tensor(view_of(ids.data(), Shape{2}), file.at("int64"), "w");
  EXPECT_THAT(ids, ElementsAre(-1, 2147483647));
  EXPECT_EQ(file.metadata().at("note"), "café");
}

TEST(Safetensors, ReadsBackWhatItWrites) {
  const TemporaryFolder folder;
  const std::vector<float> a = {1, -2, 3.5f, std::numeric_limits<float>::infinity(), -0.0f, 1e-45f};
  const std::vector<std::uint8_t> b = {1, 2, 3};
  const std::vector<double> c = {0.1};
  write_safetensors(folder / "f.safetensors",
                    {{"bytes", stored_vector(b, StoredType::U8)},
                     {"a \"quoted\" é", {StoredType::F32, {2, 3}, std::as_bytes(std::span(a))}},
                     {"none", {StoredType::F16, {0}, {}}},
                     {"scalar", {StoredType::F64, {}, std::as_bytes(std::span(c))}}},
                    {{"format", "pt"}});
  const SafetensorsReader file(folder / "f.safetensors");
  EXPECT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  const StoredTensor& read = file.at("a \"quoted\" é");
  EXPECT_THAT(read.shape, ElementsAre(2, 3));
  ASSERT_EQ(read.data.size(), a.size() * sizeof(float));
  EXPECT_EQ(std::memcmp(read.data.data(), a.data(), read.data.size()), 0);
  EXPECT_THAT(loaded(file.at("scalar")), ElementsAre(0.1));
  EXPECT_THAT(file.at("bytes").data, ElementsAre(std::byte{1}, std::byte{2}, std::byte{3}));
  for (const auto& [name, tensor] : file.tensors())
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data.data()) % size_in_bytes(tensor.dtype), 0u) << name;
}

TEST(Safetensors, StoresAHostTensorWithoutACopy) {
  std::vector<std::int32_t> tokens = {1, 2, 3, 4, 5, 6};
  const StoredTensor tensor = stored(view_of(tokens.data(), Shape{3, 2}));
  EXPECT_EQ(tensor.dtype, StoredType::I32);
  EXPECT_THAT(tensor.shape, ElementsAre(3, 2));
  EXPECT_EQ(static_cast<const void*>(tensor.data.data()), tokens.data());
  EXPECT_EQ(tensor.data.size(), 24u);
}

// As tensors of a GPU do: one after another they pass through the same host memory.
TEST(Safetensors, FetchesWhatIsNotInHostMemoryOneByOne) {
  const TemporaryFolder folder;
  std::vector<float> a = {1, 2, 3}, b = {4, 5}, staging(3);
  const auto read = [&](const Tensor& tensor) {
    std::memcpy(staging.data(), tensor.data, tensor.bytes());
    return view_of(staging.data(), tensor.shape);
  };
  write_safetensors(folder / "f.safetensors", {{"a", stored_from(view_of(a.data(), {1, 3}), read)},
                                               {"host", stored(view_of(b.data(), {1}))},
                                               {"b", stored_from(view_of(b.data(), {2}), read)}});
  const SafetensorsReader file(folder / "f.safetensors");
  EXPECT_THAT(file.at("a").shape, ElementsAre(1, 3));
  EXPECT_THAT(loaded(file.at("a")), ElementsAre(1, 2, 3));
  EXPECT_THAT(loaded(file.at("host")), ElementsAre(4));
  EXPECT_THAT(loaded(file.at("b")), ElementsAre(4, 5));
}

TEST(Safetensors, NamesAFileThatCannotBeWrittenOrRead) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of([&] { write_safetensors(folder / "no/f", {}); }, ExitCode::disk),
              HasSubstr("no/f: cannot write"));
  EXPECT_THAT(message_of([&] { SafetensorsReader(folder / "f"); }),
              EndsWith("f: cannot read: No such file or directory"));
  EXPECT_THAT(message_of([&] { SafetensorsReader(folder.path()); }),
              HasSubstr("neither model.safetensors nor"));
}

}  // namespace
}  // namespace flasheva
