"""TIFF files as the numbers that are stored in them, whatever their type, layout and compression."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from samjax import lossy

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF's
# Parts of the names of compressions that lose numbers, or may. Of some the first compressed bytes say whether they do.
_LOSSY = ("jpeg", "webp", "jp2000", "jpegxr", "jetraw", "eer")
_TELLING = {"jpeg": lossy.jpeg, "webp": lossy.webp, "jpeg2000": lossy.jpeg_2000}
_REDUCED_OR_MASK = 1 | 4  # of NewSubfileType: a smaller copy of another page, or what of it is transparent
_ORIENTATION, _PALETTE, _XMP, _LERC = 274, 320, 700, 50674  # tags


class UnreadablePicture(ValueError):
    """A picture that is not what was asked for; `samjax.pictures.opened` puts the file's name in front."""


@dataclasses.dataclass(frozen=True)
class TiffPage:
    """One page. Size and numbers are turned upright by the file's orientation."""

    place: int  # among all of the file's pages
    size: tuple[int, int]  # (height, width)
    bands: int
    dtype: np.dtype
    bits: int  # a number's, e.g. 12 of a uint16
    photometric: str  # "minisblack", "miniswhite", "rgb", "palette", "separated" (CMYK), "ycbcr", "cielab", ...
    planar: bool  # each band is stored by itself
    has_alpha: bool  # the last band is opacity
    compression: str  # "none", "lzw", ...
    palette: np.ndarray | None  # (colours, 3), 8 bits each
    is_turned_by_xmp: bool  # has no orientation of its own, but there is one in its XMP, which Pillow minds
    is_part: bool  # a smaller copy of another page, or its mask of transparency
    _orientation: int
    _loss: Callable[[], str | None]
    _decoded: Callable[[], np.ndarray]

    @property
    def kind(self) -> str:
        """A description for messages: "3 bands of uint16 (rgb, planar, lzw)"."""
        packed = f" ({self.bits} bits)" if self.bits not in (1, 8 * self.dtype.itemsize) else ""
        bands = "1 band" if self.bands == 1 else f"{self.bands} bands"
        words = [self.photometric, *(["planar"] if self.planar else []), f"compression {self.compression}"]
        return f"{bands} of {self.dtype}{packed} ({', '.join(words)})"

    @property
    def suits_pillow(self) -> bool:
        """True if Pillow reads the page as it should: unsigned numbers of at most 8 bits."""
        return self.bits <= 8 and self.dtype in (np.uint8, np.bool_)

    @functools.cached_property
    def lossy(self) -> str | None:
        """The compression that does not keep numbers, or may not have: "jpeg compression, which is lossy"."""
        return self._loss()

    def numbers(self) -> np.ndarray:
        """(H, W, bands) as they are stored, in the machine's byte order. Raises `UnreadablePicture`."""
        try:
            found = self._decoded()
        except MemoryError:
            raise
        except Exception as error:  # tifffile and its codecs raise many kinds
            raise UnreadablePicture(f"it is a TIFF of {self.kind}, which cannot be decoded: {error}") from error
        if found.ndim == 2:
            found = found[:, :, None]
        elif self.planar and found.ndim == 3:
            found = np.moveaxis(found, 0, -1)
        if found.ndim != 3:
            raise UnreadablePicture(f"it is a TIFF of {self.kind} with {found.ndim} axes; expected rows and columns")
        turned = _upright(found, self._orientation)
        native = turned.astype(turned.dtype.newbyteorder("="), copy=False)
        return native.view(np.dtype(native.dtype.str))  # C has two names for numbers of 64 bits, NumPy one


@contextlib.contextmanager
def tiff_pages(file: Any) -> Iterator[list[TiffPage]]:
    """The pages of an open file, without smaller copies of others; there is at least one.

    Raises `UnreadablePicture`.
    """
    import tifffile

    try:
        file.seek(0)  # tifffile takes what is before for another file's
        tiff = tifffile.TiffFile(file)
        pages = [_described(tiff.pages[place], place) for place in range(len(tiff.pages))]
        full = [page for page in pages if not page.is_part]
        if not full and any(tiff.pages[page.place].subifds for page in pages):
            raise UnreadablePicture("it is a TIFF of previews only (a camera's raw file?): convert it to PNG or TIFF")
        full = full or pages[:1]
        if len(pages) == 1 and (tiff.is_imagej or tiff.is_shaped or tiff.pages.first.is_stk):
            full = _layers(tiff, full[0])
    except (MemoryError, UnreadablePicture):
        raise
    except Exception as error:  # tifffile raises many kinds for broken files
        raise UnreadablePicture(f"it is a TIFF whose structure cannot be read: {error}") from error
    if not full:
        raise UnreadablePicture("it is a TIFF without a picture")
    yield full


def _described(page: Any, place: int) -> TiffPage:
    page = page.aspage()
    orientation = int(page.tags.valueof(_ORIENTATION, 1) or 1)
    size = page.imagelength, page.imagewidth
    bits = page.bitspersample
    extra = page.extrasamples
    return TiffPage(
        place=place,
        size=size[::-1] if orientation in (5, 6, 7, 8) else size,
        bands=page.samplesperpixel,
        dtype=np.dtype(page.dtype) if page.dtype is not None else np.dtype(np.void),
        bits=max(bits) if isinstance(bits, tuple) else int(bits),
        photometric=_name(page.photometric),
        planar=page.samplesperpixel > 1 and int(page.planarconfig) == 2,
        has_alpha=bool(extra) and int(extra[-1]) in (1, 2),
        compression=_name(page.compression),
        palette=_palette(page),
        is_turned_by_xmp=_ORIENTATION not in page.tags and b"Orientation" in bytes(page.tags.valueof(_XMP, b"")),
        is_part=bool(page.subfiletype & _REDUCED_OR_MASK),
        _orientation=orientation,
        _loss=functools.partial(_loss, page),
        _decoded=page.asarray,
    )


def _loss(page: Any) -> str | None:
    name = _name(page.compression)
    if name == "lerc":
        packing = (*page.tags.valueof(_LERC, (0, 0)), 0, 0)[1]
        loses = any(lossy.lerc(data, packing) for data in _compressed(page))
        return "lerc compression with an error of its own, which is lossy" if loses else None
    if not any(part in name for part in _LOSSY):
        return None
    if name not in _TELLING:
        return f"{name} compression, which is lossy or may be"
    return f"{name} compression, which is lossy" if any(map(_TELLING[name], _compressed(page))) else None


def _compressed(page: Any) -> Iterator[bytes]:
    """Strips or tiles as they are stored."""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count:  # what is left out of sparse files has none
            page.parent.filehandle.seek(offset)
            yield page.parent.filehandle.read(count)


def _palette(page: Any) -> np.ndarray | None:
    colours = page.tags.valueof(_PALETTE)
    if _name(page.photometric) != "palette" or colours is None:
        return None
    return (np.asarray(colours).reshape(3, -1).T >> 8).astype(np.uint8)


def _layers(tiff: Any, page: TiffPage) -> list[TiffPage]:
    """The pages that one directory stands for, as in ImageJ's large stacks."""
    series, shape = tiff.series[0], tiff.pages.first.shape
    count = series.size // max(tiff.pages.first.size, 1)
    if count <= 1:
        return [page]
    stack = functools.cache(series.asarray)
    return [
        dataclasses.replace(page, _decoded=lambda layer=layer: stack().reshape(count, *shape)[layer])
        for layer in range(count)
    ]


def _name(value: Any) -> str:
    return getattr(value, "name", f"number {value}").lower()


def _upright(numbers: np.ndarray, orientation: int) -> np.ndarray:
    """Turned as TIFF's Orientation says, which is EXIF's."""
    turn = {
        2: np.fliplr,
        3: functools.partial(np.rot90, k=2),
        4: np.flipud,
        5: functools.partial(np.swapaxes, axis1=0, axis2=1),
        6: functools.partial(np.rot90, k=-1),
        7: lambda array: np.rot90(np.swapaxes(array, 0, 1), k=2),
        8: np.rot90,
    }.get(orientation)
    return numbers if turn is None else turn(numbers)
