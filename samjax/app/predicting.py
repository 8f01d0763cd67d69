"""Answers to prompts, from the request's JSON to the answer's."""

import dataclasses
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Literal

from samjax.app.library import KnownPhoto, Library, OpenPhoto
from samjax.app.queue import DeviceQueue, Job
from samjax.app.service import Mask, MaskPrompt, Service
from samjax.app.steps import BadRequest, Step, is_finite, steps_from_json

MOST_AT_ONCE = 64  # of a request
MOST_STEPS = 2_000  # of all objects of a request

MaskFormat = Literal["rle", "polygons"]


@dataclasses.dataclass(frozen=True)
class Shape:
    """The form of masks in an answer: run lengths or outlines, exact or at the screen's size."""

    format: MaskFormat = "rle"
    tolerance: float | None = None  # of outlines, pixels of the photo
    max_side: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Shape":
        """From a request's JSON. Raises BadRequest."""
        format = given.get("format", "rle")
        if format not in ("rle", "polygons"):
            raise BadRequest(f"format is rle or polygons, got {str(format)[:40]!r}")
        tolerance, max_side = given.get("tolerance"), given.get("max_side")
        if tolerance is not None and not (is_finite(tolerance) and 0 <= tolerance <= 1_000):
            raise BadRequest(f"tolerance is a number of pixels from 0 to 1000, got {str(tolerance)[:40]}")
        if max_side is not None and not (type(max_side) is int and 64 <= max_side <= 16_384):
            raise BadRequest(f"max_side is a whole number of pixels from 64 to 16384, got {str(max_side)[:40]}")
        return cls(format, None if tolerance is None else float(tolerance), max_side)

    def json(self, mask: Mask) -> dict[str, Any]:
        """A mask as JSON."""
        described = {"iou": round(mask.iou, 6), "area": mask.area, "box": [round(side, 2) for side in mask.box]}
        if self.format == "rle":
            return described | {"rle": mask.rle}
        return described | {"polygons": mask.polygons(self.tolerance)}


@dataclasses.dataclass(frozen=True)
class Asked:
    """A checked request for answers."""

    photo: KnownPhoto
    objects: tuple[tuple[Step, ...], ...]
    drawn: tuple[MaskPrompt | None, ...]  # that each object begins with
    shape: Shape
    preview: bool


@dataclasses.dataclass(frozen=True)
class Answered:
    """Masks of each object, and seconds."""

    objects: list[list[Mask]]
    decode: float
    masks: float


class Predicting:
    """Checks requests, computes in the queue, describes answers.

    Args:
        resolved: of a photo's id and the JSON of steps: the same with the masks of objects in the place of
            {"object": ID}.
    """

    def __init__(
        self,
        library: Library,
        service: Service,
        queue: DeviceQueue,
        resolved: Callable[[str, Any], Any],
    ) -> None:
        self._library, self._service, self._queue, self._resolved = library, service, queue, resolved

    def checked(self, given: Mapping[str, Any]) -> Asked:
        """A request from its JSON; the photo is in memory afterwards, if it has to be encoded. Raises BadRequest, and
        as `Library.read` does."""
        fields = ("photo", "steps", "objects", "format", "tolerance", "max_side", "preview")
        if unknown := sorted(set(given) - set(fields)):
            raise BadRequest(f"there is no {', '.join(unknown)[:100]} here; the fields are {', '.join(fields)}")
        if not isinstance(given.get("photo"), str):
            raise BadRequest("photo is the id of a photo")
        if ("steps" in given) == ("objects" in given):
            raise BadRequest("give steps (of one object) or objects (steps of each)")
        objects = given["objects"] if "objects" in given else [given["steps"]]
        if not isinstance(objects, list) or not 1 <= len(objects) <= MOST_AT_ONCE:
            raise BadRequest(f"objects is a list of the steps of 1 to {MOST_AT_ONCE} objects")
        preview = given.get("preview", False)
        if not isinstance(preview, bool):
            raise BadRequest("preview is true or false")
        shape = Shape.of(given)
        photo = self._library.facts(given["photo"])
        steps = tuple(steps_from_json(self._resolved(photo.id, some)) for some in objects)
        if sum(map(len, steps)) > MOST_STEPS:
            raise BadRequest(f"objects have at most {MOST_STEPS:,} steps together: ask in several requests")
        # Here, and not while others wait for the device:
        drawn = tuple(self._service.drawn(photo, some) for some in steps)
        if not self._service.is_embedded(photo.hash):
            self._library.read(photo.id)
        return Asked(photo, steps, drawn, shape, preview)

    def submit(self, client: str, asked: Asked) -> Job:
        """Queues a request, whose result is `Answered`. Raises `samjax.app.queue.Busy`."""

        def read() -> OpenPhoto:
            return self._library.read(asked.photo.id)

        def work(job: Job) -> Generator[None, None, Answered]:
            masks = 0.0
            objects = []
            for steps, drawn in zip(asked.objects, asked.drawn, strict=True):
                answer = yield from self._service.answering(asked.photo, read, steps, drawn)
                decoded = time.perf_counter()
                objects.append(self._service.masks(asked.photo.size, answer, max_side=asked.shape.max_side))
                masks += time.perf_counter() - decoded
                yield
            return Answered(objects, job.spent() - masks, masks)

        return self._queue.submit(client, work, preview=asked.preview)

    def answer(self, asked: Asked, answered: Answered, job: Job) -> dict[str, Any]:
        """The answer's JSON."""
        start = time.perf_counter()
        objects = [{"answers": [asked.shape.json(mask) for mask in masks]} for masks in answered.objects]
        assert job.started is not None
        seconds = {
            "queued": job.started - job.submitted,
            "decode": answered.decode,
            "masks": answered.masks + time.perf_counter() - start,
        }
        return {"objects": objects, "seconds": {name: round(value, 6) for name, value in seconds.items()}}
