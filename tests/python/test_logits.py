"""Logits of `flasheva logits` against Hugging Face transformers, in float32.

Bound 1e-5, design's for float32: each logit is a sum of 64 products behind three layers of such sums, a few
roundings of 6e-8 each; a wrong formula is off by 1e-2 and more."""

import flasheva
import pytest
import torch

BOUND = 1e-5
ROWS = (90, 61, 13)  # tokens: over three windows of 24, over two, within one; none a multiple of a chunk


@pytest.fixture(scope="module", params=flasheva.VARIANTS)
def case(request, model_of):
    """A transformers model, rows of tokens of different lengths, and our logits for each."""
    folder = model_of(request.param)
    rows = [flasheva.tokens_of(flasheva.some_text(T, seed=T))[0] for T in ROWS]
    return flasheva.load(folder), rows, [flasheva.logits(folder, row[None])[0] for row in rows]


def expect_equal(logits, mask, ours):
    for b, expected in enumerate(ours):
        assert flasheva.relative_difference(logits[b][mask[b] == 1], expected) <= BOUND, f"row {b}"


def test_a_row_alone(case):
    model, rows, ours = case
    for row, expected in zip(rows, ours):
        for use_cache in (False, True):
            logits = model(row[None], use_cache=use_cache).logits[0]
            assert flasheva.relative_difference(logits, expected) <= BOUND


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_of_different_lengths(case, side):
    model, rows, ours = case
    tokens, mask = flasheva.padded(rows, ROWS[0] + 7, side)
    for use_cache in (False, True):
        expect_equal(flasheva.forward(model, tokens, mask, use_cache=use_cache).logits, mask, ours)


def test_a_cache_that_takes_the_rows_in_pieces(case):
    model, rows, ours = case
    tokens, mask = flasheva.padded(rows, ROWS[0], "left")
    for ends in ([40, 41, 90], [24, 32, 60, *range(61, 91)], [*range(1, 91)]):
        expect_equal(flasheva.in_pieces(model, tokens, mask, ends), mask, ours)


def test_the_loss_is_the_mean_cross_entropy(case):
    model, rows, ours = case
    loss = model(rows[0][None], labels=rows[0][None]).loss
    expected = torch.nn.functional.cross_entropy(ours[0][:-1], rows[0][1:])
    assert abs(loss - expected) <= BOUND * expected
