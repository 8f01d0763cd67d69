"""What is foreground in a picture of a binary mask.

A binary mask has two values. Where it has more, because it was saved lossy or drawn with smooth edges, it is cut at
half of its maximum, unless that would drop objects that the file tells apart, or unite them.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from samjax.pictures import say_once
from samjax.tiff import UnreadablePicture

_SMALL = 32  # numbers up to this one are labels, unless there is only one but 0
_FEW = 32  # more different values than labels of 8 bits usually are, fewer than smooth edges have
_SLIGHT = 3 / 255  # of the maximum: rounding, or what a lossy format changes within an area
_LOW, _HIGH = 1 / 8, 7 / 8  # of the maximum: what is between is neither background nor object
_WHITE = 0.95  # of the maximum: the same white
_SAMPLE = 200_000  # pixels
_TOO_MANY = 0.4  # of all pixels: smooth edges are fewer
_SHARE = 0.02  # of all areas: what others of another grey or colour must have to count
_INSTEAD = (
    "give it as labelmap= where data is read, or write each object into a file of its own; "
    "if it is one object, save it with two values"
)


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
    """The foreground of a page that is called `name` in messages.

    Two values are 0 and whatever is not 0. More are cut at half of the maximum, which the log says once. Palettes count
    by index, or by colour where all are grey or there are many; colours by their strongest channel. Opacity is the mask
    where it varies, unless what is visible is drawn in black and one other colour.

    Raises `EmptyMask`, a ValueError, for a mask without foreground, and ValueError for values or colours that look like
    several objects.
    """
    try:
        values = _what_counts(page)
        if not values.any():
            raise EmptyMask(f"{name} is empty: all of its pixels are 0")
        return _foreground(values, page.is_lossy, name)
    except UnreadablePicture as error:
        raise ValueError(f"{name}: {error}") from error


def _foreground(values: np.ndarray, is_lossy: bool, name: str) -> np.ndarray:
    if is_lossy and values.dtype.kind in "iu" and values.max() <= _SMALL:
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
    if found := _several_objects(values, is_lossy):
        background = " and no 0, which is background" if strength.min() > 0 else ""
        raise UnreadablePicture(f"it has {found}{background}: these look like several objects; {_INSTEAD}")
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


def _what_counts(page: Page) -> np.ndarray:
    """(H, W) or (H, W, 3): colours, or opacity where that is the mask."""
    values = page.numbers if page.palette is None else _of_palette(page.numbers, page.palette)
    alpha = page.alpha
    if alpha is None or not alpha.any() or 2 * float(alpha.min()) >= float(alpha.max()):
        return values
    is_visible = alpha > 0
    visible = np.where(is_visible[..., None] if values.ndim == 3 else is_visible, values, np.zeros_like(values))
    has_black = _strength(values)[is_visible].min() == 0
    if _where_one_value(visible) is not None:
        return visible if has_black and visible.any() else alpha
    if found := _areas_of_few(visible):
        raise UnreadablePicture(f"it has {found}: these look like several objects; {_INSTEAD}")
    return alpha


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
    return values.max(-1) if values.ndim == 3 else values


def _where_one_value(values: np.ndarray) -> np.ndarray | None:
    """Where the values are not 0, if they are all the same there; else None."""
    marked = values.any(-1) if values.ndim == 3 else values != 0
    if values.dtype == bool:
        return marked
    value = values.reshape(marked.size, -1)[int(np.argmax(marked))]
    same = (values == value).all(-1) if values.ndim == 3 else values == value[0]
    return marked if (same == marked).all() else None


def _several_objects(values: np.ndarray, is_lossy: bool) -> str | None:
    """What tells several objects apart in values of more than one kind, for a message; None for one object.

    Within one object all values are about the same, and others lie along its edge: an AREA of another value, pixels
    whose eight neighbours have it too, is something else, and so are pixels that stand alone with their value.
    """
    top = values.max()
    if top <= _SMALL and (values == np.rint(values)).all():
        return f"the numbers {_listed(_distinct(values))}"
    if not is_lossy and (found := _areas_of_few(values)):
        return found
    strength = _strength(values)
    bright = strength[strength >= 0.5 * float(top)]
    level = float(np.median(bright[:: -(-len(bright) // _SAMPLE)]))  # lossy formats leave some pixels above it
    coloured = strength >= _LOW * level
    other = coloured & (np.abs(strength - level) > (1 - _HIGH) * level)
    if other.mean() > _TOO_MANY:
        return "values between its extremes nearly everywhere (is it a photo?)"
    if np.count_nonzero(np.abs(strength / float(top) - 0.5) < 0.1) > np.count_nonzero(coloured) / 2:
        return "values at half of its maximum mostly"
    if values.ndim == 3:
        return _areas_of_colours(values, is_lossy)
    even, alone = _surrounded(values, np.nonzero(other), (_SLIGHT if is_lossy else _SLIGHT / 2) * level)
    apart = int((even if is_lossy else even | alone).sum())
    return "areas of several greys" if apart > max(_SHARE * np.count_nonzero(coloured), 4) else None


def _areas_of_colours(values: np.ndarray, is_lossy: bool) -> str | None:
    """As `_several_objects`, of (H, W, 3), judged by a sample of the bright pixels."""
    top = float(values.max())
    rows, columns = np.nonzero(values.max(-1) >= 0.5 * top)
    step = -(-len(rows) // _SAMPLE)
    at = rows[::step], columns[::step]
    colours = values[at].astype(np.float64)
    apart = np.abs(colours - np.median(colours, 0)).max(1) > 0.25 * top
    if apart.mean() > 1 / 3:
        return "many colours (is it a photo?)"
    even, _ = _surrounded(values, at, (_SLIGHT if is_lossy else _SLIGHT / 2) * top)
    return "areas of several colours" if (even & apart).sum() > max(_SHARE * len(apart), 4) else None


def _areas_of_few(values: np.ndarray) -> str | None:
    """As `_several_objects`, where the file is lossless and has few values or colours: then areas are exact."""
    codes = values
    if values.ndim == 3:
        if values.dtype.kind not in "iu":
            return None
        codes = values.astype(np.int64) @ np.array([1 << 40, 1 << 20, 1])
    if len(np.unique(codes.ravel()[::101])) > _FEW + 1 or len(distinct := _distinct(codes)) > _FEW:
        return None
    strength = _strength(values)
    top = float(strength.max())
    at = np.nonzero(strength if values.ndim == 3 else (values != 0) & (values < _WHITE * top))
    even, alone = _surrounded(codes, at, 0.0)
    found = codes[at]
    areas, lone = set(np.unique(found[even]).tolist()), set()
    for code in np.unique(found).tolist():  # objects too small to have an inside
        here = alone[found == code]
        if here.sum() > max(4, len(here) / 2):
            lone.add(code)
    if values.ndim == 3:
        return f"areas of {len(areas | lone)} colours" if len(areas | lone) > 1 else None
    between = {code for code in areas | lone if _LOW * top <= code <= _HIGH * top}
    # What was lossy before it was saved lossless has areas of wrong values too, but most of its values have none, and
    # there is more than one white.
    white = [code for code in distinct if code >= _WHITE * top]
    if between or (len(white) == 1 and areas and 2 * len(areas) >= len(distinct)):
        return f"areas of the numbers {_listed(sorted({*areas, *between, *white}))}"
    return None


def _surrounded(values: np.ndarray, at: tuple[np.ndarray, ...], tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Of pixels of (H, W) or (H, W, 3), by rows and columns: whether all eight neighbours are the same within the
    tolerance, and whether they are exactly the same or 0."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0))[: values.ndim], mode="edge")
    rows, columns = at
    own = values[at]
    wide = own.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    even, alone = np.ones(len(rows), bool), np.ones(len(rows), bool)
    for row in range(3):
        for column in range(3):
            if (row, column) != (1, 1):
                near = padded[rows + row, columns + column]
                same = np.abs(near - wide) <= tolerance
                as_it_is = (near == own) | (near == 0)
                even &= same.all(-1) if values.ndim == 3 else same
                alone &= as_it_is.all(-1) if values.ndim == 3 else as_it_is
    return even, alone


def _distinct(values: np.ndarray) -> list[Any]:
    """All values but 0, sorted."""
    is_narrow = values.dtype in (np.uint8, np.uint16)
    found = np.flatnonzero(np.bincount(values.ravel())) if is_narrow else np.unique(values)
    return found[found != 0].tolist()


def _listed(numbers: list[Any], most: int = 5) -> str:
    return ", ".join(f"{number:g}" for number in numbers[:most]) + (", …" if len(numbers) > most else "")
