"""Binary masks, label maps and grey maps from picture files.

A label map has a number for each object, and a number that has changed is another object: lossy formats are refused.
A binary mask has two values. Where it has more, because it was saved lossy or drawn with smooth edges, it is cut at
half of its maximum, unless that would drop objects that the file tells apart, or unite them.
"""

import dataclasses
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, Shaped, UInt8

from samjax.pictures import OpenPicture, UnreadablePicture, check_pixels, inverted, opened, say_once
from samjax.tiff import TiffPage, tiff_pages

Source = str | os.PathLike | io.IOBase

_SINGLE = ("MPO",)  # formats whose further pages are previews of the first or the other eye's
_LOSSY = ("JPEG", "MPO", "AVIF")  # Pillow's names
_SMALL = 32  # a largest number that no binary mask has, apart from 1
_FEW = 32  # more different values than labels of 8 bits usually are, fewer than smooth edges have
_SLIGHT = 3 / 255  # of the maximum: rounding, or what a lossy format changes within an area
_LOW, _HIGH = 1 / 8, 7 / 8  # of the maximum: what is between is neither background nor object
_SHARE = 0.02  # of all areas: what others of another grey or colour must have to count
_INSTEAD = "give it as labelmap= where data is read, or write each object into a file of its own"


@dataclasses.dataclass(frozen=True)
class Page:
    """One picture of a file: its numbers as they are stored, of palettes the indices, and its opacity."""

    numbers: Shaped[np.ndarray, "H W"] | Shaped[np.ndarray, "H W 3"]
    alpha: Shaped[np.ndarray, "H W"] | None = None
    palette: UInt8[np.ndarray, "K 3"] | None = None
    is_lossy: bool = False


def read_mask(source: Source, *, name: str | None = None) -> Bool[np.ndarray, "H W"]:
    """A picture file of one page, by its path or open, as a binary mask; see `binary_mask`.

    `name` is what messages call the file. Raises FileNotFoundError, or ValueError where it is no picture or has several
    pages, and like `binary_mask`.
    """
    with opened(source, name) as picture:
        name = picture.name
        page = _only_page(picture, "a mask")
    return binary_mask(page, name)


def read_mask_pages(source: Source, *, name: str | None = None) -> list[Page]:
    """All pages of a file, by its path or open, for `binary_mask`: each page is an object.

    Raises FileNotFoundError, or ValueError where it is no picture.
    """
    with opened(source, name) as picture:
        return list(_pages(picture))


def read_labels(source: Source, *, name: str | None = None) -> Integer[np.ndarray, "H W"]:
    """A picture file of one page, by its path or open, as a map of whole numbers of any size. Palettes count by index.

    Raises FileNotFoundError, or ValueError for what is no picture, is saved lossy, or has several pages, colours or
    fractions.
    """
    with opened(source, name) as picture:
        _check_map(picture)
        return _labels(picture)


def read_grey(source: Source, *, name: str | None = None) -> UInt8[np.ndarray, "H W"]:
    """A picture file of one page, by its path or open, as 8-bit grey; black and white of 1 bit are 0 and 255.

    Raises FileNotFoundError, or ValueError for pictures in colour, of more bits or of several pages.
    """
    with opened(source, name) as picture:
        page = _only_page(picture, "a grey map")
    numbers = page.numbers if page.palette is None else page.palette[page.numbers]
    if numbers.ndim == 3 and numbers.dtype == np.uint8:
        if (numbers != numbers[..., :1]).any():
            raise ValueError(f"{picture.name}: it has colours; expected a grey picture")
        numbers = numbers[..., 0]
    if numbers.dtype == bool:
        return numbers.astype(np.uint8) * np.uint8(255)
    if numbers.dtype != np.uint8:
        raise ValueError(f"{picture.name}: it has numbers of {numbers.dtype}; expected grey of 8 bits")
    return numbers


def read_colours(source: Source, *, name: str | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """A picture file of one page in which colours are classes, as RGB: palettes as colours, without opacity.

    Raises FileNotFoundError, or ValueError for what is no picture, is saved lossy, or has several pages or more bits.
    """
    from PIL import Image, ImageOps

    with opened(source, name) as picture:
        _check_map(picture)
        picture.file.seek(0)
        with Image.open(picture.file) as image:
            if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
                raise UnreadablePicture(
                    f"it is a picture in {image.mode}; expected a mask in grey, colours or palette of 8 bits"
                )
            return np.asarray(ImageOps.exif_transpose(image).convert("RGBA").convert("RGB"))


def mask_of_pillow(image: Any) -> Bool[np.ndarray, "H W"]:
    """An image of Pillow's as a binary mask; see `binary_mask`."""
    from PIL import ImageOps

    return binary_mask(_page_of_pillow(ImageOps.exif_transpose(image), is_lossy=image.format in _LOSSY), "the mask")


def binary_mask(page: Page, name: str) -> Bool[np.ndarray, "H W"]:
    """The foreground of a page that is called `name` in messages.

    Two values are 0 and whatever is not 0. More are cut at half of the maximum, which the log says once. Palettes count
    by index, or by colour where all are grey; colours by their strongest channel. Opacity is the mask where it varies,
    unless what is visible is drawn in black and one other colour.

    Raises ValueError for a mask without foreground, and for values or colours that look like several objects.
    """
    try:
        return _foreground(page, name)
    except UnreadablePicture as error:
        raise ValueError(f"{name}: {error}") from error


def _foreground(page: Page, name: str) -> np.ndarray:
    values = _what_counts(page)
    if not values.any():
        raise UnreadablePicture("it is empty: all of its pixels are 0")
    marked = _where_one_value(values)
    if marked is not None:
        return marked
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnreadablePicture("it holds NaN or infinity")
    if values.min() < 0:
        raise UnreadablePicture(
            f"it holds negative numbers (down to {values.min():g}); a binary mask has 0 and one other number"
        )
    if found := _several_objects(values, page.is_lossy):
        raise UnreadablePicture(f"it has {found}: these look like several objects; {_INSTEAD}")
    strength = _strength(values)
    top = float(strength.max())
    marked = strength.astype(np.float64) * 2 >= top
    if marked.all() and strength.min() < _HIGH * top:
        raise UnreadablePicture(
            f"it has no background: its values are {strength.min():g} to {top:g}; a binary mask has 0 and one other"
        )
    say_once("cut", f"{name} has more than two values (saved lossy, or with smooth edges): masks are cut at half of "
             "their maximum")  # fmt: skip
    return marked


def _what_counts(page: Page) -> np.ndarray:
    """(H, W) or (H, W, 3): colours, or opacity where that is the mask."""
    values = page.numbers
    if page.palette is not None:
        used = page.palette[: int(values.max()) + 1]
        is_grey = len(used) > values.max() and (used == used[:, :1]).all() and len(np.unique(used[:, 0])) == len(used)
        values = used[values][..., 0] if is_grey else values
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
    whose eight neighbours have it too, is something else.
    """
    top = float(values.max())
    if top <= _SMALL and (values == np.rint(values)).all():
        return f"the numbers {_listed(np.unique(values[values != 0]).tolist())}"
    if not is_lossy and (found := _areas_of_few(values)):
        return found
    scaled = (values if values.ndim == 3 else values[..., None]).astype(np.float32) / np.float32(top)
    strength = scaled.max(-1)
    inner = scaled[1:-1, 1:-1][_even(scaled, _SLIGHT if is_lossy else _SLIGHT / 2) & (strength[1:-1, 1:-1] >= _LOW)]
    if values.ndim == 2:
        apart = inner[:, 0] <= _HIGH
    else:
        apart = _apart(inner)
        bright = scaled[strength >= 0.5]
        if _apart(bright).mean() > 1 / 3:
            return "many colours (is it a photo?)"
    if apart.sum() > max(_SHARE * len(inner), 4):
        return f"areas of several {'greys' if values.ndim == 2 else 'colours'}"
    return None


def _apart(colours: np.ndarray) -> np.ndarray:
    """Which of (N, 3) colours are not the usual one."""
    return np.abs(colours - np.median(colours, 0)).max(1) > 0.25 if len(colours) else np.zeros(0, bool)


def _areas_of_few(values: np.ndarray) -> str | None:
    """As `_several_objects`, where the file is lossless and has few values or colours: then areas are exact."""
    from scipy import ndimage

    if values.ndim == 3:
        if values.dtype.kind not in "iu":
            return None
        codes = values.astype(np.int64) @ np.array([1 << 40, 1 << 20, 1])
        colours, numbers = np.unique(codes, return_inverse=True)
        if len(colours) > _FEW + 1:
            return None
        numbers = numbers.reshape(codes.shape)
        strength = np.zeros(len(colours))
        strength[numbers.ravel()] = values.max(-1).ravel()
    else:
        strength, numbers = np.unique(values, return_inverse=True)
        if len(strength) > _FEW + 1:
            return None
        numbers = numbers.reshape(values.shape)
    areas = set(np.unique(numbers[1:-1, 1:-1][_even(numbers[..., None], 0)]).tolist())
    # Objects too small to have an inside stand alone.
    regions, count = ndimage.label(strength[numbers] > 0, np.ones((3, 3)))
    if count:
        index = np.arange(1, count + 1)
        low, high = (reduce(numbers, regions, index) for reduce in (ndimage.minimum, ndimage.maximum))
        sizes = np.bincount(regions.ravel())[1:]
        areas |= set(np.asarray(low)[(low == high) & (sizes >= 4)].astype(int).tolist())
    areas = {number for number in areas if strength[number] > 0}
    top = strength.max()
    if values.ndim == 3:
        found = areas if len(areas) > 1 else set()
    else:
        others = {number for number in areas if strength[number] < (1 - _SLIGHT) * top}
        between = {number for number in others if _LOW * top <= strength[number] <= _HIGH * top}
        # What was lossy before it was saved lossless has areas of wrong values too, but most of them have none.
        found = areas if between or (others and 2 * len(areas) > (strength > 0).sum()) else set()
    if not found:
        return None
    if values.ndim == 3:
        return f"areas of {len(found)} colours"
    return f"areas of the numbers {_listed(sorted(strength[list(found)].tolist()))}"


def _even(values: np.ndarray, tolerance: float) -> np.ndarray:
    """(H - 2, W - 2): pixels of (H, W, C) whose eight neighbours are as they are, within the tolerance."""
    height, width = (max(side - 2, 0) for side in values.shape[:2])
    centre = values[1 : 1 + height, 1 : 1 + width]
    even = np.ones((height, width), bool)
    for row in range(3):
        for column in range(3):
            if (row, column) != (1, 1):
                difference = np.abs(values[row : row + height, column : column + width] - centre)
                even &= (difference <= tolerance).all(-1)
    return even


def _listed(numbers: list[Any], most: int = 5) -> str:
    return ", ".join(f"{number:g}" for number in numbers[:most]) + (", …" if len(numbers) > most else "")


# Pages


def _only_page(picture: OpenPicture, what: str) -> Page:
    """Raises `UnreadablePicture` where there are several; `what` the file ought to be is for the message."""
    found = _pages(picture)
    page = next(found)
    if next(found, None) is not None:
        raise UnreadablePicture(_several(picture, what))
    return page


def _several(picture: OpenPicture, what: str) -> str:
    return (
        f"it has {_page_count(picture)} pages, {what} has one: write the page that belongs to the photo into a file of "
        "its own"
    )


def _page_count(picture: OpenPicture) -> int:
    if picture.is_tiff:
        with tiff_pages(picture.file) as pages:
            return len(pages)
    from PIL import Image

    with Image.open(picture.file) as image:
        return 1 if image.format in _SINGLE else getattr(image, "n_frames", 1)


def _pages(picture: OpenPicture) -> Iterator[Page]:
    is_lossy = _lossy_format(picture) is not None
    if picture.is_tiff:
        with tiff_pages(picture.file) as pages:
            for page in pages:
                yield _page_of_tiff(picture, page)
        return
    from PIL import Image, ImageOps

    with Image.open(picture.file) as image:
        for number in range(1 if image.format in _SINGLE else getattr(image, "n_frames", 1)):
            image.seek(number)
            yield _page_of_pillow(ImageOps.exif_transpose(image), is_lossy=is_lossy)


def _page_of_pillow(image: Any, *, is_lossy: bool) -> Page:
    palette = alpha = None
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in ("P", "PA"):
        palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        if image.mode == "P" and "transparency" in image.info:
            alpha = np.asarray(image.convert("RGBA"))[..., 3]
    elif image.mode in ("RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    numbers = np.asarray(image)
    if image.mode in ("LA", "PA"):
        numbers, alpha = numbers[..., 0], numbers[..., 1]
    elif image.mode == "RGBA":
        numbers, alpha = numbers[..., :3], numbers[..., 3]
    return _greyed(Page(numbers, alpha, palette, is_lossy))


def _page_of_tiff(picture: OpenPicture, page: TiffPage) -> Page:
    check_pixels(page)
    if page.suits_pillow and page.photometric in ("ycbcr", "cielab", "separated"):
        from PIL import Image

        picture.file.seek(0)
        with Image.open(picture.file) as image:
            image.seek(page.place)
            image.load()  # turns it upright
            return _page_of_pillow(image, is_lossy=page.lossy is not None)
    numbers = page.numbers()
    alpha = numbers[..., -1] if page.has_alpha else None
    colours = numbers[..., : page.bands - page.has_alpha]
    if page.photometric == "rgb":
        colours = colours[..., :3]
    if colours.shape[2] not in (1, 3):
        raise UnreadablePicture(f"it is a TIFF of {page.kind}; a mask has 1 band, or 3 of colours")
    if colours.shape[2] == 1:
        colours = colours[..., 0]
    if page.photometric == "miniswhite":
        colours = inverted(colours, page.bits)
    if page.bits in (2, 4) and page.palette is None:  # white is 255, as Pillow has it
        colours = colours * np.uint8(255 // (2**page.bits - 1))
    return _greyed(Page(colours, alpha, page.palette, page.lossy is not None))


def _greyed(page: Page) -> Page:
    """The same with one channel, where three are equal."""
    numbers = page.numbers
    if numbers.ndim == 3 and (numbers == numbers[..., :1]).all():
        return dataclasses.replace(page, numbers=numbers[..., 0])
    return page


def _check_map(picture: OpenPicture) -> None:
    """Raises `UnreadablePicture` where numbers did not survive saving, or there are several pages of them."""
    if lossy := _lossy_format(picture):
        raise UnreadablePicture(
            f"it is saved as {lossy}, which is lossy: numbers of a label map do not survive that; make the map again "
            "as PNG or TIFF"
        )
    if _page_count(picture) > 1:
        raise UnreadablePicture(_several(picture, "a label map"))


def _labels(picture: OpenPicture) -> np.ndarray:
    from PIL import Image, ImageOps

    if picture.is_tiff:
        with tiff_pages(picture.file) as (page, *_):
            check_pixels(page)
            if page.bands > 1 or page.photometric not in ("minisblack", "miniswhite", "palette"):
                raise UnreadablePicture(f"it is a TIFF of {page.kind}; a label map has one number a pixel")
            return _whole(page.numbers()[..., 0])
    picture.file.seek(0)
    with Image.open(picture.file) as image:
        mode, is_webp = image.mode, image.format == "WEBP"
        labels = np.asarray(ImageOps.exif_transpose(image))
    if is_webp and (labels == labels[..., :1]).all():  # which knows no grey
        labels = labels[..., 0]
    if labels.ndim != 2:
        raise UnreadablePicture(
            f"it is a picture in {mode}; a label map has one number a pixel (a palette, or grey of 8 to 64 bits)"
        )
    return _whole(labels // _png_scale(picture) if mode == "L" else labels)


def _png_scale(picture: OpenPicture) -> int:
    """By what Pillow multiplies the numbers of a grey PNG of 2 or 4 bits, so that the largest is white."""
    picture.file.seek(0)
    header = picture.file.read(26)
    if not header.startswith(b"\x89PNG") or header[25] != 0:
        return 1
    return {2: 85, 4: 17}.get(header[24], 1)


def _whole(labels: np.ndarray) -> np.ndarray:
    """Booleans and whole floats as integers."""
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if labels.dtype.kind in "iu":
        return labels
    if labels.dtype.kind != "f":
        raise UnreadablePicture(f"it holds {labels.dtype}; a label map has whole numbers")
    if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
        raise UnreadablePicture("it holds fractions; a label map has whole numbers")
    if labels.max() >= 2.0**63 or labels.min() < -(2.0**63):
        raise UnreadablePicture(f"it holds floats up to {labels.max():g}, too large for whole numbers of 64 bits")
    return labels.astype(np.int64)


def _lossy_format(picture: OpenPicture) -> str | None:
    """What a file is saved as, where that does not keep numbers; for a message."""
    from PIL import Image

    if picture.is_tiff:
        with tiff_pages(picture.file) as pages:
            return next((f"TIFF with {page.lossy} compression" for page in pages if page.lossy), None)
    picture.file.seek(0)
    with Image.open(picture.file) as image:
        form = image.format
    picture.file.seek(0)
    if form in _LOSSY:
        return "JPEG" if form == "MPO" else form
    if form == "WEBP" and _webp_is_lossy(picture.file.read()):
        return "WebP (lossy)"
    if form == "JPEG2000" and _jpeg_2000_is_lossy(picture.file.read()):
        return "JPEG 2000 (irreversible)"
    picture.file.seek(0)
    return None


def _webp_is_lossy(data: bytes) -> bool:
    """Whether a frame is coded as VP8, and not VP8L (RFC 9649)."""
    place, end = 12, len(data)
    while place + 8 <= end:
        chunk, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if chunk == b"VP8 ":
            return True
        if chunk == b"ANMF":  # a frame: 16 bytes, then chunks
            place += 8 + 16
            continue
        place += 8 + size + size % 2
    return False


def _jpeg_2000_is_lossy(data: bytes) -> bool:
    """Whether the wavelet is the irreversible one of 9 and 7 taps (ISO 15444-1, A.6.1)."""
    place = data.find(b"\xff\x4f\xff\x51") + 2  # start of the codestream, and of its first segment
    while 2 <= place <= len(data) - 14:
        marker, size = data[place : place + 2], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == b"\xff\x52":  # COD
            return data[place + 13] == 0
        if marker == b"\xff\x90":  # a tile begins
            break
        place += 2 + size
    return False
