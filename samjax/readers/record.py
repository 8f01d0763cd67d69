"""One photo with its masks, as every source gives it."""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from samjax.ops.rle import RLE, as_text
from samjax.readers.left_out import Problem, Reason, Unusable


class BadRecord(Unusable):
    """A record that cannot be used."""

    def __init__(self, message: str, reason: Reason = Reason.UNREADABLE) -> None:
        super().__init__(message, reason)


class NoObjects(BadRecord):
    """A sound photo in which there is nothing to learn: no flaw of the data."""

    def __init__(self, message: str = "it has no objects", reason: Reason = Reason.NO_OBJECTS) -> None:
        super().__init__(message, reason)


class Click(NamedTuple):
    """A click that a person made: (x, y) in pixels of the ORIGINAL photo as `samjax.Prompts.of` takes them, integers
    naming pixels; `label` is 1 on the object and 0 beside it."""

    x: float
    y: float
    label: int


@dataclasses.dataclass(frozen=True)
class Record:
    """Masks have the photo's size (ORIGINAL frame) and are not empty; crowds and void are not among them.

    A photo whose annotations say that it has no objects is a record without masks. The runs of masks are text: those of
    pycocotools, bytes, are converted.
    """

    name: str  # unique in its source: "sa_1", "train/0001.png"
    rgb: UInt8[np.ndarray, "H W channels"]  # three channels, if the source was opened for no others
    masks: tuple[RLE, ...]
    problems: tuple[Problem, ...] = ()  # annotations that were left out, and why
    ids: tuple[int | str, ...] = ()  # of the masks, unique in the record: an annotation's, a label, a file's name
    categories: tuple[int | None, ...] = ()  # of the masks
    void: RLE | None = None  # where nothing is known: crowds, void pixels
    crowds: tuple[Problem, ...] = ()  # annotations that are part of void
    noted: tuple[Problem, ...] = ()  # flaws of annotations that are used all the same
    origin: str | None = None  # the photo in the data set it was taken from, "coco/000000000139", where that is said
    # Of the masks, in the order in which they were made; none for a mask made without, empty if none are recorded.
    clicks: tuple[tuple[Click, ...], ...] = ()
    classes: tuple[str | None, ...] = ()  # of the masks, the names of their categories; empty if there are no names
    photo: str | None = None  # the file that has it and nothing else, where there is one
    crowds_left_out: int = 0  # when the source was opened, whose `left_out` counts them; they are not among `crowds`

    def __post_init__(self) -> None:
        object.__setattr__(self, "masks", tuple(map(as_text, self.masks)))
        object.__setattr__(self, "void", None if self.void is None else as_text(self.void))


@runtime_checkable
class Source(Protocol):
    """Random access to records, from any thread, and picklable for worker processes."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The record's name, without reading it."""
        ...

    def __getitem__(self, index: int) -> Record:
        """Raises `BadRecord` if there is nothing to use."""
        ...
