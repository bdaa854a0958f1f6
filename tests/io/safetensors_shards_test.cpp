// Models that stand in several safetensors files, with an index.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "src/io/safetensors.h"
#include "tests/io/stored_values.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

class Shards : public ::testing::Test {
 protected:
  Shards() {
    write_shard("one.safetensors", {"a", "b"});
    write_shard("two.safetensors", {"c"});
  }
  void write_shard(const std::string& name, const std::vector<std::string>& tensors) {
    static const std::vector<float> value = {4};
    NamedTensors stored;
    for (const std::string& tensor : tensors)
      stored.emplace_back(tensor, stored_vector(value, StoredType::F32));
    write_safetensors(folder_ / name, stored, {{"from", name}});
  }
  std::string error_with(const std::string& index) {
    write_text(folder_ / "model.safetensors.index.json", index);
    return message_of([&] { SafetensorsReader(folder_.path()); });
  }
  std::string error_with_map(const std::string& map) { return error_with("{\"weight_map\": {" + map + "}}"); }

  const std::string valid_ = R"("a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors")";
  TemporaryFolder folder_;
};

TEST_F(Shards, AreReadAsOneModel) {
  write_text(folder_ / "model.safetensors.index.json",
             R"({"metadata": {"total_size": 12}, "weight_map": {)" + valid_ + "}}");
  const SafetensorsReader reader(folder_.path());
  EXPECT_EQ(reader.tensors().size(), 3u);
  EXPECT_THAT(loaded(reader.at("c")), ElementsAre(4));
  EXPECT_FALSE(reader.contains("d"));
  EXPECT_THAT(message_of([&] { reader.at("d"); }), EndsWith(": tensor d is missing"));
}

TEST_F(Shards, AreIgnoredWhereTheModelIsWhole) {
  write_text(folder_ / "model.safetensors.index.json", "{}");
  write_shard("model.safetensors", {"whole"});
  EXPECT_TRUE(SafetensorsReader(folder_.path()).contains("whole"));
}

TEST_F(Shards, MustBeComplete) {
  EXPECT_THAT(error_with_map(valid_ + R"(, "d": "three.safetensors")"),
              EndsWith("index.json: the shard three.safetensors is missing"));
  EXPECT_THAT(error_with_map(valid_ + R"(, "d": "two.safetensors")"),
              HasSubstr("two.safetensors: tensor d is missing"));
  EXPECT_THAT(error_with_map(R"("a": "one.safetensors", "c": "two.safetensors")"),
              HasSubstr("one.safetensors: tensor b is not in model.safetensors.index.json"));
}

TEST_F(Shards, HoldEachTensorOnce) {
  EXPECT_THAT(error_with_map(valid_ + R"(, "a": "two.safetensors")"), EndsWith("duplicate key \"a\""));
  write_shard("two.safetensors", {"c", "a"});
  EXPECT_THAT(error_with_map(valid_), HasSubstr("two.safetensors: tensor a is here, but "
                                                "model.safetensors.index.json places it in one.safetensors"));
}

TEST_F(Shards, StayInTheFolder) {
  for (const char* name : {"", ".", "..", "../one.safetensors", "/etc/passwd", "sub/one.safetensors",
                           "sub\\\\one", "one.safetensors\\u0000"})
    EXPECT_THAT(error_with_map("\"a\": \"" + std::string(name) + "\""),
                HasSubstr("is not a plain file name in this folder"))
        << name;
}

TEST_F(Shards, NeedAWellFormedIndex) {
  EXPECT_THAT(error_with("{"), EndsWith("index.json: not valid JSON"));
  EXPECT_THAT(error_with("[]"), HasSubstr("weight_map, an object"));
  EXPECT_THAT(error_with("{}"), HasSubstr("weight_map, an object"));
  EXPECT_THAT(error_with(R"({"weight_map": []})"), HasSubstr("weight_map, an object"));
  EXPECT_THAT(error_with(R"({"weight_map": {"a": 1}})"), HasSubstr("tensor a: the shard must be text"));
  EXPECT_THAT(error_with(R"({"weight_map": {}, "weight_map": {}})"),
              EndsWith("duplicate key \"weight_map\""));
  EXPECT_THAT(error_with(repeated("[", 1'000'000)), HasSubstr("nested deeper"));
  EXPECT_THAT(error_with(repeated("{\"a\":", 1'000'000)), HasSubstr("nested deeper"));
}

}  // namespace
}  // namespace flasheva
