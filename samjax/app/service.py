"""A model's answers to those who click: embeddings, answers to steps, masks, everything in a photo.

A service belongs to one thread at a time, the queue's (`samjax.app.queue`); it keeps nothing that it could not compute
again.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from samjax import transforms
from samjax.amg.config import GenerationConfig
from samjax.amg.generator import MaskGenerator
from samjax.app.drawn import drawn_mask
from samjax.app.embeddings import BoundedStore
from samjax.app.library import KnownPhoto, OpenPhoto, PhotoChanged
from samjax.app.sized_cache import SizedCache
from samjax.app.steps import BadRequest, Step, steps_to_json
from samjax.ops.rle import RLE, encode_placed, rle_area, rle_box
from samjax.sam import Sam
from samjax.transforms import Size
from samjax.types import Embedding, Prompts
from samjax.writers.outlines import outline

_EMBEDDINGS, _ANSWERS, _FOUND = 256_000_000, 128_000_000, 128_000_000  # bytes in memory
_POINTS_ON_CPU = 32  # of a batch of the search for everything
MaskPrompt = Float32[np.ndarray, "h w"]  # the model's mask input
Read = Callable[[], OpenPhoto]  # gives the photo's pixels, if they are needed
Ring = list[list[float]]  # [x, y] in pixels of the photo; pixel (0, 0) covers [0, 1] x [0, 1]


class Answer(NamedTuple):
    """The model's answer to a step: M masks."""

    logits: Float32[np.ndarray, "M h w"]  # LOW-RES
    iou: Float32[np.ndarray, " M"]


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """A model as files and pages name it."""

    name: str
    checksum: str  # `samjax.embeddings.model_hash`
    dtype: str
    image_size: Size
    masks: int  # answers to an ambiguous prompt


@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask at the photo's size or, for the screen, at a smaller one; all but `rle` is in pixels of the photo,
    pixel (0, 0) covering [0, 1] x [0, 1]."""

    rle: RLE  # of the size that it was made at
    iou: float
    size: Size  # (height, width) of the photo

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the photo per pixel of the mask, (x, y)."""
        height, width = self.rle["size"]
        return self.size[1] / width, self.size[0] / height

    @property
    def area(self) -> int:
        """Pixels."""
        across, down = self.scale
        return round(rle_area(self.rle) * across * down)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1), the edges of its pixels, as of `polygons`; zeros for an empty mask. As the box of a step,
        which names pixels, it is half a pixel less."""
        x, y, width, height = rle_box(self.rle)
        across, down = self.scale
        return x * across, y * down, (x + width) * across, (y + height) * down

    def polygons(self, tolerance: float | None = None) -> list[list[Ring]]:
        """Its parts, each as an outer ring and holes. `tolerance`, in pixels of the photo, is how far a simplified
        outline may leave the true one, by default half a pixel of the mask."""
        scale = np.array(self.scale)
        limit = 0.5 if tolerance is None else tolerance / scale.max()
        return [
            [np.round(np.asarray(ring.coords)[:-1] * scale, 2).tolist() for ring in (part.exterior, *part.interiors)]
            for part in outline(self.rle, limit)
        ]


class Service:
    """The functions of one model.

    Args:
        sam: the model.
        name: what it is called.
        store: embeddings on disk; None keeps them in memory alone.
    """

    def __init__(self, sam: Sam, name: str, store: BoundedStore) -> None:
        self.sam, self._store = sam, store
        config = sam.config
        self.model = ModelInfo(
            name, store.model_hash, sam.execution.compute_dtype, config.image_size, config.multimask_answers
        )
        self.encode_seconds: float | None = None  # that the last photo took
        self._embeddings: SizedCache[Embedding] = SizedCache(_EMBEDDINGS)
        self._answers: SizedCache[Answer] = SizedCache(_ANSWERS)
        self._found: SizedCache[list[dict[str, Any]]] = SizedCache(_FOUND)
        self._sizes: set[tuple[Size, Size | None]] = set()

    def is_embedded(self, hash: str) -> bool:
        """True if a photo's embedding need not be computed."""
        return hash in self._embeddings or self._store.has(hash)

    def embed(self, photo: KnownPhoto, read: Read) -> Embedding:
        """A photo's embedding: from memory, from disk, or computed and kept in both. Raises PhotoChanged."""
        if (kept := self._embeddings.get(photo.hash)) is not None:
            return kept
        embedding = self._store.get(photo.hash)
        if embedding is None:
            rgb = _pixels(photo, read)
            start = time.perf_counter()
            embedding = jax.block_until_ready(self.sam.encode(rgb))
            self.encode_seconds = time.perf_counter() - start
            self._store.put(photo.hash, embedding)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(embedding))
        self._embeddings.put(photo.hash, embedding, size)
        return embedding

    def answer(self, photo: KnownPhoto, read: Read, steps: Sequence[Step]) -> Answer:
        """The answer to the last of an object's steps, each earlier one that it refines computed first.

        Answers are kept by the photo and all steps that decide them, so that a further click costs one run of the
        decoder. Raises BadRequest for points outside the photo, masks that are none of this photo, and choices among
        more answers than there are; and PhotoChanged.
        """
        answering = self.answering(photo, read, steps)
        while True:
            try:
                next(answering)
            except StopIteration as end:
                return end.value

    def answering(
        self, photo: KnownPhoto, read: Read, steps: Sequence[Step], drawn: MaskPrompt | None = None
    ) -> Generator[None, None, Answer]:
        """`answer` in parts, one run of the decoder each; `drawn` is what `drawn` gave for these steps."""
        first = _first_of(steps)
        answer: Answer | None = None
        for number in range(first, len(steps)):
            logits = drawn
            if answer is not None:
                yield
                logits = self.chosen(answer, steps[number - 1])
            answer = self._step(photo, read, steps[first : number + 1], logits)
        assert answer is not None
        self.chosen(answer, steps[-1])
        return answer

    def drawn(self, photo: KnownPhoto, steps: Sequence[Step]) -> MaskPrompt | None:
        """The mask prompt of a drawn mask that the answer to steps begins with; None if there is none, or the answer
        is known. Any thread may ask. Raises BadRequest."""
        first = _first_of(steps)
        mask = steps[first].mask
        if mask is None or self._key(photo, steps[first:]) in self._answers:
            return None
        return transforms.mask_prompt(drawn_mask(mask, photo.size), self.sam.config)

    def chosen(self, answer: Answer, step: Step) -> MaskPrompt:
        """The logits that a step chose. Raises BadRequest."""
        if step.chosen >= len(answer.logits):
            raise BadRequest(f"chosen is {step.chosen}, and there are {len(answer.logits)} answer(s), counted from 0")
        return answer.logits[step.chosen]

    def _step(self, photo: KnownPhoto, read: Read, steps: Sequence[Step], logits: MaskPrompt | None) -> Answer:
        key = self._key(photo, steps)
        if (kept := self._answers.get(key)) is not None:
            return kept
        step = steps[-1]
        _check_inside(step, photo.size)
        if step.mask is not None and logits is None:
            logits = transforms.mask_prompt(drawn_mask(step.mask, photo.size), self.sam.config)
        points = [[point[:2] for point in step.points]] if step.points else None
        labels = [[point[2] for point in step.points]] if step.points else None
        prompts = Prompts.of(points, labels, [step.box] if step.box else None, [logits] if logits is not None else None)
        prediction = self.sam.predict(self.embed(photo, read), prompts, multimask=step.multimask)
        answer = Answer(np.asarray(prediction.logits)[0], np.asarray(prediction.iou)[0])
        self._answers.put(key, answer, answer.logits.nbytes + len(key[1]))
        return answer

    @staticmethod
    def _key(photo: KnownPhoto, steps: Sequence[Step]) -> tuple[str, str]:
        asked = (*steps[:-1], dataclasses.replace(steps[-1], chosen=0))  # the choice comes after the answer
        return photo.hash, json.dumps(steps_to_json(asked))

    def masks(
        self, size: Size, answer: Answer, *, max_side: int | None = None, only: Sequence[int] | None = None
    ) -> list[Mask]:
        """The masks of an answer, `only` some of them, for a photo of `size` (height, width): as `Sam.masks` makes
        them, or with `max_side`, for the screen, of the whole photo at a size of at most that side."""
        numbers = range(len(answer.iou)) if only is None else only
        shown = screen_size(size, max_side)
        upscaled = (
            transforms.upscale_masks(answer.logits[number], size, self.sam.config, size=shown) for number in numbers
        )
        return [
            Mask(_encoded(mask), float(answer.iou[number]), size)
            for number, mask in zip(numbers, upscaled, strict=True)
        ]

    def everything(
        self, photo: KnownPhoto, read: Read, config: GenerationConfig, progress: Callable[[float], None]
    ) -> list[dict[str, Any]]:
        """Records (`samjax.amg.records`) of everything in a photo, kept by the photo and the settings. Raises
        PhotoChanged."""
        if (kept := self.found(photo, config)) is not None:
            return kept
        # Few points together are as fast on a CPU, and the pauses come sooner.
        batch = _POINTS_ON_CPU if self.sam.execution.platform == "cpu" else config.points_per_batch
        generator = MaskGenerator(self.sam, dataclasses.replace(config, points_per_batch=batch))
        records = generator.generate(_pixels(photo, read), progress=progress)
        size = sum(len(record["segmentation"]["counts"]) + 500 for record in records)
        self._found.put(self._found_key(photo, config), records, size)
        return records

    def found(self, photo: KnownPhoto, config: GenerationConfig) -> list[dict[str, Any]] | None:
        """The records of `everything` in a photo, if they are still kept. Any thread may ask."""
        return self._found.get(self._found_key(photo, config))

    def _found_key(self, photo: KnownPhoto, config: GenerationConfig) -> tuple[str, str]:
        return photo.hash, json.dumps(config.with_thresholds(self.sam.thresholds).journal_key())

    def warming(self) -> list[Callable[[], object]]:
        """Calls that compile the programs of clicks: the encoder, and the decoder for few and more points, with
        and without a mask."""
        blank = np.zeros((64, 64, self.sam.config.channels), np.uint8)
        found: list[Embedding] = []

        def encode() -> None:
            self.sam.encode(blank)
            start = time.perf_counter()
            found.append(jax.block_until_ready(self.sam.encode(blank)))
            self.encode_seconds = time.perf_counter() - start

        def decode(points: int, masked: bool, multimask: bool) -> None:
            logits = [np.zeros(self.sam.config.mask_size, np.float32)] if masked else None
            self.sam.predict(found[0], Prompts.of([[(1, 1)] * points], None, None, logits), multimask=multimask)

        kinds = [(points, masked, flag) for points in (1, 4, 8) for masked in (False, True) for flag in (True, False)]
        return [encode, *(functools.partial(decode, *kind) for kind in kinds)]

    def warm(self, size: Size, max_sides: Sequence[int] = (2048, 1024)) -> None:
        """Compiles what masks of a photo of this size need for the screen."""
        for side in max_sides:
            shown = screen_size(size, side)
            if (size, shown) not in self._sizes:
                self._sizes.add((size, shown))
                logits = np.zeros(self.sam.config.mask_size, np.float32)
                transforms.upscale_masks(logits, size, self.sam.config, size=shown)


def _first_of(steps: Sequence[Step]) -> int:
    """The step that the answer to the last one begins with."""
    return max(number for number, step in enumerate(steps) if not step.refine)


def _pixels(photo: KnownPhoto, read: Read) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels that were asked about: what is computed of others must not be kept as this photo's."""
    opened = read()
    if opened.hash != photo.hash:
        raise PhotoChanged(f"{photo.name} has changed since it was asked about: open it again")
    return opened.rgb


def _encoded(mask: Bool[np.ndarray, "H W"]) -> RLE:
    """`encode_rle` of a mask; of a large photo only the part with foreground is gone through run by run."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return encode_placed(mask[:1, :1], (0, 0), mask.shape)
    y, x = rows[0], columns[0]
    return encode_placed(mask[y : rows[-1] + 1, x : columns[-1] + 1], (int(x), int(y)), mask.shape)


def screen_size(size: Size, max_side: int | None) -> Size | None:
    """The (height, width) of a photo of `size` in which no side is longer than `max_side`; None if it is its own."""
    if max_side is None or max(size) <= max_side:
        return None
    scale = max_side / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _check_inside(step: Step, size: Size) -> None:
    """Integers name pixels, so that the photo's edges are at -0.5 and half a pixel below its sides. The far corner of a
    box may also be at the sides themselves: so end boxes that count edges, those of answers among them."""
    height, width = size
    corners = [step.box[:2]] if step.box else []
    for x, y in (*(point[:2] for point in step.points), *corners):
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise _outside(x, y, size)
    if step.box and not (step.box[2] <= width and step.box[3] <= height):
        raise _outside(*step.box[2:], size)


def _outside(x: float, y: float, size: Size) -> BadRequest:
    height, width = size
    return BadRequest(
        f"({x:g}, {y:g}) lies outside the photo, which has {width} x {height} pixels: integers name pixels, from "
        f"(0, 0) to ({width - 1}, {height - 1})"
    )
