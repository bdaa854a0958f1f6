#!/usr/bin/env python3
"""Compares our tokenizer with the `tokenizers` package: ids and decoded text, whole and cut into pieces, on random texts
of all scripts and malformed UTF-8, for every variant of the fixture tokenizer.

    cmake --build --preset release --target encode_lines
    python tests/python/tokenizer_parity.py            5,000 texts
    python tests/python/tokenizer_parity.py --long     100,000 texts, and every code point

Needs tokenizers 0.23.3 (pip install tokenizers==0.23.3).
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
import tokenizer_fixtures as fixtures  # noqa: E402

PIECE_BYTES = 24
SHOWN = 5


def ours(document, texts, *arguments):
    """[(ids, decoded bytes)] of encode_lines."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "tokenizer.json").write_text(json.dumps(document))
        command = [ROOT / "build" / "release" / "tests" / "python" / "encode_lines", folder, *arguments]
        lines = "".join(text.hex() + "\n" for text in texts)
        done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"tokenizer_parity: {done.stderr.strip() or f'encode_lines ended with {done.returncode}'}")
    parts = (line.split(":") for line in done.stdout.splitlines())
    return [([int(i) for i in ids.split()], bytes.fromhex(decoded)) for ids, decoded in parts]


def theirs(document, texts):
    tokenizer = fixtures.load(document)
    encodings = tokenizer.encode_batch_fast([text.decode("utf-8", errors="replace") for text in texts])
    return [(e.ids, tokenizer.decode(e.ids, skip_special_tokens=True)) for e in encodings]


def compare(name, document, texts):
    """The number of texts whose ids or decoded text differ."""
    expected = theirs(document, texts)
    differing = 0
    for how, arguments in (("whole", []), ("in pieces", [str(PIECE_BYTES)])):
        results = ours(document, texts, *arguments)
        for text, (ids, decoded), (their_ids, their_text) in zip(texts, results, expected, strict=True):
            if ids == their_ids and decoded.decode("utf-8", errors="replace") == their_text:
                continue
            differing += 1
            if differing <= SHOWN:
                print(f"{name}, {how}: {text!r}\n  ours   {ids}\n  theirs {their_ids}")
    print(f"{name}: {len(texts)} texts, {differing} differ")
    return differing


def code_point_texts():
    """Every character behind a letter, a digit and a symbol, between marks, and beside an added token."""
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            c = chr(code)
            yield f"a{c} 1{c} !{c}{c}a\u0301{c}\u0323 \u1100{c} {c}\u0345\u0334{c}word".encode()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="100,000 texts, and every code point")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"tokenizers {tokenizers.__version__}, seed {options.seed}")

    base = json.loads((fixtures.FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    rng = random.Random(options.seed)
    patches = fixtures.variants(base)
    count = 100_000 if options.long else 5_000
    differing = 0
    for name, patch in patches.items():
        texts = [fixtures.random_text(rng) for _ in range(count // len(patches) + 1)]
        differing += compare(name, fixtures.patched(base, patch), texts)
    if options.long:
        document = fixtures.patched(base, patches["added"])
        differing += compare("every code point", document, list(code_point_texts()))
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
