"""Weights that go from transformers through ours and back, and the other way round, keep every bit."""

import flasheva
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM


def expect_same_bits(x: dict, y: dict):
    assert x.keys() == y.keys()
    for name in x:
        assert x[name].dtype == y[name].dtype, name
        bits = torch.int32 if x[name].dtype == torch.float32 else torch.int16
        assert torch.equal(x[name].view(bits), y[name].view(bits)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_transformers_ours_transformers(tmp_path, dtype):
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    model = GPTNeoXForCausalLM(config).to(dtype)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "theirs")
    flasheva.run("convert", tmp_path / "theirs", tmp_path / "ours")
    expect_same_bits(flasheva.load(tmp_path / "ours", "auto").state_dict(), model.state_dict())
    # Through FlashEVA and back to full attention.
    eva = ("--attention", "eva", "--window", 8, "--chunk", 4)
    flasheva.run("convert", tmp_path / "theirs", tmp_path / "eva", *eva)
    converted = flasheva.load(tmp_path / "eva", "auto")
    assert {p.dtype for p in converted.parameters()} == {dtype}
    converted.save_pretrained(tmp_path / "eva-theirs")
    flasheva.run("convert", tmp_path / "eva-theirs", tmp_path / "back", "--attention", "full")
    expect_same_bits(flasheva.load(tmp_path / "back", "auto").state_dict(), model.state_dict())


@pytest.mark.parametrize("variant", ["full", "eva-learned", "hybrid", "geometries"])
def test_checkpoint_transformers_ours(workspace, model_of, tmp_path, variant):
    model_of(variant)
    checkpoint = workspace / variant / "checkpoints/step-000000008"
    flasheva.run("convert", checkpoint, tmp_path / "ours")
    flasheva.load(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    flasheva.run("convert", tmp_path / "theirs", tmp_path / "again")
    files = [load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "again")]
    expect_same_bits(*files)
    tokens = flasheva.tokens_of(flasheva.some_text(80))
    assert torch.equal(flasheva.logits(checkpoint, tokens), flasheva.logits(tmp_path / "again", tokens))
