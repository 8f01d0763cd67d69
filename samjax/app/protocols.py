"""What the work on photos needs of the library and the model, so that neither is loaded for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from samjax.app.steps import Step
from samjax.app.waiting import IsGone
from samjax.ops.rle import RLE
from samjax.readers.record import Record
from samjax.transforms import Size


@runtime_checkable
class Entry(Protocol):
    """A photo of a library that may not have been read."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str:
        """Where it is in the library, with / between folders."""
        ...

    @property
    def path(self) -> Path | None:
        """None if it is no file."""
        ...


@runtime_checkable
class Photo(Entry, Protocol):
    """A photo with facts that are known without its pixels."""

    @property
    def size(self) -> Size: ...
    @property
    def hash(self) -> str:
        """`samjax.pictures.image_hash`"""
        ...


@runtime_checkable
class Pixels(Photo, Protocol):
    """A photo that was read."""

    @property
    def rgb(self) -> UInt8[np.ndarray, "H W 3"]: ...


@runtime_checkable
class Library(Protocol):
    """The photos of a session, by id; all methods but the first raise errors of the library's own."""

    def photos(self) -> Sequence[Entry]: ...
    def facts(self, id: str) -> Photo: ...
    def read(self, id: str) -> Pixels: ...
    def record(self, id: str) -> Record | None:
        """The annotations of a photo that is a record of a source."""
        ...


@runtime_checkable
class Masks(Protocol):
    """The model, as far as the work on photos needs it: masks of the photo's size, with their scores.
    They are waited for until `is_gone`; both raise an error of the application's if the photo has changed since."""

    async def mask_of(self, photo: Photo, steps: Sequence[Step], is_gone: IsGone) -> tuple[RLE, float]:
        """The mask chosen in the last step."""
        ...

    async def everything_mask(
        self, photo: Photo, config: Mapping[str, Any], index: int, is_gone: IsGone
    ) -> tuple[RLE, float]:
        """One of the masks that the search for everything finds. Raises BadRequest if there are fewer."""
        ...
