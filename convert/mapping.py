"""The one key table: Meta's names, Hugging Face's names, and (derived from Meta's) ours, with the layout of each.

A rule pairs a Meta module with a Hugging Face module, if there is one; each `{}` stands for a number, which is carried
over. Our path is Meta's with "/" for ".", which keeps the table short and checkable; its leaf follows from the kind of
the module. Kernels are stored input-first, as Flax has them.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from samjax.checkpoint import CheckpointError, LazyArray
from samjax.nn import encoders
from samjax.nn.encoders import Family

Axes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter of a module: PyTorch's name, ours, and the axes that lead from PyTorch's layout to ours."""

    torch: str
    ours: str
    axes: Axes | None = None


BIAS = Leaf("bias", "bias")
LINEAR = (Leaf("weight", "kernel", (1, 0)), BIAS)  # (out, in) to (in, out)
CONV = (Leaf("weight", "kernel", (2, 3, 1, 0)), BIAS)  # (out, in, h, w) to (h, w, in, out); in is 1 if depthwise
UPCONV = (Leaf("weight", "kernel", (0, 2, 3, 1)), BIAS)  # (in, out, h, w) to (in, h, w, out)
NORM = (Leaf("weight", "scale"), BIAS)
BATCH_NORM = (*NORM, Leaf("running_mean", "mean"), Leaf("running_var", "var"))
EMBEDDING = (Leaf("weight", "embedding"),)
RAW = (Leaf("", ""),)  # a parameter of its own, not of a module
# Of the encoders' rows.
_KINDS = {"raw": RAW, "convolution": CONV, "norm": NORM, "batch_norm": BATCH_NORM, "linear": LINEAR}


@dataclasses.dataclass(frozen=True)
class KeyRule:
    """A module under Meta's name and under Hugging Face's, with its parameters."""

    meta: str
    huggingface: str | None  # None: Hugging Face has no such module
    leaves: tuple[Leaf, ...]
    family: str | None = None  # of image encoders, whose row it is

    def entries(self) -> Iterable["KeyEntry"]:
        """Lists the parameters. Raises ValueError if the two names stand for different counts of numbers."""
        if self.huggingface is not None and self.meta.count("{}") != self.huggingface.count("{}"):
            raise ValueError(f"{self.meta} and {self.huggingface} must have as many numbers, {{}}, as each other")
        for leaf in self.leaves:
            meta, huggingface = (
                None if module is None else f"{module}.{leaf.torch}".rstrip(".")
                for module in (self.meta, self.huggingface)
            )
            ours = f"{self.meta.replace('.', '/')}/{leaf.ours}".rstrip("/")
            yield KeyEntry(str(meta), huggingface, ours, leaf.axes)


@dataclasses.dataclass(frozen=True)
class KeyEntry:
    """One parameter under its three names; `axes` permute PyTorch's layout into ours, None leaves it."""

    meta: str
    huggingface: str | None  # None: it has none there
    ours: str
    axes: Axes | None

    def numbered(self, numbers: Sequence[str]) -> "KeyEntry":
        """Fills in the numbers that `{}` stand for, in their order."""
        meta, huggingface, ours = (
            name if name is None else _filled(name, numbers) for name in (self.meta, self.huggingface, self.ours)
        )
        return KeyEntry(str(meta), huggingface, str(ours), self.axes)

    def name_in(self, convention: str) -> str:
        """Its name in "meta", "huggingface" or "ours". Raises `CheckpointError` if Hugging Face has none."""
        name = getattr(self, convention)
        if name is None:
            raise CheckpointError(
                f"Hugging Face's SamModel has no form of this model, and no name for {self.ours}; Meta's and the "
                "native format have"
            )
        return name


# A number that is a whole component. In a pattern it stands for itself, and {} for any.
_NUMBER = re.compile(r"(?<=[./])(?:\d+|\{\})(?=[./]|$)")


def _filled(pattern: str, numbers: Sequence[str]) -> str:
    remaining = iter(numbers)
    return re.sub(r"\{\}", lambda _: next(remaining), pattern)


def rules_of(leaves: tuple[Leaf, ...], *pairs: tuple[str, str | None]) -> list[KeyRule]:
    """Rules for modules of one kind, each under Meta's name and Hugging Face's."""
    return [KeyRule(meta, huggingface, leaves) for meta, huggingface in pairs]


def _attention(meta: str, huggingface: str) -> list[KeyRule]:
    parts = ("q_proj", "k_proj", "v_proj", "out_proj")
    return rules_of(LINEAR, *((f"{meta}.{part}", f"{huggingface}.{part}") for part in parts))


_LAYER = "mask_decoder.transformer.layers.{}"
_KEY_RULES: tuple[KeyRule, ...] = (
    *rules_of(
        RAW,
        ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    ),
    *rules_of(
        CONV,
        ("prompt_encoder.mask_downscaling.0", "prompt_encoder.mask_embed.conv1"),
        ("prompt_encoder.mask_downscaling.3", "prompt_encoder.mask_embed.conv2"),
        ("prompt_encoder.mask_downscaling.6", "prompt_encoder.mask_embed.conv3"),
    ),
    *rules_of(
        UPCONV,
        ("mask_decoder.output_upscaling.0", "mask_decoder.upscale_conv1"),
        ("mask_decoder.output_upscaling.3", "mask_decoder.upscale_conv2"),
    ),
    *rules_of(
        NORM,
        ("prompt_encoder.mask_downscaling.1", "prompt_encoder.mask_embed.layer_norm1"),
        ("prompt_encoder.mask_downscaling.4", "prompt_encoder.mask_embed.layer_norm2"),
        *((f"{_LAYER}.norm{i}", f"{_LAYER}.layer_norm{i}") for i in (1, 2, 3, 4)),
        ("mask_decoder.transformer.norm_final_attn", "mask_decoder.transformer.layer_norm_final_attn"),
        ("mask_decoder.output_upscaling.1", "mask_decoder.upscale_layer_norm"),
    ),
    *rules_of(
        EMBEDDING,
        ("prompt_encoder.point_embeddings.{}", "prompt_encoder.point_embed.{}"),
        ("prompt_encoder.not_a_point_embed", "prompt_encoder.not_a_point_embed"),
        ("prompt_encoder.no_mask_embed", "prompt_encoder.no_mask_embed"),
        ("mask_decoder.iou_token", "mask_decoder.iou_token"),
        ("mask_decoder.mask_tokens", "mask_decoder.mask_tokens"),
    ),
    *rules_of(
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

# HQ-SAM's names (modeling/mask_decoder_hq.py) of what it has beside SAM's.
_HQ_RULES: tuple[KeyRule, ...] = (
    *rules_of(EMBEDDING, ("mask_decoder.hf_token", None)),
    *rules_of(
        UPCONV,
        *((f"mask_decoder.{name}.{i}", None) for name in ("compress_vit_feat", "embedding_encoder") for i in (0, 3)),
    ),
    *rules_of(CONV, *((f"mask_decoder.embedding_maskfeature.{i}", None) for i in (0, 3))),
    *rules_of(
        NORM,
        *(
            (f"mask_decoder.{name}.1", None)
            for name in ("compress_vit_feat", "embedding_encoder", "embedding_maskfeature")
        ),
    ),
    *rules_of(LINEAR, *((f"mask_decoder.hf_mlp.layers.{i}", None) for i in range(3))),
)

# Hugging Face holds the Fourier matrix a second time, tied to the first.
TIED = "prompt_encoder.shared_embedding.positional_embedding"
FOURIER = "shared_image_embedding.positional_embedding"

# The heads number their layers in Meta's files; Hugging Face calls the first and the last one by other names.
_HYPERNETWORK_DEPTH = 3


def _head(head: str, depth: int) -> list[KeyRule]:
    inner = [(f"{head}.layers.{i}", f"{head}.layers.{i - 1}") for i in range(1, depth - 1)]
    first, last = (f"{head}.layers.0", f"{head}.proj_in"), (f"{head}.layers.{depth - 1}", f"{head}.proj_out")
    return rules_of(LINEAR, first, *inner, last)


def _encoder_rules(family: Family) -> list[KeyRule]:
    return [
        KeyRule(meta, huggingface, _KINDS[kind], family.name)
        for kind, pairs in family.keys.items()
        for meta, huggingface in pairs
    ]


def _key_rules(iou_head_depth: int, family: Family | None) -> list[KeyRule]:
    """Completes the table with the rows of the encoders and the layers of the heads.

    The configuration says how many layers the IoU head has.
    """
    families = encoders.FAMILIES if family is None else (family,)
    return [
        *(rule for each in families for rule in _encoder_rules(each)),
        *_KEY_RULES,
        *_HQ_RULES,
        *_head("mask_decoder.output_hypernetworks_mlps.{}", _HYPERNETWORK_DEPTH),
        *_head("mask_decoder.iou_prediction_head", iou_head_depth),
    ]


def find_entries(
    names: Iterable[str], *, source: str, iou_head_depth: int = 3, family: Family | None = None
) -> dict[str, KeyEntry]:
    """Finds names in the table.

    Args:
        names: parameter names in the convention `source`.
        source: "meta", "huggingface" or "ours": a field of `KeyEntry`.
        iou_head_depth: layers of the IoU head, which Hugging Face's names depend on.
        family: of the image encoder, whose rows are looked at; None: those of all families, if it is not known yet.

    Returns:
        The entry of each name that the table knows; others are left out.

    Raises:
        ValueError: rows of the table contradict each other about a name.
    """
    return entries_by(_key_rules(iou_head_depth, family), names, source)


def entries_by(rules: Sequence[KeyRule], names: Iterable[str], source: str) -> dict[str, KeyEntry]:
    """Finds names in a table of rules; see `find_entries`."""
    known = _expand(rules, source)
    found = {}
    for name in names:
        numbers = _NUMBER.findall(name)
        if "{}" in name:
            continue
        # A number is a wildcard in some patterns ("blocks.{}") and part of a name in others ("neck.0"), which go first.
        for pattern in known.get(_NUMBER.sub("{}", name), ()):
            if pattern.fits(numbers):
                found[name] = pattern.entry.numbered(pattern.wild(numbers))
                break
    return found


@dataclasses.dataclass(frozen=True)
class _Pattern:
    """An entry by one of its names, in which each number is a literal one or `{}`."""

    numbers: tuple[str, ...]
    entry: KeyEntry
    family: str | None

    def fits(self, numbers: Sequence[str]) -> bool:
        return all(mine in ("{}", number) for mine, number in zip(self.numbers, numbers, strict=True))

    def wild(self, numbers: Sequence[str]) -> list[str]:
        return [number for mine, number in zip(self.numbers, numbers, strict=True) if mine == "{}"]

    def meanings(self, other: "_Pattern") -> tuple[KeyEntry, ...]:
        """What a name that fits both is in each, with {} where it may have any number; nothing if none does."""
        pairs = list(zip(self.numbers, other.numbers, strict=True))
        if any(one != two and "{}" not in (one, two) for one, two in pairs):
            return ()
        common = [two if one == "{}" else one for one, two in pairs]
        return tuple(each.entry.numbered(each.wild(common)) for each in (self, other))


def _expand(rules: Sequence[KeyRule], source: str) -> dict[str, list[_Pattern]]:
    """Lists the entries of all rules by their names in the convention `source`, with {} for every number.

    Those with the fewest wildcards come first. Raises ValueError if two rules give one name different meanings, unless
    they are of the same family and only one of them has a number where the other has a wildcard.
    """
    known: dict[str, list[_Pattern]] = {}
    for rule in rules:
        for entry in rule.entries():
            name = getattr(entry, source)
            if name is not None:
                pattern = _Pattern(tuple(_NUMBER.findall(name)), entry, rule.family)
                known.setdefault(_NUMBER.sub("{}", name), []).append(pattern)
    for patterns in known.values():
        for one, two in itertools.combinations(patterns, 2):
            if one.family == two.family and one.numbers != two.numbers:
                continue
            meanings = {(entry.ours, entry.axes): getattr(entry, source) for entry in one.meanings(two)}
            if len(meanings) > 1:
                name, whose = next(iter(meanings.values())), f"{one.family or 'SAM'} and {two.family or 'SAM'}"
                said = " and ".join(f"{ours} {axes or ''}".strip() for ours, axes in meanings)
                raise ValueError(f"the key table gives {name} two meanings, of {whose}: {said}")
        patterns.sort(key=lambda pattern: pattern.numbers.count("{}"))
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

    Raises:
        CheckpointError: Hugging Face has no name for one of them.
    """
    return {table[name].name_in(target): to_torch(tensor, table[name].axes) for name, tensor in tensors.items()}
