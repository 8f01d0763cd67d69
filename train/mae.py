"""An image encoder that starts from a ViT which was pre-trained as a masked autoencoder (arXiv 2111.06377).

timm (`vit_base_patch16_224.mae`) and Facebook (`mae_pretrain_vit_base.pth`) use the same names. What such a file lacks,
relative positions, neck, prompt encoder and mask decoder, stays as it is initialised. What SAM has no use for, the
class token, the last norm and the autoencoder's own decoder, is dropped.
"""

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.checkpoint import CheckpointError, place, plain_vit
from samjax.config import SamConfig
from samjax.convert.mapping import to_ours, torch_shape
from samjax.convert.matching import expected_entries
from samjax.convert.state_dict import StateDict, open_state_dict
from samjax.mismatch import explain_mismatch
from samjax.model import abstract_params
from samjax.ops.resize import resize_axis
from samjax.types import Params

_ANCHOR = "patch_embed.proj.weight"
_DROPPED = re.compile(r"cls_token|mask_token|(fc_)?norm\.(weight|bias)|head\.(weight|bias)|decoder_.*")
# Of SAM's encoder, not of a ViT.
_OWN = re.compile(r"image_encoder/(neck/.*|blocks/\d+/(attn/rel_pos_[hw]|adaptmlp/.*))")
_POSITIONS, _PATCHES = "image_encoder/pos_embed", "image_encoder/patch_embed/proj/kernel"


@dataclasses.dataclass(frozen=True)
class MaeEncoder:
    """An encoder found in a file."""

    params: dict[str, np.ndarray]  # by our names ("image_encoder/..."), float32, as the configuration shapes them
    dropped: tuple[str, ...]  # names in the file
    initialised: tuple[str, ...]  # our names of what the file does not have
    changed: tuple[str, ...]  # what was resampled, in words

    def __str__(self) -> str:
        modules = {re.sub(r"blocks/\d+", "blocks/*", name.rpartition("/")[0]) for name in self.initialised}
        return "\n".join(
            [
                f"taken from the file: {len(self.params)} parameters of the image encoder",
                *self.changed,
                f"not used: {', '.join(self.dropped) or 'nothing'}",
                f"left as initialised: {', '.join(sorted(modules))}",
            ]
        )


def load_mae(path: str | os.PathLike[str], config: SamConfig, params: Params) -> Params:
    """`params` with the image encoder's from a file; each array takes its place on the same shards.

    Raises `CheckpointError` as `read_mae` does.
    """
    found = read_mae(path, config).params
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    for name, array in found.items():
        old = leaves[name]
        leaves[name] = place(name, array, sharding=old.sharding if isinstance(old, jax.Array) else None)
    return unflatten_dict(leaves, sep="/")


def read_mae(path: str | os.PathLike[str], config: SamConfig) -> MaeEncoder:
    """Reads an MAE-pretrained ViT, in PyTorch's zip format or safetensors, for the image encoder of `config`.

    The table of absolute positions is resampled bicubically to the encoder's grid, without the class token's row;
    patches of another size (ViT-H's 14 pixels) likewise, scaled so that a plain patch gives what it gave before.

    Raises:
        CheckpointError: the file is damaged or no ViT, or its width or depth is another; nothing in it is executed.
    """
    path = Path(path)
    tensors = _without_prefix(open_state_dict(path).tensors, path)
    table = {entry.ours: entry for entry in expected_entries(config).values()}
    ours = {name: leaf for name, leaf in table.items() if name.startswith("image_encoder/") and not _OWN.match(name)}
    theirs = {name: _their_name(entry.meta) for name, entry in ours.items()}

    shapes = _expected_shapes(config)
    expected = {theirs[name]: torch_shape(shapes[name], entry.axes) for name, entry in ours.items()}
    vit = plain_vit(config, who="an MAE-pretrained encoder")
    expected[theirs[_POSITIONS]] = (1, math.prod(config.grid) + 1, vit.width)
    found = {name: leaf.shape for name, leaf in tensors.items() if not _DROPPED.fullmatch(name)}
    # Those two may have another size, which is resampled.
    for name, side in ((theirs[_POSITIONS], _side_of_positions), (theirs[_PATCHES], _side_of_patches)):
        if name in found and side(found[name]) and _channels(found[name]) == _channels(expected[name]):
            expected[name] = found[name]
    if difference := explain_mismatch(expected, found):
        raise CheckpointError(
            f"{path} is no MAE-pretrained ViT of width {vit.width} and {vit.depth} blocks, which model.variant "
            f"wants:\n{difference}"
        )

    params, changed = {}, []
    for name, entry in ours.items():
        array = np.asarray(tensors[theirs[name]].read(), np.float32)
        if name == _POSITIONS:
            side = _side_of_positions(array.shape)
            array = array[:, -side * side :].reshape(1, side, side, -1)
            if (side, side) != config.grid:
                changed.append(f"positions resampled from {side} x {side} to {config.grid[0]} x {config.grid[1]}")
                for axis, target in zip((1, 2), config.grid, strict=True):
                    array = np.asarray(resize_axis(array, axis, target, "cubic"))
        else:
            array = to_ours(tensors[theirs[name]], entry.axes).read().astype(np.float32)
            if name == _PATCHES and array.shape != shapes[name]:
                was, now = len(array), vit.patch_size
                changed.append(f"patches resampled from {was} x {was} to {now} x {now} pixels")
                for axis in (0, 1):
                    array = np.asarray(resize_axis(array, axis, now, "cubic"))
                array = array * np.float32((was / now) ** 2)
        params[name] = array
    return MaeEncoder(
        params=params,
        dropped=tuple(sorted(name for name in tensors if _DROPPED.fullmatch(name))),
        initialised=tuple(sorted(name for name in table if name not in params)),
        changed=tuple(changed),
    )


def _their_name(meta: str) -> str:
    """A ViT's name for what Meta's SAM calls so."""
    return meta.removeprefix("image_encoder.").replace("mlp.lin1", "mlp.fc1").replace("mlp.lin2", "mlp.fc2")


def _without_prefix(tensors: StateDict, path: Path) -> StateDict:
    """Wrappers put "module." or "encoder." before every name."""
    prefix = next((name.removesuffix(_ANCHOR) for name in tensors if name.endswith(_ANCHOR)), None)
    if prefix is None:
        names = ", ".join(repr(name[:60]) for name in list(tensors)[:5])
        raise CheckpointError(f"{path} holds no ViT: there is no {_ANCHOR}; its first names are {names}")
    return {name.removeprefix(prefix): leaf for name, leaf in tensors.items()}


def _expected_shapes(config: SamConfig) -> Mapping[str, tuple[int, ...]]:
    declared: dict[str, Any] = flatten_dict(abstract_params(config), sep="/")
    return {name: leaf.shape for name, leaf in declared.items()}


def _channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of positions (1, N, C) and of patches (C, 3, h, w) that cannot be resampled."""
    return shape[:2] if len(shape) == 4 else shape[-1:]


def _side_of_positions(shape: tuple[int, ...]) -> int:
    """The side of the square grid, with or without a class token's row before it; 0 if there is none."""
    if len(shape) != 3 or shape[0] != 1:
        return 0
    return next((side for rows in (shape[1], shape[1] - 1) if (side := math.isqrt(rows)) ** 2 == rows), 0)


def _side_of_patches(shape: tuple[int, ...]) -> int:
    return shape[-1] if len(shape) == 4 and shape[-1] == shape[-2] else 0
