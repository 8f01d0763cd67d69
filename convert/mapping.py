"""The one key table: Meta's names, Hugging Face's names, and (derived from Meta's) ours, with the layout of each.

A rule pairs a Meta module with a Hugging Face module; `{}` stands for a number and is carried over. Our path is Meta's
with "/" for ".", which keeps the table short and checkable; its leaf follows from the kind of the module. Kernels are
stored input-first, as Flax has them.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from samjax.checkpoint import LazyArray
from samjax.nn.encoders import FAMILIES

Axes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter of a module: PyTorch's name, ours, and the axes that lead from PyTorch's layout to ours."""

    torch: str
    ours: str
    axes: Axes | None = None


BIAS = Leaf("bias", "bias")
LINEAR = (Leaf("weight", "kernel", (1, 0)), BIAS)  # (out, in) to (in, out)
CONV = (Leaf("weight", "kernel", (2, 3, 1, 0)), BIAS)  # (out, in, h, w) to (h, w, in, out)
UPCONV = (Leaf("weight", "kernel", (0, 2, 3, 1)), BIAS)  # (in, out, h, w) to (in, h, w, out)
NORM = (Leaf("weight", "scale"), BIAS)
EMBEDDING = (Leaf("weight", "embedding"),)
RAW = (Leaf("", ""),)  # a parameter of its own, not of a module
_KINDS = {"raw": RAW, "convolution": CONV, "norm": NORM, "linear": LINEAR}  # of the encoders' rows


@dataclasses.dataclass(frozen=True)
class KeyRule:
    """A module under Meta's name and under Hugging Face's, with its parameters."""

    meta: str
    huggingface: str
    leaves: tuple[Leaf, ...]


@dataclasses.dataclass(frozen=True)
class KeyEntry:
    """One parameter under its three names; `axes` permute PyTorch's layout into ours, None leaves it."""

    meta: str
    huggingface: str
    ours: str
    axes: Axes | None

    def numbered(self, number: str) -> "KeyEntry":
        """Fills in the number that `{}` stands for."""
        meta, huggingface, ours = (name.replace("{}", number) for name in (self.meta, self.huggingface, self.ours))
        return KeyEntry(meta, huggingface, ours, self.axes)


_NUMBER = re.compile(r"(?<=[./])\d+(?=[./])")  # a whole component


def _rules(leaves: tuple[Leaf, ...], *pairs: tuple[str, str]) -> list[KeyRule]:
    return [KeyRule(meta, huggingface, leaves) for meta, huggingface in pairs]


def _attention(meta: str, huggingface: str) -> list[KeyRule]:
    parts = ("q_proj", "k_proj", "v_proj", "out_proj")
    return _rules(LINEAR, *((f"{meta}.{part}", f"{huggingface}.{part}") for part in parts))


_LAYER = "mask_decoder.transformer.layers.{}"
_KEY_RULES: tuple[KeyRule, ...] = (
    *(rule for family in FAMILIES for kind, pairs in family.keys.items() for rule in _rules(_KINDS[kind], *pairs)),
    *_rules(
        RAW,
        ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    ),
    *_rules(
        CONV,
        ("prompt_encoder.mask_downscaling.0", "prompt_encoder.mask_embed.conv1"),
        ("prompt_encoder.mask_downscaling.3", "prompt_encoder.mask_embed.conv2"),
        ("prompt_encoder.mask_downscaling.6", "prompt_encoder.mask_embed.conv3"),
    ),
    *_rules(
        UPCONV,
        ("mask_decoder.output_upscaling.0", "mask_decoder.upscale_conv1"),
        ("mask_decoder.output_upscaling.3", "mask_decoder.upscale_conv2"),
    ),
    *_rules(
        NORM,
        ("prompt_encoder.mask_downscaling.1", "prompt_encoder.mask_embed.layer_norm1"),
        ("prompt_encoder.mask_downscaling.4", "prompt_encoder.mask_embed.layer_norm2"),
        *((f"{_LAYER}.norm{i}", f"{_LAYER}.layer_norm{i}") for i in (1, 2, 3, 4)),
        ("mask_decoder.transformer.norm_final_attn", "mask_decoder.transformer.layer_norm_final_attn"),
        ("mask_decoder.output_upscaling.1", "mask_decoder.upscale_layer_norm"),
    ),
    *_rules(
        EMBEDDING,
        ("prompt_encoder.point_embeddings.{}", "prompt_encoder.point_embed.{}"),
        ("prompt_encoder.not_a_point_embed", "prompt_encoder.not_a_point_embed"),
        ("prompt_encoder.no_mask_embed", "prompt_encoder.no_mask_embed"),
        ("mask_decoder.iou_token", "mask_decoder.iou_token"),
        ("mask_decoder.mask_tokens", "mask_decoder.mask_tokens"),
    ),
    *_rules(
        LINEAR,
        (f"{_LAYER}.mlp.lin1", f"{_LAYER}.mlp.lin1"),
        (f"{_LAYER}.mlp.lin2", f"{_LAYER}.mlp.lin2"),
    ),
    *_attention(f"{_LAYER}.self_attn", f"{_LAYER}.self_attn"),
    *_attention(f"{_LAYER}.cross_attn_token_to_image", f"{_LAYER}.cross_attn_token_to_image"),
    *_attention(f"{_LAYER}.cross_attn_image_to_token", f"{_LAYER}.cross_attn_image_to_token"),
    *_attention(
        "mask_decoder.transformer.final_attn_token_to_image", "mask_decoder.transformer.final_attn_token_to_image"
    ),
)

# Hugging Face holds the Fourier matrix a second time, tied to the first.
TIED = "prompt_encoder.shared_embedding.positional_embedding"
FOURIER = "shared_image_embedding.positional_embedding"

# The heads number their layers in Meta's files; Hugging Face calls the first and the last one by other names.
_HYPERNETWORK_DEPTH = 3


def _head(head: str, depth: int) -> list[KeyRule]:
    inner = [(f"{head}.layers.{i}", f"{head}.layers.{i - 1}") for i in range(1, depth - 1)]
    first, last = (f"{head}.layers.0", f"{head}.proj_in"), (f"{head}.layers.{depth - 1}", f"{head}.proj_out")
    return _rules(LINEAR, first, *inner, last)


def _key_rules(iou_head_depth: int) -> list[KeyRule]:
    """Completes the table with the layers of the heads; the configuration says how many the IoU head has."""
    return [
        *_KEY_RULES,
        *_head("mask_decoder.output_hypernetworks_mlps.{}", _HYPERNETWORK_DEPTH),
        *_head("mask_decoder.iou_prediction_head", iou_head_depth),
    ]


def find_entries(names: Iterable[str], *, source: str, iou_head_depth: int = 3) -> dict[str, KeyEntry]:
    """Finds names in the table.

    Args:
        names: parameter names in the convention `source`.
        source: "meta", "huggingface" or "ours": a field of `KeyEntry`.
        iou_head_depth: layers of the IoU head, which Hugging Face's names depend on.

    Returns:
        The entry of each name that the table knows; others are left out.
    """
    known = _expand(_key_rules(iou_head_depth), source)
    found = {}
    for name in names:
        # A number is a wildcard in some rules ("blocks.{}") and part of a name in others ("neck.0").
        number = _NUMBER.search(name)
        pattern = _NUMBER.sub("{}", name, count=1)
        if name in known and "{}" not in name:
            found[name] = known[name]
        elif number and pattern in known:
            found[name] = known[pattern].numbered(number.group())
    return found


def _expand(rules: list[KeyRule], source: str) -> dict[str, KeyEntry]:
    """Lists the entries of all rules by their names in the convention `source`."""
    known = {}
    for rule in rules:
        for leaf in rule.leaves:
            meta, huggingface = (f"{module}.{leaf.torch}".rstrip(".") for module in (rule.meta, rule.huggingface))
            ours = f"{rule.meta.replace('.', '/')}/{leaf.ours}".rstrip("/")
            entry = KeyEntry(meta, huggingface, ours, leaf.axes)
            known[getattr(entry, source)] = entry
    return known


def to_ours(tensor: LazyArray, axes: Axes | None) -> LazyArray:
    """Permutes a tensor from PyTorch's layout to ours when it is read."""
    return tensor if axes is None else _permute(tensor, axes)


def to_torch(tensor: LazyArray, axes: Axes | None) -> LazyArray:
    """Permutes a tensor from our layout to PyTorch's when it is read."""
    return tensor if axes is None else _permute(tensor, _inverse(axes))


def torch_shape(shape: tuple[int, ...], axes: Axes | None) -> tuple[int, ...]:
    """Permutes the shape of one of our parameters to PyTorch's layout."""
    return shape if axes is None else tuple(shape[axis] for axis in _inverse(axes))


def _inverse(axes: Axes) -> Axes:
    return tuple(axes.index(axis) for axis in range(len(axes)))


def _permute(tensor: LazyArray, axes: Axes) -> LazyArray:
    shape = tuple(tensor.shape[axis] for axis in axes)
    return LazyArray(shape, tensor.dtype, lambda: np.ascontiguousarray(tensor.read().transpose(axes)))


def rename(tensors: Mapping[str, LazyArray], table: Mapping[str, KeyEntry], *, target: str) -> dict[str, LazyArray]:
    """Gives our parameters the names and the layout of another program.

    Args:
        tensors: parameters by our names ("a/b/c").
        table: the entry of each, by our names; see `matching.expected_entries`.
        target: "meta" or "huggingface".
    """
    return {getattr(table[name], target): to_torch(tensor, table[name].axes) for name, tensor in tensors.items()}
