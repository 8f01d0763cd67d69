"""What families infer their configurations from: names and shapes in other programs' checkpoints, hostile ones too."""

import dataclasses
import re
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]  # in PyTorch's layout, by Meta's names

MAX_DEPTH = 256  # of anything; a hostile file may number its layers up to any count
MAX_SIDE = 1 << 16  # pixels, channels
MAX_GRID = 2048  # tokens along a side; relative positions need memory in proportion to its square


@dataclasses.dataclass(frozen=True)
class Declared:
    """The part of Hugging Face's config.json that shapes cannot tell; None if it is unknown."""

    decoder_heads: int = 8
    window_size: int | None = None
    global_blocks: tuple[int, ...] | None = None


def numbers(shapes: Shapes, pattern: str) -> set[int]:
    """The numbers that a pattern's group has in names."""
    matches = (re.match(pattern, name) for name in shapes)
    return {int(match.group(1)[:9]) for match in matches if match}


def count(shapes: Shapes, pattern: str) -> int:
    """Counts the different numbers in names. Raises ValueError if there is none, or more than `MAX_DEPTH`."""
    return bounded(len(numbers(shapes, pattern)), MAX_DEPTH)


def bounded(value: int, limit: int = MAX_SIDE) -> int:
    """Returns `value`. Raises ValueError unless it lies in 1..`limit`."""
    if not 0 < value <= limit:
        raise ValueError(f"{value} is out of bounds")
    return value
