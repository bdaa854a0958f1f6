#include "src/io/split_token_writer.h"

#include <gtest/gtest.h>

#include "tests/io/prepared_files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

using Ids = std::vector<std::int32_t>;
using Offsets = std::vector<std::uint64_t>;

class SplitWriter : public testing::Test {
 protected:
  // Writes the documents, each in the parts given, cut so that `validation` of the tokens are in the second.
  void write(const std::vector<std::vector<Ids>>& documents, std::int64_t tokens, double validation) {
    std::filesystem::remove(folder_ / "a.h5");
    SplitTokenWriter writer(folder_ / "a.h5", {256, "", "", std::nullopt}, tokens, validation);
    for (const auto& parts : documents) {
      for (const Ids& part : parts) writer.append(part);
      writer.end_document();
    }
    EXPECT_EQ(writer.tokens(), tokens);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "a.h5"));
    writer.finish();
    train_ = read_prepared(folder_ / "a.h5");
    validation_ = read_prepared(folder_ / "a-validation.h5");
  }

  TemporaryFolder folder_{memory_folder()};
  Prepared train_, validation_;
};

TEST_F(SplitWriter, ADividedDocumentHasAPartInEach) {
  for (const std::vector<Ids>& parts :
       {std::vector<Ids>{{1, 2}, {3, 4}}, {{1, 2, 3, 4}}, {{1}, {2, 3}, {4}}}) {
    write({parts}, 4, 0.5);
    EXPECT_EQ(train_, (Prepared{{1, 2}, {0, 2}}));
    EXPECT_EQ(validation_, (Prepared{{3, 4}, {0, 2}}));
  }
}

TEST_F(SplitWriter, DocumentsThatEndAtTheCutStayWhole) {
  write({{{1, 2}}, {}, {{3}}, {}, {{4}}}, 4, 0.5);
  EXPECT_EQ(train_, (Prepared{{1, 2}, {0, 2, 2}}));
  EXPECT_EQ(validation_, (Prepared{{3, 4}, {0, 1, 1, 2}}));
}

TEST_F(SplitWriter, NeitherFileMayBeEmpty) {
  for (const double fraction : {0.1, 0.9})
    expect_error(ExitCode::data, "4 tokens leave ", [&] { write({{{1, 2, 3, 4}}}, 4, fraction); });
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

}  // namespace
}  // namespace flasheva
