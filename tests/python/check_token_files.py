#!/usr/bin/env python3
"""h5py reads what `flasheva data prepare` and `data import-megatron` write. Takes the program's path."""

import pathlib
import subprocess
import struct
import sys
import tempfile

import h5py
import numpy as np


def run(*arguments):
    subprocess.run([str(argument) for argument in arguments], check=True, stdout=subprocess.DEVNULL)


def expect(actual, expected):
    assert np.array_equal(actual, expected), (actual, expected)


def check_prepare(flasheva, folder):
    texts = ["first text\n", "", "the third: é"]
    inputs = [folder / f"{i}.txt" for i in range(len(texts))]
    for path, text in zip(inputs, texts):
        path.write_text(text, encoding="utf-8")
    run(flasheva, "data", "prepare", "--input", *inputs, "--output", folder / "p.h5", "--validation", "0.25")
    expected = np.frombuffer("".join(texts).encode(), np.uint8)
    with h5py.File(folder / "p.h5") as train, h5py.File(folder / "p-validation.h5") as validation:
        tokens = train["tokens"]
        assert tokens.dtype == np.uint16 and validation["tokens"].dtype == np.uint16
        expect(np.concatenate([tokens[:], validation["tokens"][:]]), expected)
        expect(train["document_offsets"][:], [0, 11, 11, 18])
        expect(validation["document_offsets"][:], [0, 6])
        assert train["document_offsets"].dtype == np.uint64
        assert tokens.attrs["vocab_size"] == 256
        assert tokens.attrs["tokenizer"] == "bytes"
        assert tokens.attrs["source"] == "0.txt, 1.txt, 2.txt"


def check_import(flasheva, folder):
    documents = [[5, 65999, 7], [8], [9, 0]]
    sizes = np.array([len(document) for document in documents], np.int32)
    ids = np.array(sum(documents, []), np.int32)
    pointers = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) * ids.itemsize
    (folder / "m.bin").write_bytes(ids.tobytes())
    (folder / "m.idx").write_bytes(
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, 4, len(sizes), len(sizes) + 1)
        + sizes.tobytes()
        + pointers.tobytes()
        + np.arange(len(sizes) + 1, dtype=np.int64).tobytes()
    )
    options = ["--vocab-size", "66000", "--eos-token-id", "0"]
    run(flasheva, "data", "import-megatron", "--input", folder / "m", "--output", folder / "m.h5", *options)
    with h5py.File(folder / "m.h5") as file:
        assert file["tokens"].dtype == np.uint32
        expect(file["tokens"][:], [5, 65999, 7, 0, 8, 0, 9, 0])
        expect(file["document_offsets"][:], [0, 4, 6, 8])
        assert file["tokens"].attrs["vocab_size"] == 66000
        assert file["tokens"].attrs["eos_token_id"] == 0


def main():
    flasheva = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        check_prepare(flasheva, pathlib.Path(name))
        check_import(flasheva, pathlib.Path(name))


if __name__ == "__main__":
    main()
