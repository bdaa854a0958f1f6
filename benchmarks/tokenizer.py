"""Compares the speed of our tokenizer with the `tokenizers` package, one thread each: the same text, in alternation.

    cmake --build --preset release --target bench_tokenizer
    python data/janeausten.py
    python benchmarks/tokenizer.py                  (--text F...: other text; --vocabulary N: another size)

Needs tokenizers 0.23.3. The package trains a tokenizer of GPT-NeoX's structure on the text; then each side encodes
the text in the same pieces of about 100 kB, with its word cache empty at the start of every sample. Prints MB/s of user
CPU time, the median and the extremes of the samples, and of the ratio of each pair.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import tokenizers  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "build" / "release" / "benchmarks" / "bench_tokenizer"
PIECE_BYTES = 100_000


def train(text, vocabulary):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    return tokenizer


def pieces_of(text):
    """Pieces of about PIECE_BYTES characters that end before a space behind no other white space."""
    pieces, at = [], 0
    while at < len(text):
        end = text.find(" ", at + PIECE_BYTES)
        while end > 0 and text[end - 1].isspace():
            end = text.find(" ", end + 1)
        end = len(text) if end < 0 else end
        pieces.append(text[at:end])
        at = end
    return pieces


def theirs(tokenizer_json, pieces):
    """(Seconds of user CPU time, tokens) of a fresh tokenizer, in the quicker of the package's ways to encode."""
    results = []
    for encode in (
        lambda tokenizer: sum(len(tokenizer.encode(piece).ids) for piece in pieces),
        lambda tokenizer: sum(len(e.ids) for e in tokenizer.encode_batch_fast(pieces)),
    ):
        tokenizer = Tokenizer.from_str(tokenizer_json)
        before = os.times().user
        tokens = encode(tokenizer)
        results.append((os.times().user - before, tokens))
    return min(results)


def ours(folder, sizes, text_file):
    """The same of our program."""
    done = subprocess.run([PROGRAM, folder, text_file], input=sizes, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"benchmarks/tokenizer.py: {done.stderr.strip()}")
    figures = json.loads(done.stdout)
    return figures["seconds"], figures["tokens"]


def summary(values):
    return f"{statistics.median(values):8.1f}   ({min(values):.1f} to {max(values):.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = sorted((ROOT / "data" / "text").glob("*.txt"))
    parser.add_argument("--text", type=pathlib.Path, nargs="+", default=default, help="files (data/text/*.txt)")
    parser.add_argument("--vocabulary", type=int, default=30_000)
    parser.add_argument("--pairs", type=int, default=9)
    options = parser.parse_args()
    if not options.text:
        sys.exit("benchmarks/tokenizer.py: no text; run data/janeausten.py or give --text")

    text = "".join(path.read_bytes().decode("utf-8", errors="replace") for path in options.text)
    tokenizer_json = train(text, options.vocabulary).to_str()
    pieces = pieces_of(text)
    sizes = "".join(f"{len(piece.encode())}\n" for piece in pieces)
    megabytes = len(text.encode()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
        text_file = pathlib.Path(folder) / "text"
        text_file.write_bytes(text.encode())
        pairs = [(ours(folder, sizes, text_file), theirs(tokenizer_json, pieces)) for _ in range(options.pairs)]
    if any(own[1] != other[1] for own, other in pairs):
        sys.exit("benchmarks/tokenizer.py: the sides give different numbers of tokens")

    tokens = pairs[0][0][1]
    print(f"{megabytes:.2f} MB in {len(pieces)} pieces, {tokens} tokens, {options.pairs} pairs")
    print(f"ours, MB/s              {summary([megabytes / own[0] for own, _ in pairs])}")
    print(f"tokenizers {tokenizers.__version__}, MB/s {summary([megabytes / other[0] for _, other in pairs])}")
    print(f"ratio                   {summary([other[0] / own[0] for own, other in pairs])}")


if __name__ == "__main__":
    main()
