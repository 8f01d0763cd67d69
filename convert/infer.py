"""Infers the configuration from the shapes of the parameters, under Meta's names."""

import contextlib
import dataclasses
import re
from collections.abc import Mapping

from samjax.config import VARIANTS, DecoderConfig, SamConfig, ViTConfig

Shapes = Mapping[str, tuple[int, ...]]

_VITS = {name: row.image_encoder for name, row in VARIANTS.items() if isinstance(row.image_encoder, ViTConfig)}
MAX_DEPTH = 256  # of anything; a hostile file may number its layers up to any count
MAX_SIDE = 1 << 16  # pixels, channels
MAX_GRID = 2048  # tokens along a side; relative positions need memory in proportion to its square


@dataclasses.dataclass(frozen=True)
class Declared:
    """The part of Hugging Face's config.json that shapes cannot tell; None if it is unknown."""

    decoder_heads: int = 8
    window_size: int | None = None
    global_blocks: tuple[int, ...] | None = None


def candidates(shapes: Shapes, declared: Declared = Declared()) -> list[SamConfig]:
    """Returns the configurations that the shapes may belong to, the likeliest first.

    The first follows from the shapes alone. The last is the nearest variant in width and depth, so that one damaged
    shape is reported as one difference. For a sound variant they are the same, and there is one.

    Args:
        shapes: shapes in PyTorch's layout by Meta's names; any shapes, also of a hostile file.
        declared: what a config.json beside the file declares.
    """
    nearest = _nearest_variant(shapes)
    inferred = nearest
    for part in (_image_encoder, _decoder):
        # If a name that it needs is missing or misshaped, the comparison of all names will say so.
        with contextlib.suppress(KeyError, ValueError, IndexError, ZeroDivisionError):
            inferred = part(inferred, shapes, declared)
    return [inferred] if inferred == nearest else [inferred, nearest]


def _image_encoder(config: SamConfig, shapes: Shapes, declared: Declared) -> SamConfig:
    """Fills in the encoder; raises what `candidates` suppresses if a shape is missing or impossible."""
    _, rows, columns, width = shapes["image_encoder.pos_embed"]
    patch_size = shapes["image_encoder.patch_embed.proj.weight"][-1]
    depth = _count(shapes, r"image_encoder\.blocks\.(\d+)\.")
    attentions = [f"image_encoder.blocks.{block}.attn" for block in range(depth)]
    tables = [(*shapes[f"{attention}.rel_pos_h"], *shapes[f"{attention}.rel_pos_w"]) for attention in attentions]
    window_size, global_blocks = _attention(tables, (rows, columns), width, declared)
    encoder = ViTConfig(
        width=_bounded(width),
        depth=depth,
        heads=width // tables[0][1],
        global_blocks=global_blocks,
        image_size=(
            _bounded(_bounded(rows, MAX_GRID) * patch_size),
            _bounded(_bounded(columns, MAX_GRID) * patch_size),
        ),
        patch_size=patch_size,
        window_size=window_size,
        mlp_ratio=shapes["image_encoder.blocks.0.mlp.lin1.weight"][0] // width,
    )
    return dataclasses.replace(config, image_encoder=encoder)


def _decoder(config: SamConfig, shapes: Shapes, declared: Declared) -> SamConfig:
    """Fills in the decoder and the prompt encoder; raises as `_image_encoder`."""
    width = _bounded(shapes["mask_decoder.iou_token.weight"][1])
    layer = "mask_decoder.transformer.layers.0"
    decoder = DecoderConfig(
        depth=_count(shapes, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        heads=declared.decoder_heads,
        mlp_dim=_bounded(shapes[f"{layer}.mlp.lin1.weight"][0]),
        downsample=width // shapes[f"{layer}.cross_attn_token_to_image.q_proj.weight"][0],
        multimask_outputs=_bounded(shapes["mask_decoder.mask_tokens.weight"][0], MAX_DEPTH) - 1,
        iou_head_dim=_bounded(shapes["mask_decoder.iou_prediction_head.layers.0.weight"][0]),
        iou_head_depth=_count(shapes, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
    )
    mask_channels = _bounded(shapes["prompt_encoder.mask_downscaling.3.weight"][0])
    return dataclasses.replace(config, mask_decoder=decoder, width=width, mask_channels=mask_channels)


def _attention(
    tables: list[tuple[int, ...]], grid: tuple[int, int], width: int, declared: Declared
) -> tuple[int, tuple[int, ...]]:
    """Infers window size and global blocks from the lengths of the relative position tables, 2 * side - 1.

    Sides are in tokens, `grid` is (rows, columns). Raises ValueError if windows have several sizes or are not square.
    """
    sides = [((height + 1) // 2, (width + 1) // 2) for height, _, width, _ in tables]
    windows = set(sides) - {grid}
    if windows:
        ((height, width),) = windows
        if height != width:
            raise ValueError("windows are square")
        return height, tuple(block for block, side in enumerate(sides) if side == grid)
    # Every table is as long as the grid: windows, if any, are the whole grid and change nothing at this image size.
    known = [(declared.window_size, declared.global_blocks)] + [
        (vit.window_size, vit.global_blocks) for vit in _VITS.values() if (vit.width, vit.depth) == (width, len(tables))
    ]
    for window_size, global_blocks in known:
        if window_size is not None and global_blocks is not None and (window_size, window_size) == grid:
            return window_size, global_blocks
    return ViTConfig.window_size, tuple(range(len(tables)))


def _nearest_variant(shapes: Shapes) -> SamConfig:
    position = shapes.get("image_encoder.pos_embed", ())
    patch = shapes.get("image_encoder.patch_embed.proj.weight", ())
    width = next((shape[-1] for shape in (position, patch[:1]) if shape), _VITS["vit_b"].width)
    depth = len(_numbers(shapes, r"image_encoder\.blocks\.(\d+)\."))

    def distance(name: str) -> tuple[int, int]:
        return abs(_VITS[name].width - width), abs(_VITS[name].depth - depth)

    name = min(_VITS, key=distance)
    nearest, vit = VARIANTS[name], _VITS[name]
    patch_size = patch[-1] if len(patch) == 4 and 0 < patch[-1] < MAX_SIDE else vit.patch_size
    grid = position[1:3] if len(position) == 4 else (0, 0)
    if not 0 < min(grid) <= max(grid) <= min(MAX_GRID, MAX_SIDE // patch_size):
        return nearest
    image_size = grid[0] * patch_size, grid[1] * patch_size
    encoder = dataclasses.replace(vit, image_size=image_size, patch_size=patch_size)
    return dataclasses.replace(nearest, image_encoder=encoder)


def _numbers(shapes: Shapes, pattern: str) -> set[int]:
    matches = (re.match(pattern, name) for name in shapes)
    return {int(match.group(1)[:9]) for match in matches if match}


def _count(shapes: Shapes, pattern: str) -> int:
    """Counts the different numbers in names. Raises ValueError if there is none, or more than `MAX_DEPTH`."""
    return _bounded(len(_numbers(shapes, pattern)), MAX_DEPTH)


def _bounded(value: int, limit: int = MAX_SIDE) -> int:
    """Returns `value`. Raises ValueError unless it lies in 1..`limit`."""
    if not 0 < value <= limit:
        raise ValueError(f"{value} is out of bounds")
    return value
