"""Attention in its exact forms: over a grid, with decomposed relative position, between tokens and an image, within
masks, and to a few points of several grids.

One letter, one meaning: D channels of a head, H W grid, T tokens, S image tokens (row by row), C channels.
Positions and offsets count cells of the grid. Queries come unscaled: each function multiplies them by D^-1/2 itself.
Logits, softmax and sums are float32 whatever the inputs' dtype, except that forms which fold relative positions into
queries round them as queries are; results have the inputs' dtype.
"""

from samjax.ops.attention.blocked import Blocked
from samjax.ops.attention.choice import CHOICES, Choice, choose
from samjax.ops.attention.cudnn import CuDNN
from samjax.ops.attention.deformable import deformable_attention
from samjax.ops.attention.folded import Folded, fold
from samjax.ops.attention.grid import (
    AttentionForm,
    Workload,
    grid_attention,
    merge_heads,
    relative_positions,
    split_heads,
    window_attention,
)
from samjax.ops.attention.plain import Plain
from samjax.ops.attention.shifted import shifted_window_attention
from samjax.ops.attention.tokens import Projection, image_logits, image_to_tokens, masked_attention, tokens_to_image
from samjax.ops.attention.tpu import TPUKernel
from samjax.ops.attention.within_masks import attention_within_masks

__all__ = [
    "CHOICES",
    "AttentionForm",
    "Blocked",
    "Choice",
    "CuDNN",
    "Folded",
    "Plain",
    "Projection",
    "TPUKernel",
    "Workload",
    "attention_within_masks",
    "choose",
    "deformable_attention",
    "fold",
    "grid_attention",
    "image_logits",
    "image_to_tokens",
    "masked_attention",
    "merge_heads",
    "relative_positions",
    "shifted_window_attention",
    "split_heads",
    "tokens_to_image",
    "window_attention",
]
