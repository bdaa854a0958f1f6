#!/usr/bin/env python3
"""Writes the recall task as token files: OUTPUT/recall.h5 and OUTPUT/recall-validation.h5.

    python data/recall.py --output data/recall --train-sequences N --validation-sequences M --seed S

It asks a model for tokens that any short window has forgotten. A sequence has 256 tokens of a vocabulary of 200:

    places 0..127     one token of each of 8 classes, at random distinct places
    places 176..255   the 8 queries, at random distinct even places, in random order, each followed by its class's token
    all other places  fillers

    token 16 * class + item     one of a class's 16 items, drawn at random: what is to be remembered
    tokens 128..191             fillers, drawn at random
    token 192 + class           the query of a class

/loss_mask is 1 for the answers only, so chance is 1 in 16 once a model knows that an item of the class follows.
Needs h5py and numpy.
"""

import argparse
import pathlib
import sys

import h5py
import numpy as np

LENGTH, VOCABULARY = 256, 200
CLASSES, ITEMS = 8, 16
FIRST_FILLER, FIRST_QUERY = CLASSES * ITEMS, 192
MEMORY_PLACES, FIRST_QUERY_PLACE = 128, 176


def distinct(random, choices, sequences):
    """(sequences, CLASSES): of each row, CLASSES distinct ones of `choices` in random order."""
    return choices[np.argsort(random.random((sequences, len(choices))), axis=1)[:, :CLASSES]]


def make(sequences, random):
    """tokens and loss mask (sequences, LENGTH)."""
    tokens = random.integers(FIRST_FILLER, FIRST_QUERY, (sequences, LENGTH))
    mask = np.zeros((sequences, LENGTH), np.uint8)
    row = np.arange(sequences)[:, None]
    classes = np.arange(CLASSES)
    items = ITEMS * classes + random.integers(0, ITEMS, (sequences, CLASSES))
    tokens[row, distinct(random, np.arange(MEMORY_PLACES), sequences)] = items
    queries = distinct(random, np.arange(FIRST_QUERY_PLACE, LENGTH, 2), sequences)
    tokens[row, queries] = FIRST_QUERY + classes
    tokens[row, queries + 1] = items
    mask[row, queries + 1] = 1
    return tokens, mask


def write(path, tokens, mask, vocabulary, filler, source):
    """A token file of sequences: tokens and loss mask (sequences, L)."""
    sequences, length = tokens.shape
    # A reader takes L inputs and the targets one place on. So a sequence's last target is the next one's first token,
    # which no mask counts, and a filler ends the file.
    temporary = path.with_suffix(".tmp")
    with h5py.File(temporary, "w") as file:
        dataset = file.create_dataset("tokens", data=np.append(tokens, filler).astype(np.uint16), chunks=True)
        dataset.attrs["vocab_size"] = vocabulary
        dataset.attrs["source"] = source
        file.create_dataset("loss_mask", data=np.append(mask, np.uint8(0)), chunks=True)
    temporary.replace(path)
    print(f"{path}: {sequences} sequences of {length} tokens, {mask.sum()} answers")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder of the two files")
    parser.add_argument("--train-sequences", type=int, required=True)
    parser.add_argument("--validation-sequences", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1234)
    arguments = parser.parse_args()
    if min(arguments.train_sequences, arguments.validation_sequences) < 1:
        parser.error("at least one sequence of each kind is needed")

    arguments.output.mkdir(parents=True, exist_ok=True)
    files = (("recall.h5", arguments.train_sequences), ("recall-validation.h5", arguments.validation_sequences))
    for part, (name, sequences) in enumerate(files):
        tokens, mask = make(sequences, np.random.default_rng([arguments.seed, part]))
        source = f"data/recall.py, {sequences} sequences, seed {arguments.seed}"
        write(arguments.output / name, tokens, mask, VOCABULARY, FIRST_FILLER, source)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"data/recall.py: {error}")
