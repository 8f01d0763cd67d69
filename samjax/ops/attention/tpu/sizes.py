"""Sizes of a TPU's registers, which arrays in kernels are padded to."""

LANES = 128  # of a register
COLUMNS = 16  # rows of a tile of bfloat16, which the tokens of one row of a grid must fill


def padded(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple
