"""The three parts of an evaluation: a data set gives photos with objects, a segmenter answers prompts, a protocol asks.

Everything here is in the ORIGINAL frame: (x, y) in pixels of the photo, integers name pixels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from samjax.ops.rle import RLE
from samjax.readers.left_out import Problem
from samjax.readers.record import Click


@dataclasses.dataclass(frozen=True)
class Object:
    """An annotated object of a photo."""

    mask: RLE
    id: int | str  # unique in its photo
    category: int | None = None
    ignore: RLE | None = None  # pixels that are not judged: void, crowds, unlabelled borders
    clicks: tuple[Click, ...] = ()  # those of the person who made it, in order, where they were recorded


@dataclasses.dataclass(frozen=True)
class Sample:
    """One photo with its objects."""

    name: str  # unique in its data set; a result is kept under it
    rgb: UInt8[np.ndarray, "H W 3"]
    objects: tuple[Object, ...]
    left_out: tuple[Problem, ...] = dataclasses.field(default=(), kw_only=True)  # annotations that are no objects
    noted: tuple[Problem, ...] = dataclasses.field(default=(), kw_only=True)  # flaws of annotations that are


@runtime_checkable
class Dataset(Protocol):
    """Random access to samples, from any thread."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The sample's name, without reading it."""
        ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The prompt for one object: at least points or a box."""

    points: Float32[np.ndarray, "T 2"] | None = None
    labels: Int[np.ndarray, " T"] | None = None  # 1 on the object, 0 beside it
    box: Float32[np.ndarray, "4"] | None = None  # x0, y0, x1, y1
    logits: Float32[np.ndarray, "h w"] | None = None  # low-resolution logits of an earlier answer, as mask prompt


@dataclasses.dataclass(frozen=True)
class Answer:
    """M masks for one prompt: three for an ambiguous one, else one."""

    masks: Bool[np.ndarray, "M H W"]
    iou: Float32[np.ndarray, " M"]  # predicted
    logits: Float32[np.ndarray, "M h w"]  # low resolution; what a next prompt may carry

    @property
    def best(self) -> int:
        """The most confident mask."""
        return int(np.argmax(self.iou))


@runtime_checkable
class Segmenter(Protocol):
    """A model that looks at a few photos at a time and answers any number of prompts about them."""

    images_together: int  # how many photos `look` likes to be given

    def look(self, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> None:
        """Encodes photos; prompts are about them until the next look."""
        ...

    def ask(self, prompts: Sequence[Sequence[Prompt]], *, multimask: bool) -> list[list[Answer]]:
        """Answers to the prompts of each photo, in their order; a photo may have none, and prompts may differ in
        their numbers of points."""
        ...

    def full_logits(self, photo: int, logits: Float32[np.ndarray, "M h w"]) -> Float32[np.ndarray, "M H W"]:
        """Low-resolution logits of an answer about photo number `photo` of the last look, at that photo's size;
        above 0 they are the answer's masks."""
        ...


Judgement = dict[str, Any]  # what a protocol finds out about one photo: JSON


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line to be plotted."""

    label: str
    x: Sequence[float | int]
    y: Sequence[float | int]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A plot, by the name of its file."""

    name: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]


@dataclasses.dataclass(frozen=True)
class Summary:
    """The result of an evaluation."""

    metrics: dict[str, float | int]  # in the order they are shown in; shares from 0 to 1 unless the name says otherwise
    figures: tuple[Figure, ...] = ()
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)  # what no two runs agree on


@runtime_checkable
class EvaluationProtocol(Protocol):
    """A way of asking for masks and judging them. Settings are attributes, fixed for a run."""

    name: str
    asks: bool  # whether it prompts a model; otherwise it judges what is there already, and `segmenter` is None

    def settings(self) -> dict[str, Any]:
        """JSON that decides the results; a run is only resumed with the same."""
        ...

    def judge(self, segmenter: Any, samples: Sequence[Any]) -> list[Judgement]:
        """Judges each of a few samples, `Sample` or what its data set gives; `segmenter` is a `Segmenter` or None."""
        ...

    def summarise(self, records: Sequence[Judgement]) -> Summary:
        """The result over all records of a data set, in the data set's order."""
        ...
