"""Photos from picture files, from Pillow images and from arrays: all as 8-bit RGB.

`samjax.maps` reads masks and label maps from the same files. Pillow reads pictures, `samjax.tiff` the numbers of TIFF
files that Pillow has no mode for.
"""

import contextlib
import dataclasses
import hashlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from samjax.tiff import SIGNATURES, TiffPage, UnreadablePicture, tiff_pages
from samjax.types import ArrayLike

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _SAMPLE_FORMAT = 258, 262, 277, 284, 339  # TIFF's tags
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
# Formats whose header has the size that their decoder gives; others (icons, vector graphics) are decoded for it.
_SIZED = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "WEBP")
# Endings of the files that are looked for in folders; what is named itself is read whatever its ending.
ENDINGS = (
    *(".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff"),
    ".webp",
)
# Pillow's modes with at most 8 bits a channel, which it converts to RGB; the rest hold wide numbers.
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class OpenPicture:
    """A picture file while it is open."""

    name: str  # for messages
    file: Any  # open for reading bytes; can seek
    is_tiff: bool


@contextlib.contextmanager
def opened(source: str | os.PathLike | io.IOBase, name: str | None = None) -> Iterator[OpenPicture]:
    """A picture file, by its path or already open. Whatever goes wrong with it inside is a ValueError with its name.

    `name` is what messages call it, by default its path; of "" they do not name it. Raises FileNotFoundError if
    there is none.
    """
    is_path = isinstance(source, str | os.PathLike)
    if name is None:
        name = str(source) if is_path else "the picture"
    subject, prefix = (name, f"{name}: ") if name else ("it", "")
    if is_path and not Path(source).is_file():
        raise FileNotFoundError(f"there is no image file at {source}")
    from PIL import Image, UnidentifiedImageError

    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(Path(source).open("rb")) if is_path else _seekable(source)
            file.seek(0)
            start = file.read(12)
            file.seek(0)
            yield OpenPicture(name, file, start[:4] in SIGNATURES)
    except (MemoryError, FileNotFoundError):
        raise
    except UnreadablePicture as error:
        raise ValueError(f"{prefix}{error}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{prefix}{error}; PIL.Image.MAX_IMAGE_PIXELS sets the limit") from error
    except UnidentifiedImageError as error:  # whose message is an object's address
        why = "the file is damaged or not an image"
        if start[4:] in (b"ftypavif", b"ftypavis"):
            why += ", or this Pillow does not read AVIF, as 11.3 and later do"
        raise ValueError(f"{subject} cannot be read as an image: {why}") from error
    except Exception as error:  # Pillow raises many kinds for broken files
        why = "the file is damaged or not an image"
        raise ValueError(f"{subject} cannot be read as an image ({error}); {why}") from error


def read_image(path: str | os.PathLike | io.IOBase, *, name: str | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """A picture file, by its path or open, as RGB, turned upright by its EXIF orientation.

    Grey of more than 8 bits follows the rules of `as_rgb`; of colours with more than 8 bits a channel the upper 8 are
    taken, and they are not stretched. Of animations the first frame is read, and of TIFF files the first page, which
    the log says once where there are several. `name` is what messages call the file.

    Raises FileNotFoundError, or ValueError if the file is not a picture that can be read as a photo.
    """
    with opened(path, name) as picture:
        if picture.is_tiff:
            with tiff_pages(picture.file) as pages:
                return _photo_of_tiff(picture, pages)
        from PIL import Image, ImageOps

        with Image.open(picture.file) as image:
            return _rgb_of_upright(ImageOps.exif_transpose(image))


def read_channels(
    path: str | os.PathLike | io.IOBase, channels: int, *, name: str | None = None
) -> UInt8[np.ndarray, "H W channels"]:
    """A TIFF file of so many bands, more than a photo's three, by the rules of `as_channels`.

    Of several pages the first is read. Raises FileNotFoundError, or ValueError if the file is no TIFF that can be read,
    or has another number of bands.
    """
    with opened(path, name) as picture:
        if not picture.is_tiff:
            raise UnreadablePicture(f"photos of {channels} channels are TIFF files of {channels} bands, and it is none")
        with tiff_pages(picture.file) as pages:
            page = pages[0]
            check_pixels(page)
            if page.bands != channels:
                raise UnreadablePicture(f"it is a TIFF of {page.kind}, and the model takes {channels} channels")
            return _checked(f"it is a TIFF of {page.kind}", lambda: as_channels(page.numbers(), channels))


def photo_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) that `read_image` gives, without decoding what need not be. Raises like `read_image`."""
    with opened(path) as picture:
        if picture.is_tiff:
            with tiff_pages(picture.file) as pages:
                page = pages[0]
                if not page.is_turned_by_xmp:
                    return page.size
                return _photo_of_tiff(picture, pages[:1]).shape[:2]
        from PIL import ExifTags, Image

        with Image.open(picture.file) as image:
            if image.format in _SIZED:
                sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
                return image.size if sideways else (image.height, image.width)
    return read_image(path).shape[:2]


def as_rgb(image: ArrayLike, image_format: str = "RGB") -> UInt8[np.ndarray, "H W 3"]:
    """Any usual image array, or a Pillow image, as 8-bit RGB.

    Shapes: (H, W), (H, W, 1), (H, W, 2) grey with alpha, (H, W, 3), (H, W, 4); alpha is dropped, grey repeated.
    Dtypes: uint8 as it is; bool as 0 and 255; other integers (16-bit photographs, microscopy) stretched so that the
    image's darkest value becomes 0 and its brightest 255; floats must lie in [0, 1] and are scaled by 255.
    Pillow images become what `read_image` makes of their files: any mode, turned upright.
    `image_format` is the order of an array's colours, "RGB" or "BGR".
    Raises ValueError for empty images, other shapes, NaN, floats outside [0, 1], and "BGR" with a Pillow image.
    """
    if image_format not in ("RGB", "BGR"):
        raise ValueError(f"image_format must be RGB or BGR, got {image_format!r}")
    if is_pillow(image):
        if image_format == "BGR":
            raise ValueError(
                "image_format is for arrays, and a Pillow image knows the order of its colours: leave it out, "
                "or give numpy.asarray(image) where the image was made of an array in BGR"
            )
        return rgb_of_pillow(image)
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        kind = "; samjax.read_image reads files" if isinstance(image, str | os.PathLike) else ""
        raise ValueError(
            f"an image must be an array of shape (H, W) or (H, W, channels) with 1 to 4 channels, channels last, "
            f"got shape {array.shape}{kind}"
        )
    if array.size == 0:
        raise ValueError(f"the image is empty: its shape is {array.shape}")
    array = array[:, :, : 1 if array.shape[2] <= 2 else 3]
    array = _to_uint8(array)
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return array[:, :, ::-1] if image_format == "BGR" else array


def as_channels(image: ArrayLike, channels: int) -> UInt8[np.ndarray, "H W channels"]:
    """An array (H, W, `channels`) with more channels than a photo's three, in 8 bits a channel.

    Dtypes are as for `as_rgb`; integers of more than 8 bits are stretched by the darkest and the brightest value of all
    channels together. Raises ValueError like it, for Pillow images, and for another number of channels.
    """
    if is_pillow(image):
        raise ValueError(
            f"this model takes {channels} channels: give an array (H, W, {channels}); a Pillow image has at most four, "
            "whose meanings Pillow decides"
        )
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != channels:
        raise ValueError(
            f"this model takes {channels} channels: an image must be an array (H, W, {channels}), channels last, got "
            f"shape {array.shape}"
        )
    if array.size == 0:
        raise ValueError(f"the image is empty: its shape is {array.shape}")
    return _to_uint8(array)


def image_hash(rgb: UInt8[np.ndarray, "H W channels"]) -> str:
    """SHA-256 of a photo's size and pixels, whatever file they came from."""
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.integer):
        low, high = int(array.min()), int(array.max())
        return np.rint((array.astype(np.float64) - low) * (255 / max(high - low, 1))).astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ValueError("the image holds NaN or infinity; all values must be finite")
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"a float image must lie in [0, 1], got {array.min():g} to {array.max():g}; "
                "scale it, or pass 8-bit values as uint8"
            )
        return np.rint(array * 255).astype(np.uint8)
    raise ValueError(f"an image must hold integers, floats or booleans, got dtype {array.dtype}")


def is_pillow(image: Any) -> bool:
    """True for a Pillow image, which is not imported for it."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def rgb_of_pillow(image: Any) -> UInt8[np.ndarray, "H W 3"]:
    """RGB of a Pillow image, as `read_image` reads its file; of several frames the present one. The image is not
    changed.

    Raises ValueError if Pillow misread a TIFF file that cannot be read again.
    """
    from PIL import ImageOps

    if 0 in image.size:
        raise ValueError(f"the image is empty: it has {image.size[0]} x {image.size[1]} pixels")
    if image.format == "TIFF" and _is_misread(image.tag_v2):
        return _rgb_of_misread(image)
    return _rgb_of_upright(ImageOps.exif_transpose(image))


def _rgb_of_upright(image: Any) -> np.ndarray:
    if image.mode in ("La", "RGBa"):  # whose colours are multiplied by their opacity
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode in _EIGHT_BITS:
        return np.asarray(image.convert("RGB"))
    return _checked(f"it is a picture in Pillow's mode {image.mode}", lambda: as_rgb(np.asarray(image)))


def _is_misread(tags: Any) -> bool:
    """True if Pillow mistakes a TIFF file's numbers, by its tags: planes of 16 bits, 32 bits for signed ones, 8 bits
    for unsigned ones, or wide ones of which 0 is white for those of which 0 is black."""
    bits, form = (int(np.max(tags.get(tag, 1))) for tag in (_BITS, _SAMPLE_FORMAT))
    if tags.get(_SAMPLES, 1) > 1:
        return bits > 8 and tags.get(_PLANAR, 1) == 2
    return (bits, form) in ((32, 1), (8, 2)) or (bits > 8 and tags.get(_PHOTOMETRIC) == 0)


def _rgb_of_misread(image: Any) -> np.ndarray:
    """RGB of the TIFF file that an image was opened from, read again."""
    file, path = getattr(image, "fp", None), image.filename
    if file is not None and not file.closed:
        position = file.tell()
        file.seek(0)
        source: Any = io.BytesIO(file.read())
        file.seek(position)
    elif path and Path(path).is_file():
        source = path
    else:
        raise ValueError(
            "Pillow misreads TIFF files of this kind (16 bits in planes, 32 bits), and this image's file is closed: "
            "read it with samjax.read_image"
        )
    with opened(source, str(path or "the image")) as picture, tiff_pages(picture.file) as pages:
        rgb = _photo_of_tiff(picture, [page for page in pages if page.place == image.tell()] or pages[:1])
    if sorted(rgb.shape[:2]) != sorted(image.size):
        raise ValueError(
            f"the image has {image.size[0]} x {image.size[1]} pixels, its TIFF file {rgb.shape[1]} x {rgb.shape[0]}: "
            "resize the array that samjax.read_image gives instead"
        )
    return rgb


def _photo_of_tiff(picture: OpenPicture, pages: list[TiffPage]) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    page, *others = pages
    if any(other.size == page.size for other in others):  # smaller ones are previews
        say_once("pages", f"{picture.name} has {len(pages)} pages, of which the first is read")
    check_pixels(page)
    if page.suits_pillow:
        with contextlib.suppress(UnidentifiedImageError, OSError, SyntaxError, KeyError):
            picture.file.seek(0)
            with Image.open(picture.file) as image:
                image.seek(page.place)
                image.load()  # turns it upright
                return _rgb_of_upright(image)
    return _rgb_of_numbers(page)


def _rgb_of_numbers(page: TiffPage) -> np.ndarray:
    bands, photometric = page.bands - page.has_alpha, page.photometric
    kind = f"it is a TIFF of {page.kind}"
    if photometric not in ("minisblack", "miniswhite", "rgb", "palette", "separated"):
        raise UnreadablePicture(f"{kind}; a photo is grey, RGB, CMYK or has a palette: convert it to RGB")
    if photometric in ("minisblack", "miniswhite") and bands <= 2:
        grey = page.numbers()[:, :, 0]
        return _checked(kind, lambda: as_rgb(inverted(grey, page.bits) if photometric == "miniswhite" else grey))
    if photometric == "palette":
        if page.palette is None:
            raise UnreadablePicture(f"{kind}, without colours")
        return page.palette[page.numbers()[:, :, 0]]
    wanted = 4 if photometric == "separated" else 3
    if bands < wanted or (photometric != "rgb" and page.bands > 4):
        raise UnreadablePicture(
            f"{kind}; a photo has 1 band (grey), 3 (RGB) or 4 (with alpha, CMYK): write the three bands that are to "
            "be shown as red, green and blue to a file of their own"
        )
    colours = page.numbers()[:, :, :wanted]
    if np.issubdtype(colours.dtype, np.unsignedinteger):
        if page.bits < 8:
            raise UnreadablePicture(f"{kind}; convert it to 8 bits a band")
        colours = (colours >> (page.bits - 8)).astype(np.uint8)
    elif np.issubdtype(colours.dtype, np.signedinteger):
        raise UnreadablePicture(f"{kind}; colours are unsigned whole numbers, or floats in [0, 1]: convert them")
    rgb = _checked(kind, lambda: _to_uint8(colours))
    if photometric == "separated":
        from PIL import Image

        return np.asarray(Image.frombytes("CMYK", rgb.shape[1::-1], np.ascontiguousarray(rgb).tobytes()).convert("RGB"))
    return np.ascontiguousarray(rgb)


def _checked(kind: str, convert: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        return convert()
    except ValueError as error:
        raise UnreadablePicture(f"{kind}: {error}") from error


def inverted(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of which 0 is white, as those of which 0 is black; signed and fractional ones have no white and stay."""
    if np.issubdtype(numbers.dtype, np.unsignedinteger):
        return numbers.dtype.type(2**bits - 1) - numbers
    return ~numbers if numbers.dtype == bool else numbers


def check_pixels(page: TiffPage) -> None:
    """Raises Pillow's DecompressionBombError for twice as many pixels as it warns of, as Pillow does."""
    from PIL import Image

    height, width = page.size
    if Image.MAX_IMAGE_PIXELS is not None and height * width > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"it has {width} x {height} pixels, more than twice as many as are expected")


def _seekable(file: Any) -> Any:
    try:
        file.seek(0)
    except (AttributeError, io.UnsupportedOperation):
        return io.BytesIO(file.read())
    return file


_said: set[str] = set()


def say_once(topic: str, message: str) -> None:
    """Logs a warning, the first time that this process comes upon the topic."""
    if topic not in _said:
        _said.add(topic)
        _log.warning("%s (said once)", message)
