"""What `flasheva bench step --write-start` leaves lets transformers begin with the same weights and tokens."""

import json

import flasheva
import pytest
import torch.nn.functional as F
from safetensors.torch import load_file

CONFIG = """
run: {{output: none, seed: 5, device: cpu}}
model:
  architecture: {{vocab_size: 300, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 96,
                 rotary_pct: 0.25}}
  attention: {{default: {kind}, window: 24, chunk: 8, noise: {{enabled: false}}}}
data: {{train: none.h5, sequence_length: 96}}
batch: {{sequences: 3, micro: 2}}
phases: [{{name: only, steps: 1, train: [all], optimizer: {{lr: 1.0e-3}}}}]
"""


@pytest.mark.parametrize("kind", ["full", "eva"])
def test_transformers_computes_the_first_loss(tmp_path, kind):
    (tmp_path / "step.yaml").write_text(CONFIG.format(kind=kind))
    bench = ("bench", "step", tmp_path / "step.yaml", "--steps", 1)
    flasheva.run(*bench, "--write-start", tmp_path / "start")
    flasheva.run(*bench, "--json", tmp_path / "step.json")
    stored = load_file(tmp_path / "start/tokens.safetensors")
    assert stored["tokens"].shape == stored["targets"].shape == (3, 96)
    logits = flasheva.load(tmp_path / "start")(stored["tokens"].long()).logits
    loss = F.cross_entropy(logits.flatten(0, 1), stored["targets"].long().flatten()).item()
    assert loss == pytest.approx(json.loads((tmp_path / "step.json").read_text())["first_loss"], abs=2e-6)


def test_what_is_no_model_folder_is_left_alone(tmp_path):
    (tmp_path / "step.yaml").write_text(CONFIG.format(kind="full"))
    (tmp_path / "start").mkdir()
    (tmp_path / "start/notes").write_text("mine")
    result = flasheva.run("bench", "step", tmp_path / "step.yaml", "--write-start", tmp_path / "start", expect=2)
    assert "is not a model folder" in result.stderr
    assert [path.name for path in (tmp_path / "start").iterdir()] == ["notes"]
