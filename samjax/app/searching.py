"""Everything in a photo, from the request's JSON to masks as JSON."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from samjax.amg.config import GenerationConfig
from samjax.app.library import KnownPhoto, Library
from samjax.app.predicting import Shape
from samjax.app.queue import DeviceQueue, Job
from samjax.app.service import Mask, Service
from samjax.app.steps import BadRequest

_WHOLE = {"points_per_side": 128, "crop_n_layers": 3, "crop_n_points_downscale_factor": 16}  # and the most of each
_PIXELS = ("min_mask_region_area", "tile", "overlap")
_NUMBERS = (
    *("pred_iou_thresh", "stability_score_thresh", "stability_score_offset", "box_nms_thresh", "crop_nms_thresh"),
    *("crop_overlap_ratio", "containment_thresh"),
)
_OPTIONAL = ("pred_iou_thresh", "stability_score_thresh", "stability_score_offset", "tile", "overlap")
_LEAST_TILE, _MOST_PIXELS = 64, 100_000_000


@dataclasses.dataclass(frozen=True)
class Search:
    """A checked request for everything in a photo."""

    photo: KnownPhoto
    config: GenerationConfig  # with the model's thresholds where none were given
    shape: Shape

    @property
    def config_json(self) -> dict[str, Any]:
        """The settings that decide which masks come out; `generation_config` reads them."""
        return self.config.journal_key()


class Searching:
    """Checks requests, searches in the queue, describes what is found."""

    def __init__(self, library: Library, service: Service, queue: DeviceQueue) -> None:
        self._library, self._service, self._queue = library, service, queue

    def checked(self, given: Mapping[str, Any]) -> Search:
        """A request from its JSON. Raises BadRequest, and as `Library.facts` does."""
        fields = ("photo", "config", "format", "tolerance")
        if unknown := sorted(set(given) - set(fields)):
            raise BadRequest(f"there is no {', '.join(unknown)[:100]} here; the fields are {', '.join(fields)}")
        if not isinstance(given.get("photo"), str):
            raise BadRequest("photo is the id of a photo")
        config = generation_config(given.get("config", {})).with_thresholds(self._service.sam.thresholds)
        shape = Shape.of(given)
        return Search(self._library.facts(given["photo"]), config, shape)

    def submit(self, client: str, search: Search, progress: Callable[[float], None] | None = None) -> Job:
        """Queues a search, whose result is a list of masks with their stability. Raises `samjax.app.queue.Busy`."""

        def work(job: Job) -> list[tuple[Mask, float]]:
            def pause(share: float) -> None:
                if progress is not None:
                    progress(share)
                job.pause()

            records = self._service.everything(
                search.photo, lambda: self._library.read(search.photo.id), search.config, pause
            )
            return [
                (Mask(record["segmentation"], record["predicted_iou"], search.photo.size), record["stability_score"])
                for record in records
            ]

        return self._queue.submit(client, work, kind="long")

    def json(self, search: Search, index: int, mask: Mask, stability: float) -> dict[str, Any]:
        """A mask that was found, as JSON."""
        return {"index": index, "stability": round(stability, 6), **search.shape.json(mask)}


def generation_config(given: Any) -> GenerationConfig:
    """Settings from their JSON: fields of `GenerationConfig` that decide which masks come out. Raises BadRequest."""
    if not isinstance(given, Mapping):
        raise BadRequest("config is a JSON object")
    names = ("nms", *_WHOLE, *_PIXELS, *_NUMBERS)
    if unknown := sorted(set(given) - set(names)):
        raise BadRequest(
            f"config has no {', '.join(map(str, unknown))[:100]}; its fields are {', '.join(sorted(names))}"
        )
    settings = {name: _checked(name, value) for name, value in given.items()}
    if settings.get("tile") is not None and settings["tile"] < _LEAST_TILE:
        raise BadRequest(f"tile is a number of pixels from {_LEAST_TILE}, got {settings['tile']}")
    try:
        return GenerationConfig(**settings)
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _checked(name: str, value: Any) -> Any:
    """A setting of the right type. Raises BadRequest."""
    if value is None and name in _OPTIONAL:
        return None
    if name in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise BadRequest(f"{name} is a number, got {str(value)[:40]}")
        return float(value)
    if name == "nms":
        return str(value)
    most = _WHOLE.get(name, _MOST_PIXELS)
    if type(value) is not int or not 0 <= value <= most:
        raise BadRequest(f"{name} is a whole number from 0 to {most}, got {str(value)[:40]}")
    return value
