"""Data sets that Megatron itself wrote, imported."""

import warnings

import h5py
import numpy as np
import pytest
import torch

from flasheva import run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what Megatron misses on a machine without a GPU
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder


@pytest.mark.parametrize("dtype, vocab_size, width", [(np.uint16, 50304, np.uint16), (np.int32, 66000, np.uint32)])
def test_import_gives_the_documents(tmp_path, dtype, vocab_size, width):
    random = np.random.default_rng(1)
    builder = IndexedDatasetBuilder(tmp_path / "m.bin", dtype=dtype)
    documents = []
    for i in range(200):  # of one to three sequences; some are empty
        lengths = random.integers(1, 50, random.integers(1, 4)) if i % 50 != 7 else [0]
        documents.append(random.integers(0, vocab_size, sum(lengths)))
        builder.add_document(torch.from_numpy(documents[-1]), list(lengths))
    builder.finalize(str(tmp_path / "m.idx"))

    run("data", "import-megatron", "--input", tmp_path / "m", "--output", tmp_path / "m.h5", "--vocab-size", vocab_size)
    with h5py.File(tmp_path / "m.h5") as file:
        tokens, offsets = file["tokens"][:], file["document_offsets"][:]
    assert tokens.dtype == width and len(offsets) == len(documents) + 1
    for i, document in enumerate(documents):
        np.testing.assert_array_equal(tokens[offsets[i] : offsets[i + 1]], document)
