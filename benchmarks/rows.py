"""What is compared: the rows of the table, each a training step of a config or one attention alone."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class StepRow:
    """A whole training step: `flasheva bench step CONFIG OVERRIDES` against PyTorch on the same config."""

    name: str
    config: str
    overrides: tuple = ()
    quick: tuple = ()  # overrides of a smoke run
    targets: tuple = (1.0, 1.0)  # ratio to reach in fp32, bf16


@dataclass(frozen=True)
class OwnStepRow(StepRow):
    """FlashEVA against our own full attention: the same config with model.attention.default=full."""


@dataclass(frozen=True)
class AttentionRow:
    """Attention forward and backward alone: `flasheva bench attention` against PyTorch."""

    name: str
    kind: str  # full | eva
    tokens: int
    batch: int = 1
    heads: int = 8
    head_dim: int = 64
    window: int = 256
    chunk: int = 16
    targets: tuple = (1.0, 1.0)


QUICK_MODEL = ("model.architecture.hidden_size=128", "model.architecture.intermediate_size=256")
QUICK_MODEL += ("model.architecture.num_attention_heads=2", "model.architecture.num_hidden_layers=1")
QUICK_EVA = (*QUICK_MODEL, "data.sequence_length=512")
LONG = ("data.sequence_length=8192",)
WIDE = ("model.architecture.hidden_size=768", "model.architecture.intermediate_size=3072")
WIDE += ("model.architecture.num_attention_heads=12",)

ROWS = (
    StepRow("full-attention step, T 512, batch 4, vocab 256", "full.yaml", (), QUICK_MODEL, (1.2, 1.4)),
    StepRow(
        "full-attention step, T 512, batch 4, vocab 50304",
        "full.yaml",
        ("model.architecture.vocab_size=50304",),
        (*QUICK_MODEL, "model.architecture.vocab_size=1000"),
        (1.5, 1.5),
    ),
    StepRow("FlashEVA step, T 2048, batch 1, vocab 256", "eva.yaml", (), QUICK_EVA, (1.35, 1.3)),
    AttentionRow("FlashEVA attention alone, T 2048", "eva", 2048, targets=(2.5, 2.5)),
    AttentionRow("FlashEVA attention alone, T 8192", "eva", 8192, targets=(3.5, 3.5)),
    AttentionRow("full attention alone, T 512, batch 4", "full", 512, batch=4, targets=(1.3, 1.5)),
    AttentionRow("full attention alone, T 2048", "full", 2048, targets=(1.3, 1.5)),
    OwnStepRow(
        "FlashEVA against our full attention, hidden 512, T 8192", "eva.yaml", LONG, QUICK_EVA, (1.8, 1.8)
    ),
    OwnStepRow(
        "FlashEVA against our full attention, hidden 768, T 8192",
        "eva.yaml",
        LONG + WIDE,
        QUICK_EVA,
        (1.6, 1.6),
    ),
)


def quick(row):
    """The row at a size that takes seconds."""
    if isinstance(row, AttentionRow):
        return replace(row, tokens=512, heads=2)
    return replace(row, overrides=row.overrides + row.quick)
