#include "src/io/token_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
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

// ---- files that h5py wrote

TEST(TokenFileOfH5py, Contiguous) {
  TokenFile file(fixture("tokens-contiguous.h5"));
  EXPECT_EQ(file.info().tokens, 1000);
  EXPECT_EQ(file.info().vocab_size, 256);
  EXPECT_EQ(file.info().stored_type, "uint16");
  EXPECT_EQ(file.info().tokenizer, "");
  EXPECT_FALSE(file.info().eos_token_id);
  EXPECT_FALSE(file.info().has_loss_mask);
  EXPECT_EQ(file.info().documents, 0);
  EXPECT_TRUE(file.document_offsets().empty());

  const Sequence s = read(file, 640, 128);
  EXPECT_EQ(s.inputs, tokens_between(640, 768));
  EXPECT_EQ(s.targets, tokens_between(641, 769));
  EXPECT_EQ(s.mask, std::vector<std::uint8_t>(128, 1));
  EXPECT_EQ(file.verify().largest_token, 250);
  EXPECT_EQ(file.verify().counted_targets, 1000);
}

TEST(TokenFileOfH5py, GzipShuffleFletcherWithDocumentsAndAttributes) {
  TokenFile file(fixture("tokens-gzip.h5"));
  EXPECT_EQ(file.info().stored_type, "uint32");
  EXPECT_EQ(file.info().vocab_size, 70000);
  EXPECT_EQ(file.info().eos_token_id, 0);
  EXPECT_EQ(file.info().tokenizer, "some/tokenizer \xc3\xa9");
  EXPECT_EQ(file.info().source, "fixed-length text");
  EXPECT_EQ(file.info().documents, 3);
  EXPECT_EQ(file.document_offsets(), (std::vector<std::uint64_t>{0, 10, 400, 1000}));
  Ids all(1000);
  file.read_tokens(0, all);
  EXPECT_EQ(all, tokens_between(0, 1000));
  file.verify();
}

TEST(TokenFileOfH5py, BigEndianWithLossMask) {
  TokenFile file(fixture("tokens-masked.h5"));
  EXPECT_TRUE(file.info().has_loss_mask);
  const Sequence s = read(file, 250, 10);
  EXPECT_EQ(s.inputs, tokens_between(250, 260));
  // Of the targets, tokens 251 .. 260, those at multiples of 3 count: 252, 255, 258.
  EXPECT_EQ(s.mask, (std::vector<std::uint8_t>{0, 1, 0, 0, 1, 0, 0, 1, 0, 0}));
  EXPECT_EQ(file.verify().counted_targets, 334);
}

TEST(TokenFile, CountsWholeSequences) {
  const TokenFile file(fixture("tokens-contiguous.h5"));
  EXPECT_EQ(file.sequences(999), 1);
  EXPECT_EQ(file.sequences(1000), 0);  // the last input would have no target
  EXPECT_EQ(file.sequences(100), 9);
  EXPECT_EQ(file.sequences(111), 9);
}

TEST(TokenFile, ReadingBeyondTheEndIsACallersBug) {
  TokenFile file(fixture("tokens-contiguous.h5"));
  read(file, 0, 999);
  EXPECT_THROW(read(file, 0, 1000), std::logic_error);
  EXPECT_THROW(read(file, 1, 999), std::logic_error);
  EXPECT_THROW(read(file, -1, 10), std::logic_error);
}

// ---- the writer

TEST(TokenFileWriter, WritesOverChunkBoundaries) {
  const TemporaryFolder folder;
  const std::int64_t count = 3 * 65536 + 17;
  {
    TokenFileWriter writer(folder / "a.h5", {251, "bytes", "a text", 250});
    for (std::int64_t first = 0; first < count; first += 10007) {
      writer.append(tokens_between(first, std::min(count, first + 10007)));
      if (first == 10007) writer.end_document();
    }
    EXPECT_EQ(writer.tokens(), count);
    EXPECT_FALSE(fs::exists(folder / "a.h5"));
    writer.finish();
    EXPECT_EQ(writer.documents(), 2);  // finish() ended the last
  }
  EXPECT_FALSE(fs::exists(folder / "a.h5.tmp"));
  TokenFile file(folder / "a.h5");
  EXPECT_EQ(file.info().stored_type, "uint16");
  EXPECT_EQ(file.info().vocab_size, 251);
  EXPECT_EQ(file.info().tokenizer, "bytes");
  EXPECT_EQ(file.info().source, "a text");
  EXPECT_EQ(file.info().eos_token_id, 250);
  EXPECT_EQ(file.document_offsets(),
            (std::vector<std::uint64_t>{0, 20014, static_cast<std::uint64_t>(count)}));
  Ids all(static_cast<std::size_t>(count));
  file.read_tokens(0, all);
  EXPECT_EQ(all, tokens_between(0, count));
  EXPECT_EQ(read(file, 65530, 20).inputs, tokens_between(65530, 65550));
}

TEST(TokenFileWriter, TakesUint32WhereTheVocabularyNeedsIt) {
  const TemporaryFolder folder;
  for (const auto& [vocab_size, type] : {std::pair{65536, "uint16"}, std::pair{65537, "uint32"}}) {
    TokenFileWriter writer(folder / "a.h5", {vocab_size, "", "", std::nullopt});
    const Ids largest{vocab_size - 1};
    writer.append(largest);
    writer.finish();
    TokenFile file(folder / "a.h5");
    EXPECT_EQ(file.info().stored_type, type);
    EXPECT_EQ(file.verify().largest_token, vocab_size - 1);
    EXPECT_EQ(file.info().documents, 0);
  }
}

TEST(TokenFileWriter, UnfinishedLeavesNothing) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a.h5", "the old content");
  { TokenFileWriter(folder / "a.h5", {256, "", "", std::nullopt}).append(Ids(100000, 1)); }
  EXPECT_EQ(read_text_file(folder / "a.h5"), "the old content");
  EXPECT_FALSE(fs::exists(folder / "a.h5.tmp"));
}

TEST(TokenFileWriter, RefusesIdsBeyondTheVocabulary) {
  const TemporaryFolder folder;
  TokenFileWriter writer(folder / "a.h5", {256, "", "", std::nullopt});
  writer.append(Ids{1, 2, 3});
  expect_error(ExitCode::data, "a.h5:/tokens: token 256 at place 4 is not below vocab_size 256", [&] {
    writer.append(Ids{255, 256});
  });
  expect_error(ExitCode::data, "token -1 at place 3", [&] { writer.append(Ids{-1}); });
}

TEST(TokenFileWriter, MoreDocumentsThanAreReadAtOnce) {
  const TemporaryFolder folder(memory_folder());
  TokenFileWriter writer(folder / "a.h5", {256, "", "", std::nullopt});
  std::vector<std::uint64_t> expected{0};
  for (std::int64_t i = 0; i < (1 << 20) + 5; ++i) {
    if (i % 3 == 0) writer.append(tokens_between(i, i + 1));
    writer.end_document();
    expected.push_back(static_cast<std::uint64_t>(i / 3 + 1));
  }
  writer.finish();
  TokenFile file(folder / "a.h5");
  EXPECT_EQ(file.info().documents, (1 << 20) + 5);
  EXPECT_TRUE(file.document_offsets() == expected);
  file.verify();
}

TEST(TokenFileWriter, UnwritableFolderIsADiskError) {
  const TemporaryFolder folder;
  expect_error(ExitCode::disk, "a.h5: cannot write: No such file or directory", [&] {
    TokenFileWriter(folder / "missing" / "a.h5", {256, "", "", std::nullopt});
  });
}

// A limit on the file's size stands for a full disk. The process must end with the right code: HDF5 by itself
// crashes at exit over a file that it could not close.
TEST(TokenFileWriterDeathTest, FullDiskIsADiskErrorAndLeavesNothing) {
  const TemporaryFolder folder;
  const fs::path path = folder / "a.h5";
  const auto write = [&] {
    TokenFileWriter writer(path, {256, "bytes", "", std::nullopt});
    writer.append(Ids(200'000, 1));
    writer.end_document();
    writer.finish();
  };
  const auto write_at_most = [&](rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write();
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      std::exit(static_cast<int>(error.code()));
    }
    std::exit(0);
  };
  write();
  const rlim_t whole = fs::file_size(path);
  fs::remove(path);
  for (const rlim_t bytes : {rlim_t{100}, rlim_t{100'000}, whole / 2, whole - 1000, whole - 1}) {
    EXPECT_EXIT(write_at_most(bytes), testing::ExitedWithCode(4), "a.h5: cannot write: File too large")
        << bytes;
    EXPECT_TRUE(fs::is_empty(folder.path())) << bytes;
  }
}

}  // namespace
}  // namespace flasheva
