"""The configuration of a plain ViT, from the shapes of its parameters."""

import contextlib
import dataclasses

from samjax.config import VARIANTS, SamConfig, ViTConfig
from samjax.nn.encoders.inference import MAX_GRID, MAX_SIDE, Declared, Shapes, bounded, count, numbers

_ADAPTER = "image_encoder.blocks.0.adaptmlp.down_proj.weight"
_VITS = {name: row.image_encoder for name, row in VARIANTS.items() if isinstance(row.image_encoder, ViTConfig)}


def infer(shapes: Shapes, declared: Declared) -> tuple[SamConfig, ...]:
    """The nearest variant with the encoder that follows from the shapes, and the nearest variant as it is."""
    nearest = _nearest_variant(shapes)
    # If a name that it needs is missing or misshaped, the comparison of all names will say so.
    with contextlib.suppress(KeyError, ValueError, IndexError, ZeroDivisionError):
        return _image_encoder(nearest, shapes, declared), nearest
    return (nearest, nearest)


def _image_encoder(config: SamConfig, shapes: Shapes, declared: Declared) -> SamConfig:
    """Fills in the encoder; raises what `infer` suppresses if a shape is missing or impossible."""
    _, rows, columns, width = shapes["image_encoder.pos_embed"]
    patch_size = shapes["image_encoder.patch_embed.proj.weight"][-1]
    depth = count(shapes, r"image_encoder\.blocks\.(\d+)\.")
    attentions = [f"image_encoder.blocks.{block}.attn" for block in range(depth)]
    tables = [(*shapes[f"{attention}.rel_pos_h"], *shapes[f"{attention}.rel_pos_w"]) for attention in attentions]
    window_size, global_blocks = _attention(tables, (rows, columns), width, declared)
    encoder = ViTConfig(
        width=bounded(width),
        depth=depth,
        heads=width // tables[0][1],
        global_blocks=global_blocks,
        image_size=(
            bounded(bounded(rows, MAX_GRID) * patch_size),
            bounded(bounded(columns, MAX_GRID) * patch_size),
        ),
        patch_size=patch_size,
        window_size=window_size,
        mlp_ratio=shapes["image_encoder.blocks.0.mlp.lin1.weight"][0] // width,
        adapter=bounded(shapes[_ADAPTER][0]) if _ADAPTER in shapes else 0,
        channels=bounded(shapes["image_encoder.patch_embed.proj.weight"][1]),
    )
    return dataclasses.replace(config, image_encoder=encoder)


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
    depth = len(numbers(shapes, r"image_encoder\.blocks\.(\d+)\."))

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
