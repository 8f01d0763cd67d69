"""Attention in its exact forms: over a grid, with decomposed relative position, and between tokens and an image.

One letter, one meaning: D channels of a head, H W grid, T tokens, S image tokens, C channels.
Logits, softmax and sums are float32 whatever the inputs' dtype; results have the inputs' dtype.
"""

from .blocked import Blocked
from .choice import CHOICES, Choice, choose
from .grid import GridAttention, grid_attention, merge_heads, relative_positions, split_heads
from .plain import Plain
from .tokens import Projection, image_logits, image_to_tokens, masked_attention, tokens_to_image

__all__ = [
    "CHOICES",
    "Blocked",
    "Choice",
    "GridAttention",
    "Plain",
    "Projection",
    "choose",
    "grid_attention",
    "image_logits",
    "image_to_tokens",
    "masked_attention",
    "merge_heads",
    "relative_positions",
    "split_heads",
    "tokens_to_image",
]
