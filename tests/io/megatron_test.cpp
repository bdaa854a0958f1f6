#include "src/io/megatron.h"

#include <gtest/gtest.h>

#include <numeric>

#include "src/core/file.h"
#include "tests/io/megatron_files.h"
#include "tests/io/prepared_files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace flasheva {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;
using Offsets = std::vector<std::uint64_t>;

class Megatron : public testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& content) {
    FileWriter file(folder_ / name);
    file.write(content);
    file.close();
    return folder_ / name;
  }

  // Sequences 1 2 3 | 4 0 | 5 | (none) | 6 7 8 0 in documents of sequences 0-1, 2, 3 and 4.
  template <class T>
  fs::path write_small(const std::string& prefix, std::uint8_t type) {
    write(prefix + ".bin", array_of<T>(Ids{1, 2, 3, 4, 0, 5, 6, 7, 8, 0}));
    write(prefix + ".idx", idx_of(type, sizeof(T), {3, 2, 1, 0, 4}, {0, 2, 3, 4, 5}).bytes());
    return folder_ / prefix;
  }

  MegatronImport import_of(std::vector<fs::path> inputs) const {
    MegatronImport import;
    import.inputs = std::move(inputs);
    import.output = folder_ / "out.h5";
    import.vocab_size = 100;
    import.fresh = true;
    return import;
  }

  Prepared imported(const MegatronImport& import) const {
    import_megatron(import);
    return read_prepared(import.output);
  }

  TemporaryFolder folder_{memory_folder()};
};

TEST_F(Megatron, EveryTypeGivesTheSameTokens) {
  const Prepared expected{{1, 2, 3, 4, 0, 5, 6, 7, 8, 0}, {0, 5, 6, 6, 10}};
  EXPECT_EQ(imported(import_of({write_small<std::uint8_t>("u8", 1)})), expected);
  EXPECT_EQ(imported(import_of({write_small<std::int8_t>("i8", 2)})), expected);
  EXPECT_EQ(imported(import_of({write_small<std::int16_t>("i16", 3)})), expected);
  EXPECT_EQ(imported(import_of({write_small<std::int32_t>("i32", 4)})), expected);
  EXPECT_EQ(imported(import_of({write_small<std::int64_t>("i64", 5)})), expected);
  EXPECT_EQ(imported(import_of({write_small<std::uint16_t>("u16", 8)})), expected);
  const TokenFile file(folder_ / "out.h5");
  EXPECT_EQ(file.info().vocab_size, 100);
  EXPECT_EQ(file.info().source, "u16.bin");
  EXPECT_EQ(file.info().tokenizer, "");
  EXPECT_FALSE(file.info().eos_token_id);
}

TEST_F(Megatron, LargeUnsignedIdsKeepTheirValue) {
  write("a.bin", array_of<std::uint16_t>(std::vector<int>{65535, 32768}));
  write("a.idx", idx_of(8, 2, {2}, {0, 1}).bytes());
  MegatronImport import = import_of({folder_ / "a"});
  import.vocab_size = 65536;
  EXPECT_EQ(imported(import).tokens, (Ids{65535, 32768}));
  write("b.bin", array_of<std::int32_t>(std::vector<int>{70000}));
  write("b.idx", idx_of(4, 4, {1}, {0, 1}).bytes());
  import.inputs = {folder_ / "b"};
  import.vocab_size = 70001;
  EXPECT_EQ(imported(import).tokens, (Ids{70000}));
}

TEST_F(Megatron, EosEndsTheDocumentsThatLackIt) {
  MegatronImport import = import_of({write_small<std::uint16_t>("a", 8)});
  import.eos_token_id = 0;
  EXPECT_EQ(import_megatron(import).eos_added, 2);
  EXPECT_EQ(read_prepared(import.output), (Prepared{{1, 2, 3, 4, 0, 5, 0, 0, 6, 7, 8, 0}, {0, 5, 7, 8, 12}}));
  EXPECT_EQ(TokenFile(import.output).info().eos_token_id, 0);
}

TEST_F(Megatron, PackedSequencesGetNoEos) {
  MegatronImport import = import_of({write_small<std::uint16_t>("a", 8)});
  import.eos_token_id = 0;
  import.packed = true;
  EXPECT_EQ(import_megatron(import).eos_added, 0);
  EXPECT_EQ(read_prepared(import.output).tokens, (Ids{1, 2, 3, 4, 0, 5, 6, 7, 8, 0}));
  EXPECT_EQ(TokenFile(import.output).info().eos_token_id, 0);
}

TEST_F(Megatron, WithoutMarkedDocumentsEachSequenceIsOne) {
  write("a.bin", array_of<std::uint16_t>(Ids{1, 2, 3}));
  write("a.idx", idx_of(8, 2, {2, 0, 1}, {0}).bytes());
  EXPECT_EQ(imported(import_of({folder_ / "a"})), (Prepared{{1, 2, 3}, {0, 2, 2, 3}}));
}

TEST_F(Megatron, InputsAreNamedByPrefixOrByEitherFile) {
  write_small<std::uint16_t>("a.part", 8);
  write_small<std::int32_t>("b", 4);
  const Prepared both = imported(import_of({folder_ / "a.part.bin", folder_ / "a.part.idx", folder_ / "b"}));
  EXPECT_EQ(both.tokens.size(), 20u);
  EXPECT_EQ(both.offsets, (Offsets{0, 5, 6, 6, 10, 15, 16, 16, 20}));
  EXPECT_EQ(TokenFile(folder_ / "out.h5").info().source, "a.part.bin, b.bin");
}

// Sequences longer than a block of the reader, and a cut inside one.
TEST_F(Megatron, TheLastFractionIsForValidation) {
  Ids ids(300'000);
  std::iota(ids.begin(), ids.end(), 1);
  write("a.bin", array_of<std::int32_t>(ids));
  write("a.idx", idx_of(4, 4, {200'000, 100'000}, {0, 1, 2}).bytes());
  MegatronImport import = import_of({folder_ / "a"});
  import.vocab_size = 300'001;
  import.eos_token_id = 0;
  import.validation = 0.5;
  import_megatron(import);
  const Prepared train = read_prepared(folder_ / "out.h5"),
                 rest = read_prepared(folder_ / "out-validation.h5");
  Ids expected(ids.begin(), ids.begin() + 200'000);
  expected.push_back(0);
  expected.insert(expected.end(), ids.begin() + 200'000, ids.end());
  expected.push_back(0);
  Ids all = train.tokens;
  all.insert(all.end(), rest.tokens.begin(), rest.tokens.end());
  EXPECT_EQ(all, expected);
  EXPECT_EQ(train.offsets, (Offsets{0, 150'001}));
  EXPECT_EQ(rest.offsets, (Offsets{0, 50'000, 150'001}));
}

class IsBytes : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view) const override { return {}; }
  std::size_t piece(std::string_view text, std::size_t) const override { return text.size(); }
  std::string decode(const std::vector<std::int32_t>&) const override { return {}; }
  std::int64_t vocab_size() const override { return 50; }
  std::optional<std::int32_t> eos_token_id() const override { return 0; }
  std::int64_t bytes_of(std::int32_t) const override { return 1; }
  std::string name() const override { return "of fifty"; }
  void write_files(const fs::path&) const override {}
};

TEST_F(Megatron, ATokenizerGivesItsNameAndEos) {
  MegatronImport import = import_of({write_small<std::uint16_t>("a", 8)});
  describe_tokenizer(IsBytes(), import);
  imported(import);
  const TokenFile file(import.output);
  EXPECT_EQ(file.info().tokenizer, "of fifty");
  EXPECT_EQ(file.info().eos_token_id, 0);
  EXPECT_EQ(file.info().vocab_size, 100);

  import.eos_token_id = 3;
  expect_error(ExitCode::usage, "--eos-token-id 3 is not the tokenizer's, 0;",
               [&] { describe_tokenizer(IsBytes(), import); });
  import.vocab_size = 49;
  expect_error(ExitCode::usage, "--vocab-size 49 is smaller than the tokenizer's 50",
               [&] { describe_tokenizer(IsBytes(), import); });
}

TEST_F(Megatron, BrokenIndexesAreRefused) {
  const IdxFields good = idx_of(8, 2, {3, 2, 1, 0, 4}, {0, 2, 3, 4, 5});
  write("a.bin", std::string(20, '\0'));
  const auto refused_bytes = [&](const std::string& bytes, const std::string& message) {
    const fs::path idx = write("a.idx", bytes);
    expect_error(ExitCode::data, idx.string() + ": " + message,
                 [&] { import_megatron(import_of({folder_ / "a"})); });
    EXPECT_FALSE(fs::exists(folder_ / "out.h5"));
  };
  const auto refused = [&](auto change, const std::string& message) {
    IdxFields idx = good;
    change(idx);
    refused_bytes(idx.bytes(), message);
  };
  refused([](IdxFields& f) { f.magic = std::string("TNTIDX\0\0", 8); }, "is the older TNTIDX format");
  refused([](IdxFields& f) { f.magic[0] = 'm'; }, "not the index of a Megatron data set");
  refused([](IdxFields& f) { f.version = 2; }, "is version 2; only version 1 is read");
  refused([](IdxFields& f) { f.type = 6; }, "holds floating-point numbers (type 6)");
  refused([](IdxFields& f) { f.type = 7; }, "holds floating-point numbers (type 7)");
  for (const int type : {0, 9, 255})
    refused([&](IdxFields& f) { f.type = static_cast<std::uint8_t>(type); },
            "unknown type " + std::to_string(type));
  refused([](IdxFields& f) { f.sequences = 6; }, "134 bytes; 6 sequences");
  refused([](IdxFields& f) { f.entries = 4; }, "134 bytes; 5 sequences and 4");
  for (const std::uint64_t huge : {~std::uint64_t{0}, std::uint64_t{1} << 63, std::uint64_t{1} << 61}) {
    refused([&](IdxFields& f) { f.sequences = huge; }, "134 bytes cannot hold ");
    refused([&](IdxFields& f) { f.entries = huge; }, "134 bytes cannot hold ");
  }
  refused([](IdxFields& f) { f.tail = std::string(5, '\0'); }, "has a mode for every sequence");
  refused([](IdxFields& f) { f.tail = "x"; }, "135 bytes; 5 sequences and 5 document entries take 134");
  refused([](IdxFields& f) { f.sizes[2] = -1; }, "sequence 2 has -1 ids");
  refused([](IdxFields& f) { f.sizes[1] = 1; },
          "sequence 2 begins at byte 10, the one before it ends at byte 8");
  refused([](IdxFields& f) { f.pointers[0] = -2; }, "sequence 0 begins at byte -2");
  refused([](IdxFields& f) { f.sizes[4] = 5; },
          "sequence 4 of 5 ids from byte 12 on lies outside the .bin of 20");
  refused([](IdxFields& f) { f.sizes[4] = 3; }, "its sequences take 18 bytes, the .bin has 20");
  refused([](IdxFields& f) { f.documents[0] = 1; }, "its document entries do not start with 0");
  refused([](IdxFields& f) { f.documents.clear(), f.entries = 0; },
          "its document entries do not start with 0");
  refused([](IdxFields& f) { f.documents[2] = 1; }, "document 1 ends before sequence 1, out of order");
  refused([](IdxFields& f) { f.documents[3] = 6; },
          "document 2 ends before sequence 6, out of order among 5");
  refused([](IdxFields& f) { f.documents[4] = 4; }, "its documents end with sequence 4 of 5");
  const std::string whole = good.bytes();
  for (std::size_t size = 0; size < whole.size(); ++size) refused_bytes(whole.substr(0, size), "");
}

TEST_F(Megatron, IdsOutsideTheVocabularyAreNamedWithTheirByte) {
  const auto refused = [&](const Ids& ids, const std::string& message) {
    const fs::path bin = write("a.bin", array_of<std::int32_t>(ids));
    write("a.idx", idx_of(4, 4, {2, 1}, {0, 2}).bytes());
    expect_error(ExitCode::data, bin.string() + ": " + message,
                 [&] { import_megatron(import_of({folder_ / "a"})); });
    EXPECT_TRUE(!fs::exists(folder_ / "out.h5") && !fs::exists(folder_ / "out.h5.tmp"));
  };
  refused({1, 2, 100}, "id 100 in sequence 1, at byte 8, is not from 0 to below --vocab-size 100");
  refused({1, -1, 2}, "id -1 in sequence 0, at byte 4, is not");
}

TEST_F(Megatron, RefusesImpossibleRequests) {
  MegatronImport import = import_of({write_small<std::uint16_t>("a", 8)});
  const auto refused = [&](ExitCode code, const std::string& message, auto change) {
    MegatronImport changed = import;
    change(changed);
    expect_error(code, message, [&] { import_megatron(changed); });
  };
  using enum ExitCode;
  refused(usage, "no input", [](MegatronImport& i) { i.inputs.clear(); });
  refused(usage, "must end in .h5", [](MegatronImport& i) { i.output = "a.bin"; });
  refused(usage, "--eos-token-id 100 is not", [](MegatronImport& i) { i.eos_token_id = 100; });
  refused(data, "missing.bin: cannot read: No such file",
          [&](MegatronImport& i) { i.inputs[0] = "missing"; });
  write("alone.bin", "");
  refused(data, "alone.idx: cannot read: No such file",
          [&](MegatronImport& i) { i.inputs[0] = folder_ / "alone"; });
  write("alone.idx", idx_of(8, 2, {}, {0}).bytes());
  refused(data, "alone.bin: no tokens in it", [&](MegatronImport& i) { i.inputs[0] = folder_ / "alone"; });
  imported(import);
  refused(usage, "out.h5: exists already", [](MegatronImport& i) { i.fresh = false; });
}

}  // namespace
}  // namespace flasheva
