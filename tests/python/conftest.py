"""Models of 160 thousand parameters, made by the program itself: one pretrained from scratch, and from it one of
every variant of attention."""

import os
import tempfile

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HOME": tempfile.mkdtemp(prefix="flasheva-python-tests-"),
    "TOKENIZERS_PARALLELISM": "false",
}

import shutil  # noqa: E402

import flasheva  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def settings():
    torch.set_num_threads(1)  # the models are tiny
    torch.set_grad_enabled(False)
    yield
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flasheva")
    (folder / "train.txt").write_bytes(flasheva.some_text(40_000))
    flasheva.run("data", "prepare", "--input", folder / "train.txt", "--output", folder / "train.h5")
    return folder


@pytest.fixture(scope="session")
def pretrained(workspace):
    architecture = "vocab_size: 256, hidden_size: 64, num_hidden_layers: 3, num_attention_heads: 4"
    architecture += ", intermediate_size: 128, max_position_embeddings: 1024"
    return flasheva.train(workspace, "pretrained", f"architecture: {{{architecture}}}", 60, 1e-2)


@pytest.fixture(scope="session")
def model_of(workspace, pretrained):
    """The folder of a variant, trained for some steps so that nothing stands where it started."""
    made = {}

    def make(variant: str):
        if variant not in made:
            attention = f"from: {pretrained}, attention: {{{flasheva.VARIANTS[variant]}}}"
            made[variant] = flasheva.train(workspace, variant, attention, 8, 3e-3)
        return made[variant]

    return make
