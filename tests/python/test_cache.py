"""The cache of the modeling file: decoding equals the forward of the whole, whatever the pieces and the padding."""

import flasheva
import pytest
import torch
from transformers import DynamicCache

BOUND = 1e-12  # float64: roundings of 1e-16, sums of at most some hundred terms
ROWS = (75, 40, 11)
OWN_VARIANTS = [name for name in flasheva.VARIANTS if name != "full"]


@pytest.fixture(scope="module", params=OWN_VARIANTS)
def model(request, model_of):
    return flasheva.load(model_of(request.param), torch.float64)


@pytest.fixture(scope="module")
def eva(model_of):
    return flasheva.load(model_of("eva-sliding"), torch.float64)


@pytest.mark.parametrize("side", ["left", "right", "anywhere"])
@pytest.mark.parametrize("ends", [[83], [9, 50, 51, 83], [8, 24, *range(25, 84)]], ids=["whole", "pieces", "tokens"])
def test_float64_equals_each_row_alone(model, side, ends):
    rows = [flasheva.tokens_of(flasheva.some_text(T, seed=T))[0] for T in ROWS]
    tokens, mask = flasheva.padded(rows, 83, side)
    whole = model(tokens, attention_mask=mask, use_cache=False).logits
    pieces = flasheva.in_pieces(model, tokens, mask, ends)
    for b, row in enumerate(rows):
        alone = model(row[None], use_cache=False).logits[0]
        for logits in (whole, pieces):
            assert flasheva.relative_difference(logits[b][mask[b] == 1], alone) <= BOUND, f"row {b}"


def test_rows_may_be_chosen_again_and_repeated(model):
    tokens = flasheva.tokens_of(*(flasheva.some_text(60, seed) for seed in (1, 2, 3)))
    tokens, mask = flasheva.padded(list(tokens[:, :59]) + [tokens[0, :20]], 60, "left")
    cache = model(tokens[:, :37], attention_mask=mask[:, :37], use_cache=True).past_key_values
    cache.reorder_cache(torch.tensor([3, 0, 0, 1]))
    cache.batch_repeat_interleave(2)
    chosen = torch.tensor([3, 3, 0, 0, 0, 0, 1, 1])
    logits = model(tokens[chosen, 37:], attention_mask=mask[chosen], past_key_values=cache).logits
    whole = model(tokens, attention_mask=mask, use_cache=False).logits[chosen, 37:]
    real = mask[chosen, 37:] == 1
    assert flasheva.relative_difference(logits[real], whole[real]) <= BOUND


def test_memory_is_a_window_and_the_summaries(model_of):
    """Of what a layer keeps: bytes of the storage itself, so that a view into something larger shows."""
    for variant, columns in {
        "sliding": lambda T: 2 * 23,
        "eva-block": lambda T: 2 * 23 + 7 + 2 * (T // 8),
        "eva-sliding": lambda T: 2 * (24 + 8 - 2) + 7 + 2 * (T // 8),
    }.items():
        model = flasheva.load(model_of(variant))
        tokens = flasheva.tokens_of(flasheva.some_text(300))
        cache = model(tokens[:, :290], use_cache=True).past_key_values
        for t in range(290, 300):
            model(tokens[:, t : t + 1], past_key_values=cache)
            for layer in cache.layers:
                kept = sum(x.untyped_storage().nbytes() for x in layer.states.values())
                assert kept <= 64 * 4 * columns(t + 1), variant  # 4 heads of 16 dimensions, 4 bytes each


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_errs_no_more_with_a_cache_than_twice_what_it_does_without(model_of, dtype):
    for variant in ("sliding", "eva-block", "hybrid"):
        exact, half = flasheva.load(model_of(variant)), flasheva.load(model_of(variant), dtype)
        tokens = flasheva.tokens_of(flasheva.some_text(80, 1), flasheva.some_text(80, 2))
        mask = torch.ones_like(tokens)
        expected = exact(tokens, use_cache=False).logits
        without = flasheva.relative_difference(half(tokens, use_cache=False).logits, expected)
        pieces = flasheva.in_pieces(half, tokens, mask, [30, *range(31, 81)])
        assert pieces.dtype == dtype
        assert 0 < flasheva.relative_difference(pieces, expected) <= 2 * without


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": False},
        {"do_sample": True, "top_k": 20, "num_return_sequences": 3},
        {"do_sample": False, "num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "num_beams": 3},
    ],
    ids=["greedy", "sampling", "beams", "sampled beams"],
)
def test_generate_gives_the_same_with_and_without_it(eva, how):
    rows = [flasheva.tokens_of(flasheva.some_text(T, seed=T))[0] for T in (30, 9)]
    tokens, mask = flasheva.padded(rows, 33, "left")
    results = []
    for use_cache in (False, True):
        torch.manual_seed(1)
        results.append(
            eva.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=40,
                pad_token_id=0,
                use_cache=use_cache,
                return_dict_in_generate=True,
                output_logits=True,
                **how,
            )
        )
    without, with_cache = results
    assert with_cache.past_key_values.get_seq_length() == 33 + 40 - 1
    assert torch.equal(with_cache.sequences, without.sequences)
    logits, expected = torch.stack(with_cache.logits), torch.stack(without.logits)
    assert flasheva.relative_difference(logits, expected) <= BOUND


def test_generate_goes_on_from_a_cache(eva):
    tokens = flasheva.tokens_of(flasheva.some_text(30))
    mask = torch.ones_like(tokens)
    settings = {"do_sample": False, "pad_token_id": 0}
    at_once = eva.generate(tokens, attention_mask=mask, max_new_tokens=40, **settings)
    first = eva.generate(
        tokens, attention_mask=mask, max_new_tokens=17, return_dict_in_generate=True, **settings
    )
    rest = eva.generate(
        first.sequences,
        attention_mask=torch.ones_like(first.sequences),
        past_key_values=first.past_key_values,
        max_new_tokens=23,
        **settings,
    )
    assert torch.equal(rest, at_once)


def test_what_cannot_work_is_refused(eva):
    tokens = flasheva.tokens_of(flasheva.some_text(30))
    cache = eva(tokens, use_cache=True).past_key_values
    with pytest.raises(NotImplementedError, match="cannot go back"):
        cache.crop(-1)
    with pytest.raises(ValueError, match="assisted generation is not supported"):
        eva.generate(tokens, prompt_lookup_num_tokens=3, max_new_tokens=4, pad_token_id=0)
    with pytest.raises(ValueError, match="must be a FlashEvaCache, not DynamicCache"):
        eva(tokens, past_key_values=DynamicCache())
    with pytest.raises(ValueError, match="hold 1 sequences, input_ids has 2"):
        eva(tokens.repeat(2, 1), past_key_values=cache)
    with pytest.raises(ValueError, match=r"attention_mask must be .* = \(1, 31\), not \(1, 1\)"):
        eva(tokens[:, :1], attention_mask=torch.ones(1, 1), past_key_values=cache)
    with pytest.raises(ValueError, match="position_ids are not taken"):
        eva(tokens, position_ids=torch.arange(30)[None])
    with pytest.raises(ValueError, match="output_attentions is not supported"):
        eva(tokens, output_attentions=True)
