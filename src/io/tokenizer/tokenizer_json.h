// tokenizer.json, as Hugging Face's `tokenizers` writes it.
#pragma once

#include <memory>
#include <string>

#include "src/io/tokenizer.h"
#include "src/io/tokenizer/tokenizer_files.h"

namespace flasheva {

// The tokenizer that `files.tokenizer` describes. What is read:
//
//     model           BPE of bytes; merges as "a b" or ["a", "b"]; ignore_merges; ids 0 .. n-1
//     normalizer      null, NFC, or a Sequence of NFC
//     pre_tokenizer   ByteLevel with GPT-2's regular expression
//     post_processor  null, ByteLevel, or TemplateProcessing that adds no token
//     decoder         ByteLevel
//     added_tokens    with every flag; the ids must be those that `tokenizers` gives them
//
// Anything else is an Error{data} that names `where` and the part. Without merges, added tokens and
// normalizer, with id = byte value, it is the bytes tokenizer.
std::unique_ptr<Tokenizer> tokenizer_of_files(TokenizerFiles files, const std::string& where);

}  // namespace flasheva
