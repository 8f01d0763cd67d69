"""Large photos as tiles: JPEG pictures of 512 pixels a side, of the photo and of its halves, quarters and so on.

Level 0 is the photo, each further level has half the sides of the one before, rounded up; the last fits one tile.
"""

import io
import threading

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from samjax.app.library import Library, OpenPhoto
from samjax.app.sized_cache import SizedCache
from samjax.transforms import Size

SIDE = 512  # pixels of a tile; those at the right and lower edge are smaller
THUMBNAIL = 160  # pixels of its longer side
_QUALITY = 90
_STRIP = 1024  # rows that are halved at once, even
_TILE_MEMORY = 128_000_000  # bytes of JPEG
_LEVEL_MEMORY = 256_000_000  # bytes of halved photos


def level_count(size: Size) -> int:
    """The number of levels of a photo of `size` (height, width)."""
    count = 1
    while max(size) > SIDE:
        size, count = halved_size(size), count + 1
    return count


def halved_size(size: Size) -> Size:
    """Half of (height, width), rounded up."""
    return -(-size[0] // 2), -(-size[1] // 2)


def halved(rgb: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Every square of two by two pixels as their mean; at odd edges, of those that there are."""
    height, width = halved_size(rgb.shape[:2])
    half = np.empty((height, width, 3), np.uint8)
    for first in range(0, rgb.shape[0], _STRIP):  # Pillow has four bytes a pixel, and need not have them of all
        strip = Image.fromarray(rgb[first : first + _STRIP]).reduce(2)
        half[first // 2 : first // 2 + strip.height] = np.asarray(strip)
    return half


class Tiles:
    """Tiles and thumbnails of a library's photos, made when they are asked for."""

    def __init__(self, library: Library, *, tile_memory: int = _TILE_MEMORY, level_memory: int = _LEVEL_MEMORY) -> None:
        self._library = library
        self._tiles: SizedCache[bytes] = SizedCache(tile_memory)
        self._levels: SizedCache[np.ndarray] = SizedCache(level_memory)
        self._halving = threading.Lock()

    def tile(self, id: str, level: int, column: int, row: int) -> tuple[bytes, str]:
        """A tile as JPEG, and the photo's hash. Raises IndexError if there is none at this place, and as
        `Library.read` does."""
        facts = self._library.facts(id)
        key = facts.hash, level, column, row
        if (kept := self._tiles.get(key)) is not None:
            return kept, facts.hash
        if not 0 <= level < level_count(facts.size):
            raise IndexError(f"level {level} of {level_count(facts.size)}")
        size = facts.size
        for _ in range(level):
            size = halved_size(size)
        if not (0 <= column * SIDE < size[1] and 0 <= row * SIDE < size[0]):
            raise IndexError(f"tile ({column}, {row}) of a level of {size[1]} x {size[0]} pixels")
        picture = self._level(self._library.read(id), level)
        part = picture[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        tile = _jpeg(part)
        self._tiles.put(key, tile, len(tile))
        return tile, facts.hash

    def thumbnail(self, id: str) -> tuple[bytes, str]:
        """A small picture as JPEG, and the photo's hash. Raises as `Library.read` does."""
        facts = self._library.facts(id)
        key = facts.hash, "thumbnail"
        if (kept := self._tiles.get(key)) is not None:
            return kept, facts.hash
        photo = self._library.read(id)
        level = 0
        while max(photo.size) >> level >= 4 * THUMBNAIL and level + 1 < level_count(photo.size):
            level += 1
        picture = Image.fromarray(self._level(photo, level))
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        small = _jpeg(np.asarray(picture))
        self._tiles.put(key, small, len(small))
        return small, facts.hash

    def _level(self, photo: OpenPhoto, level: int) -> np.ndarray:
        if level == 0:
            return photo.rgb
        if (kept := self._levels.get((photo.hash, level))) is not None:
            return kept
        with self._halving:
            picture = photo.rgb
            for number in range(1, level + 1):
                kept = self._levels.get((photo.hash, number))
                picture = halved(picture) if kept is None else kept
                if kept is None:
                    self._levels.put((photo.hash, number), picture, picture.nbytes)
            return picture


def _jpeg(rgb: UInt8[np.ndarray, "H W 3"]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(data, "JPEG", quality=_QUALITY)
    return data.getvalue()
