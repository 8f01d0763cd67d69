"""Binary masks, label maps and grey maps from picture files.

A label map has a number for each object, and a number that has changed is another object: lossy formats are refused.
`samjax.foreground` says what counts in a binary mask.
"""

import dataclasses
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from samjax.foreground import Page, binary_mask
from samjax.pictures import OpenPicture, check_pixels, inverted, opened
from samjax.tiff import TiffPage, UnreadablePicture, tiff_pages

Source = str | os.PathLike | io.IOBase

_SINGLE = ("MPO",)  # formats whose further pages are previews of the first or the other eye's
_LOSSY = ("JPEG", "MPO", "AVIF")  # Pillow's names


def read_mask(path: Source, *, name: str | None = None) -> Bool[np.ndarray, "H W"]:
    """A picture file of one page, by its path or open, as a binary mask; see `binary_mask`.

    `name` is what messages call the file. Raises FileNotFoundError, or ValueError where it is no picture or has several
    pages, and like `binary_mask`.
    """
    with opened(path, name) as picture:
        name = picture.name
        page = _only_page(picture, "a mask")
    return binary_mask(page, name)


def read_mask_pages(path: Source, *, name: str | None = None) -> list[Page]:
    """All pages of a file, by its path or open, for `binary_mask`: each page is an object.

    Raises FileNotFoundError, or ValueError where it is no picture.
    """
    with opened(path, name) as picture:
        return list(_pages(picture))


def read_labels(path: Source, *, name: str | None = None) -> Integer[np.ndarray, "H W"]:
    """A picture file of one page, by its path or open, as a map of whole numbers of any size. Palettes count by index.

    Raises FileNotFoundError, or ValueError for what is no picture, is saved lossy, or has several pages, colours or
    fractions.
    """
    with opened(path, name) as picture:
        _check_map(picture)
        return _labels(picture)


def read_grey(path: Source, *, name: str | None = None) -> UInt8[np.ndarray, "H W"]:
    """A picture file of one page, by its path or open, as 8-bit grey; black and white of 1 bit are 0 and 255.

    Raises FileNotFoundError, or ValueError for pictures in colour, of more bits or of several pages.
    """
    with opened(path, name) as picture:
        page = _only_page(picture, "a grey map")
        numbers = page.numbers if page.palette is None else page.palette[page.numbers]
        if numbers.dtype not in (np.uint8, np.bool_):
            raise UnreadablePicture(f"it has numbers of {numbers.dtype}; expected grey of 8 bits")
        if numbers.ndim == 3:
            if (numbers != numbers[..., :1]).any():
                raise UnreadablePicture("it has colours; expected a grey picture")
            numbers = numbers[..., 0]
        return numbers.astype(np.uint8) * np.uint8(255) if numbers.dtype == bool else numbers


def read_colours(path: Source, *, name: str | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """A picture file of one page in which colours are classes, as RGB: palettes as colours, without opacity.

    Raises FileNotFoundError, or ValueError for what is no picture, is saved lossy, or has several pages or more bits.
    """
    from PIL import Image, ImageOps

    with opened(path, name) as picture:
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
    if colours.shape[2] not in (1, 3) or colours.dtype.kind not in "biuf":
        raise UnreadablePicture(f"it is a TIFF of {page.kind}; a mask has 1 band of numbers, or 3 of colours")
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
    largest = float(np.abs(labels).max())
    if largest >= 2.0**63:
        raise UnreadablePicture(f"it holds floats up to {largest:g}, too large for whole numbers of 64 bits")
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
