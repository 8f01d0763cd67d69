"""The foreground in a picture of a binary mask.

A binary mask has two values. Where it has more, because it was saved lossy or drawn with smooth edges, it is cut at
half of its maximum, unless its values tell objects apart. Those of smooth edges and of compression lie along edges: a
value of which there is a solid area is an object's.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped, UInt8

from samjax.pictures import say_once
from samjax.tiff import UnreadablePicture

_SMALL = 32  # numbers up to this one are labels, unless there is only one but 0
_FEW = 32  # values; smooth edges of 8 bits have more
_SPECK = 4  # pixels: fewer are no object
_SHARE = 0.02  # of all areas: what others of another grey or colour must have to count
_TOO_MANY = 0.4  # of all pixels: smooth edges are fewer
# Shares of the maximum:
_SLIGHT = 3 / 255  # what a lossy format changes within an area
_LOW, _HIGH = 1 / 8, 7 / 8  # what is between is neither background nor object, even beside an edge
_COARSE = 16 / 255  # what a lossy format changes far from edges
_INSTEAD = (
    "give it as labelmap= where data is read, or write each object into a file of its own; "
    "if it is one object, save it with two values"
)
_KEEP_OPACITY = 'where the opacity is the mask, keep only that: image.getchannel("A").save(...) with Pillow'


class EmptyMask(ValueError):
    """A mask without foreground."""


@dataclasses.dataclass(frozen=True)
class Page:
    """One picture of a file: its numbers as they are stored, of palettes the indices, and its opacity."""

    numbers: Shaped[np.ndarray, "H W"] | Shaped[np.ndarray, "H W 3"]
    alpha: Shaped[np.ndarray, "H W"] | None = None
    palette: UInt8[np.ndarray, "K 3"] | None = None
    is_lossy: bool = False


def binary_mask(page: Page, name: str) -> Bool[np.ndarray, "H W"]:
    """The foreground of a page; `name` is what the log calls it.

    Two values are 0 and whatever is not 0. More are cut at half of the maximum, which the log says once. Palettes count
    by index, or by colour where all are grey or there are many; colours by their strongest channel. Opacity that is 0
    somewhere is the mask, cut at half of its maximum whatever its levels, unless what is visible is drawn in black and
    one other colour.

    Raises `EmptyMask`, a ValueError, for a mask without foreground, and ValueError for values or colours that look like
    several objects. Their messages do not name the page.
    """
    try:
        return _foreground(page, name)
    except UnreadablePicture as error:
        raise ValueError(str(error)) from error


def _foreground(page: Page, name: str) -> np.ndarray:
    values, is_opacity = _what_counts(page, name)
    if not values.any():
        raise EmptyMask("it is empty: all of its pixels are 0")
    if page.is_lossy and values.dtype.kind in "iu" and values.max() <= _SMALL:
        raise UnreadablePicture(
            f"it is saved lossy with values up to {values.max()}, which do not survive that: save 0 and 255, or as PNG"
        )
    marked = _where_one_value(values)
    if marked is not None:
        return marked
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnreadablePicture("it holds NaN or infinity")
    if values.min() < 0:
        raise UnreadablePicture(
            f"it holds negative numbers (down to {values.min():g}); a binary mask has 0 and one other number"
        )
    strength = _strength(values)
    if not is_opacity and (found := _several_objects(values, page.is_lossy)):
        background = " and no 0, which is background" if strength.min() > 0 else ""
        opacity = f"; {_KEEP_OPACITY}" if page.alpha is not None and np.ptp(page.alpha) > 0 else ""
        raise UnreadablePicture(f"it has {found}{background}: these look like several objects; {_INSTEAD}{opacity}")
    top = strength.max()
    marked = strength >= (top / 2 if strength.dtype.kind == "f" else (int(top) + 1) // 2)
    if marked.all() and strength.min() < _HIGH * float(top):
        raise UnreadablePicture(
            f"it has no background: its values are {strength.min():g} to {top:g}; a binary mask has 0 and one other"
        )
    say_once(
        "cut",
        f"{name} has more than two values (saved lossy, or with smooth edges): masks are cut at half of their maximum",
    )
    return marked


def _what_counts(page: Page, name: str) -> tuple[np.ndarray, bool]:
    """(H, W) or (H, W, 3): colours, or opacity where that is the mask; and whether it is."""
    alpha, palette = page.alpha, page.palette
    if alpha is None or not alpha.any() or alpha.min() > _SLIGHT * float(alpha.max()):
        return page.numbers if palette is None else _of_palette(page.numbers, palette), False
    is_visible = alpha > _SLIGHT * float(alpha.max())
    colours = page.numbers
    if palette is not None and colours.max() < len(palette):
        colours = palette[colours]
    visible = np.where(is_visible[..., None] if colours.ndim == 3 else is_visible, colours, np.zeros_like(colours))
    if not visible.any():
        return alpha, True
    has_black = not _strength(colours)[is_visible].all()
    has_one = _where_one_value(visible) is not None
    if has_black and has_one:
        return visible, False
    several = None if has_one else _owned(visible)
    if has_black and several:
        raise UnreadablePicture(
            f"it has {several}, black among what is visible, and an opacity that varies: these look like several "
            f"objects; {_INSTEAD}; {_KEEP_OPACITY}"
        )
    if several:
        say_once("opacity", f"{name} has {several} and is transparent elsewhere: opacity is the mask, of one object")
    return alpha, True


def _of_palette(indices: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3): greys, else indices if there is only one but 0 or they may be labels, else colours."""
    highest = int(indices.max())
    used = palette[: highest + 1]
    if len(used) <= highest:
        return indices
    if (used == used[:, :1]).all() and len(np.unique(used[:, 0])) == len(used):
        return used[indices][..., 0]
    return indices if highest <= _SMALL or _where_one_value(indices) is not None else used[indices]


def _strength(values: np.ndarray) -> np.ndarray:
    """(H, W): grey, or the strongest of three channels."""
    return np.maximum.reduce([*np.moveaxis(values, -1, 0)]) if values.ndim == 3 else values


def _where_one_value(values: np.ndarray) -> np.ndarray | None:
    """True where the values are not 0, if they are all the same there; else None."""
    marked = np.asarray(values.any(-1) if values.ndim == 3 else values != 0)
    if values.dtype == bool:
        return marked
    value = values.reshape(marked.size, -1)[int(np.argmax(marked))]
    same = (values == value).all(-1) if values.ndim == 3 else values == value[0]
    return marked if (same == marked).all() else None


def _several_objects(values: np.ndarray, is_lossy: bool) -> str | None:
    """Describes, for a message, what tells several objects apart in values of more than one kind; None for one
    object."""
    top = values.max()
    if top <= _SMALL and (values == np.rint(values)).all():
        return f"the numbers {_listed(np.unique(values[values != 0]).tolist())}"
    if not is_lossy and (found := _owned(values)):
        return found
    shares = (values / top).astype(np.float32)
    return _areas(shares, _SLIGHT if is_lossy else _SLIGHT / 2)


def _owned(values: np.ndarray) -> str | None:
    """The values or colours that own areas, for a message, where files are lossless and most values do.

    Within a label map nearly all pixels have an equal beside, below and across from them, or nothing but background
    around, whatever the number. Smooth edges and what was lossy before have some values at the ends of a slope of which
    that is true, and more of which it is not.
    """
    codes, distinct = _coded(values)
    uniform, solid, alone = _surroundings(codes)
    counts, settled, inner, lone = (
        np.bincount(codes[where], minlength=len(distinct)) for where in (codes >= 0, uniform | alone, solid, alone)
    )
    owns = (settled >= _SPECK) & (2 * settled > counts)
    owns[0] = False
    top = float(values.max())
    if values.ndim == 2 and (values.dtype.kind == "f" or values.dtype.itemsize == 1):
        # Next to the extremes a lossy format leaves specks of its own.
        slight = (distinct <= _SLIGHT * top) | ((distinct >= (1 - _SLIGHT) * top) & (distinct < top))
        owns &= ~slight | (inner > 0)
    present = int(np.count_nonzero(counts[1:]))
    if 2 * owns.sum() < present or owns.sum() < 2:
        if values.ndim == 3 or present > _FEW:
            return None
        # An area between background and maximum is no edge, however small.
        between = (distinct >= _LOW * top) & (distinct <= _HIGH * top)
        owns |= between & (inner > _SHARE * counts) & (lone > _SPECK)
        if not (owns & between).any():
            return None
    if values.ndim == 3:
        return f"areas of {owns.sum()} colours"
    return f"areas of the numbers {_listed(distinct[owns].tolist())}"


def _coded(values: np.ndarray) -> tuple[Int[np.ndarray, "H W"], Shaped[np.ndarray, " K"]]:
    """Values or colours as small numbers, 0 for 0, and which values they stand for, 0 for any colour."""
    if values.dtype in (np.uint8, np.uint16) and values.ndim == 2:
        return values.astype(np.int32), np.arange(int(values.max()) + 1)
    if values.ndim == 2:
        codes = values
    elif values.dtype in (np.uint8, np.uint16):
        codes = values @ np.array([1 << 32, 1 << 16, 1])
    else:
        parts = [np.unique(values[..., channel], return_inverse=True)[1] for channel in range(3)]
        codes = np.ravel_multi_index(parts, [int(part.max()) + 1 for part in parts]).reshape(values.shape[:2])
    marked = _strength(values) != 0
    found, number = np.unique(codes[marked], return_inverse=True)
    small = np.zeros(codes.shape, np.int64)
    small[marked] = number.ravel() + 1
    return small, np.concatenate([[0], found]) if values.ndim == 2 else np.zeros(len(found) + 1)


def _surroundings(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel of (H, W): is it in a square of 2 x 2 equal ones, are all of its eight neighbours equal, and are
    they equal or 0?"""
    padded = np.pad(codes, 1, mode="edge")
    corner = padded[:-1, :-1]
    square = (corner == padded[1:, :-1]) & (corner == padded[:-1, 1:]) & (corner == padded[1:, 1:])
    at = [np.s_[row : row + codes.shape[0], column : column + codes.shape[1]] for row in (0, 1) for column in (0, 1)]
    inside = np.pad(square[1:-1, 1:-1], 1)  # a row along the border is no square
    alone = np.ones(codes.shape, bool)
    for row in range(3):
        for column in range(3):
            near = padded[row : row + codes.shape[0], column : column + codes.shape[1]]
            alone &= (near == codes) | (near == 0)
    uniform = np.logical_or.reduce([inside[window] for window in at])
    return uniform, np.logical_and.reduce([square[window] for window in at]), alone


def _areas(shares: Float32[np.ndarray, "H W"] | Float32[np.ndarray, "H W 3"], tolerance: float) -> str | None:
    """`_several_objects` for shares of the maximum in which each area has about one value."""
    greys = _strength(shares)
    bright = greys >= 0.5
    flat = _is_flat(greys, tolerance, 3)
    within = bright & flat  # of thin objects most of what is bright is edge
    level = float(np.median(greys[within if np.count_nonzero(within) > _SPECK else bright]))
    coloured = greys >= _LOW * level
    distance = np.abs(greys - level)
    other = coloured & (distance > (1 - _HIGH) * level)
    if other.mean() > _TOO_MANY:
        return "values between its extremes nearly everywhere (is it a photo?)"
    if np.count_nonzero(np.abs(greys - 0.5) < 0.1) > np.count_nonzero(coloured) / 2:
        return "values at half of its maximum mostly"
    if shares.ndim == 3 and (found := _areas_of_colours(shares, tolerance)):
        return found
    far = (greys > _COARSE) & (distance > _COARSE) & _is_flat(greys, tolerance, 9)
    enough = max(_SHARE * np.count_nonzero(coloured), _SPECK)
    is_several = np.count_nonzero(other & flat) > enough or np.count_nonzero(far) > enough
    return "areas of several greys" if is_several else None


def _areas_of_colours(shares: Float32[np.ndarray, "H W 3"], tolerance: float) -> str | None:
    """`_areas` for areas that may be equally bright."""
    is_bright = _strength(shares) >= 0.5
    middle = np.median(shares[is_bright], 0)
    apart = is_bright & (_strength(np.abs(shares - middle)) > 0.25)
    count = np.count_nonzero(is_bright)
    if np.count_nonzero(apart) > count / 3:
        return "many colours (is it a photo?)"
    flat = np.logical_and.reduce([_is_flat(shares[..., channel], tolerance, 3) for channel in range(3)])
    return "areas of several colours" if np.count_nonzero(apart & flat) > max(_SHARE * count, _SPECK) else None


def _is_flat(shares: Float32[np.ndarray, "H W"], tolerance: float, size: int) -> Bool[np.ndarray, "H W"]:
    """True where the square around a pixel differs from it by the tolerance at most."""
    from scipy import ndimage

    highest = ndimage.maximum_filter(shares, size, mode="nearest")
    lowest = ndimage.minimum_filter(shares, size, mode="nearest")
    return (highest - shares <= tolerance) & (shares - lowest <= tolerance)


def _listed(numbers: list[Any], most: int = 5) -> str:
    return ", ".join(f"{number:g}" for number in numbers[:most]) + (", …" if len(numbers) > most else "")
