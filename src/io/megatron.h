// Megatron-LM's indexed data sets, version 1, as GPT-NeoX writes them too: PREFIX.bin holds the ids of one
// sequence after another, PREFIX.idx says where they are. All little-endian:
//
//     "MMIDIDX\0\0"  9 bytes    version   uint64, 1       type        uint8
//     sequences S    uint64     entries D uint64          sizes       int32[S], ids in each sequence
//     pointers       int64[S], byte in .bin at which each begins, without gaps
//     documents      int64[D], first sequence of each document and, last, S
//
// Types: 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64, 8 uint16 (Pythia's Pile); 6 and 7 are floating point and
// hold no ids. A file in which no end of a document was marked has D = 1: each sequence is a document then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/io/split_token_writer.h"
#include "src/io/tokenizer.h"

namespace flasheva {

enum class MegatronType : std::uint8_t { uint8 = 1, int8, int16, int32, int64, uint16 = 8 };

std::size_t bytes_of(MegatronType type);

// What an .idx says. Refers to its bytes, which must outlive it.
class MegatronIndex {
 public:
  // Checks everything against itself and the size of the .bin, once: nothing read from it later can lie
  // outside. Error{data}: "WHERE: what (sequence or document); what to do".
  MegatronIndex(std::span<const std::byte> idx, std::int64_t bin_bytes, const std::string& where);

  MegatronType type() const { return type_; }
  std::int64_t sequences() const { return sequences_; }
  std::int64_t documents() const { return documents_; }
  std::int64_t size(std::int64_t sequence) const;          // ids
  std::int64_t document_end(std::int64_t document) const;  // the sequence behind its last one

 private:
  void read_header(const std::string& where);
  void check_sequences(std::int64_t bin_bytes, const std::string& where) const;
  void check_documents(const std::string& where) const;

  std::span<const std::byte> idx_;
  MegatronType type_{};
  std::int64_t sequences_ = 0, entries_ = 0, documents_ = 0;
};

struct MegatronImport {
  // PREFIX, PREFIX.bin or PREFIX.idx; both name the same data once.
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path output;  // NAME.h5
  std::int64_t vocab_size = 0;
  std::optional<std::int64_t> eos_token_id;
  std::string tokenizer;  // its name; may be empty
  double validation = 0;  // this last fraction of the tokens goes to NAME-validation.h5
  bool packed = false;    // documents are packed sequences: no EOS is added
  bool fresh = false;     // replaces an output that exists
};

struct MegatronSummary {
  PreparedFiles files;
  std::int64_t eos_added = 0;
};

// Names the tokenizer and takes its EOS. Error{usage} where vocab_size or eos_token_id contradict it.
void describe_tokenizer(const Tokenizer& tokenizer, MegatronImport& import);

// The inputs' documents in order, as a token file. With an eos_token_id, a document that does not end with it
// gets it, unless `packed`; ids are otherwise taken as they are. Streamed: a block of ids is in memory; with
// `validation` the inputs are read twice. Error{usage} for impossible options or an output that exists,
// Error{data} for broken inputs and for ids that are not below vocab_size (file, sequence, byte).
MegatronSummary import_megatron(const MegatronImport& import);

}  // namespace flasheva
