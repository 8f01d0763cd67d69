"""Binary masks, label maps and grey maps from picture files.

A label map has a number for each object, and a number that has changed is another object: lossy formats are refused.
`samjax.foreground` says what counts in a binary mask.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from samjax import lossy
from samjax.foreground import Page, binary_mask
from samjax.pictures import OpenPicture, check_pixels, inverted, opened
from samjax.tiff import TiffPage, UnreadablePicture, tiff_pages

Raster = str | os.PathLike | io.IOBase

_SINGLE = ("MPO",)  # formats whose further pages are previews of the first or the other eye's
_LOSSY = ("JPEG", "MPO", "AVIF")  # Pillow's names
_TELLING = {"WEBP": ("WebP", lossy.webp), "JPEG2000": ("JPEG 2000 (irreversible)", lossy.jpeg_2000)}


def read_mask(path: Raster, *, name: str | None = None) -> Bool[np.ndarray, "H W"]:
    """A picture file of one page, by its path or open, as a binary mask; see `binary_mask`.

    `name` is what messages call the file. Raises FileNotFoundError, or ValueError if it is not a picture or has
    several pages, and like `binary_mask`.
    """
    with _opened(path, name) as contents:
        name = contents.picture.name
        page = contents.only_page("a mask")
    try:
        return binary_mask(page, name)
    except ValueError as error:
        raise type(error)(f"{name}: {error}") from error


def read_mask_pages(path: Raster, *, name: str | None = None) -> list[Page]:
    """All pages of a file, by its path or open, for `binary_mask`: each page is an object.

    Raises FileNotFoundError, or ValueError if it is not a picture.
    """
    with _opened(path, name) as contents:
        return [contents.page(number) for number in range(contents.count)]


def read_labels(path: Raster, *, name: str | None = None) -> Integer[np.ndarray, "H W"]:
    """A picture file of one page, by its path or open, as a map of whole numbers of any size. Palettes count by index.

    Raises FileNotFoundError, or ValueError for what is not a picture, is saved lossy, or has several pages, colours or
    fractions.
    """
    with _opened(path, name) as contents:
        contents.check_is_map()
        return _labels_of_tiff(contents.pages[0]) if contents.pages else _labels_of_pillow(contents)


def read_grey(path: Raster, *, name: str | None = None) -> UInt8[np.ndarray, "H W"]:
    """A picture file of one page, by its path or open, as 8-bit grey; black and white of 1 bit are 0 and 255.

    Raises FileNotFoundError, or ValueError for pictures in colour, of more bits or of several pages.
    """
    with _opened(path, name) as contents:
        numbers = _shown(contents.only_page("a grey map"), "grey")
        if numbers.ndim == 3:
            if (numbers != numbers[..., :1]).any():
                raise UnreadablePicture("it has colours; expected a grey picture")
            numbers = numbers[..., 0]
        return numbers


def read_colours(path: Raster, *, name: str | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """A picture file of one page in which colours are classes, as RGB: palettes as colours, without opacity.

    Raises FileNotFoundError, or ValueError for what is not a picture, is saved lossy, or has several pages or more
    bits.
    """
    from PIL import ImageOps

    with _opened(path, name) as contents:
        contents.check_is_map()
        if contents.pages:
            numbers = _shown(contents.page(0), "colours")
            return np.dstack([numbers] * 3) if numbers.ndim == 2 else numbers
        image = contents.image
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            raise UnreadablePicture(
                f"it is a picture in {image.mode}; expected a mask in grey, colours or palette of 8 bits"
            )
        return np.asarray(ImageOps.exif_transpose(image).convert("RGBA").convert("RGB"))


def mask_from_pillow(image: Any) -> Bool[np.ndarray, "H W"]:
    """A Pillow image as a binary mask; see `binary_mask`, whose errors are raised about the mask."""
    from PIL import ImageOps

    page = _page_of_pillow(ImageOps.exif_transpose(image), is_lossy=image.format in _LOSSY)
    try:
        return binary_mask(page, "the mask")
    except ValueError as error:
        raise type(error)(f"the mask: {error}") from error


@dataclasses.dataclass(frozen=True)
class _Contents:
    """The pages of a picture file while it is open."""

    picture: OpenPicture
    pages: list[TiffPage]  # of TIFF files
    image: Any  # of other files: Pillow's
    count: int
    lossy: str | None  # what it is saved as, where that does not keep numbers; for a message

    def page(self, number: int) -> Page:
        from PIL import ImageOps

        if self.pages:
            return _page_of_tiff(self, self.pages[number])
        self.image.seek(number)
        return _page_of_pillow(ImageOps.exif_transpose(self.image), is_lossy=self.lossy is not None)

    def only_page(self, what: str) -> Page:
        """Raises `UnreadablePicture` if there are several; `what` the file ought to be is for the message."""
        self._check_is_single(what)
        return self.page(0)

    def check_is_map(self) -> None:
        """Raises `UnreadablePicture` if numbers did not survive saving, or there are several pages of them."""
        if self.lossy:
            raise UnreadablePicture(
                f"it is saved as {self.lossy}: numbers of a label map do not survive that; make the map again as PNG "
                "or TIFF"
            )
        self._check_is_single("a label map")

    def _check_is_single(self, what: str) -> None:
        if self.count > 1:
            raise UnreadablePicture(
                f"it has {self.count} pages, {what} has one: write the page that belongs to the photo into a file of "
                "its own"
            )


@contextlib.contextmanager
def _opened(path: Raster, name: str | None) -> Iterator[_Contents]:
    from PIL import Image

    with opened(path, name) as picture:
        if picture.is_tiff:
            with tiff_pages(picture.file) as pages:
                lossy = next((f"TIFF with {page.lossy}" for page in pages if page.lossy), None)
                yield _Contents(picture, pages, None, len(pages), lossy)
            return
        with Image.open(picture.file) as image:
            count = 1 if image.format in _SINGLE else getattr(image, "n_frames", 1)
            yield _Contents(picture, [], image, count, _lossy_format(picture, image.format))


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


def _page_of_tiff(contents: _Contents, page: TiffPage) -> Page:
    check_pixels(page)
    if page.suits_pillow and page.photometric in ("ycbcr", "cielab", "separated"):
        from PIL import Image

        contents.picture.file.seek(0)
        with Image.open(contents.picture.file) as image:
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


def _shown(page: Page, expected: str) -> np.ndarray:
    """(H, W) or (H, W, 3) of 8 bits, without opacity."""
    numbers = page.numbers if page.palette is None else page.palette[page.numbers]
    if numbers.dtype not in (np.uint8, np.bool_):
        raise UnreadablePicture(f"it has numbers of {numbers.dtype}; expected {expected} of 8 bits")
    return numbers.astype(np.uint8) * np.uint8(255) if numbers.dtype == bool else numbers


def _greyed(page: Page) -> Page:
    """A page of one channel, if three are equal."""
    numbers = page.numbers
    if numbers.ndim == 3 and (numbers == numbers[..., :1]).all():
        return dataclasses.replace(page, numbers=numbers[..., 0])
    return page


def _labels_of_tiff(page: TiffPage) -> np.ndarray:
    check_pixels(page)
    if page.bands > 1 or page.photometric not in ("minisblack", "miniswhite", "palette"):
        raise UnreadablePicture(f"it is a TIFF of {page.kind}; a label map has one number a pixel")
    return _whole(page.numbers()[..., 0])


def _labels_of_pillow(contents: _Contents) -> np.ndarray:
    from PIL import ImageOps

    mode = contents.image.mode
    labels = np.asarray(ImageOps.exif_transpose(contents.image))
    if contents.image.format == "WEBP" and (labels == labels[..., :1]).all():  # which knows no grey
        labels = labels[..., 0]
    if labels.ndim != 2:
        raise UnreadablePicture(
            f"it is a picture in {mode}; a label map has one number a pixel (a palette, or grey of 8 to 64 bits)"
        )
    return _whole(labels // _png_scale(contents.picture) if mode == "L" else labels)


def _png_scale(picture: OpenPicture) -> int:
    """The factor by which Pillow multiplies the numbers of a grey PNG of 2 or 4 bits, so that the largest is white."""
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


def _lossy_format(picture: OpenPicture, form: str | None) -> str | None:
    """The lossy format, as in `_Contents`, of a file that Pillow reads."""
    if form in _LOSSY:
        return f"{'JPEG' if form == 'MPO' else form}, which is lossy"
    name, loses = _TELLING.get(form or "", ("", None))
    if loses is None:
        return None
    place = picture.file.tell()
    picture.file.seek(0)
    is_lossy = loses(picture.file.read())
    picture.file.seek(place)
    return f"{name}, which is lossy" if is_lossy else None
