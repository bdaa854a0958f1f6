"""What PyTorch has on a GPU beyond pytorch_side.py: kernels of SDPA to choose from, and flex_attention for FlashEVA."""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import AttentionInterface

import pytorch_side

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def causal_attention(module, q, k, v, attention_mask, scaling=None, dropout=0.0, **_):
    """transformers' SDPA without the mask that it may add while compiling: flash kernels take none."""
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    return out.transpose(1, 2), None


AttentionInterface.register("causal", causal_attention)  # an unknown name gets no mask from transformers

block_masks = {}


def flex_block_attention(q, k, v, summaries, kind: str, eva: dict, places):
    """Block window, chunks outside it: flex_attention over the keys [tokens; chunks]. q, k, v (B, H, T, d)."""
    kappa, beta, _ = summaries
    mask = block_masks[q.shape[2], eva["window"], eva["chunk"]]
    return flex_attention(q, torch.cat([k, kappa], 2), torch.cat([v, beta], 2), block_mask=mask)


pytorch_side.FORMULATIONS["flex"] = flex_block_attention


def make_block_mask(T: int, W: int, P: int, device: str) -> None:
    def visible(b, h, n, m):
        first = n // W * W
        return torch.where(m < T, (m <= n) & (m >= first), m - T < first // P)

    block_masks[T, W, P] = create_block_mask(visible, None, None, T, T + T // P, device=device)
