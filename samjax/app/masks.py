"""Exact masks for what is kept: of steps, and of the search for everything."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from samjax.app.library import Library
from samjax.app.predicting import Shape
from samjax.app.queue import DeviceQueue, Job
from samjax.app.searching import Search, Searching, generation_config
from samjax.app.service import Service
from samjax.app.steps import BadRequest, Step
from samjax.ops.rle import RLE


class ExactMasks:
    """Masks at the photo's size with their predicted IoU. Waits in the queue like any request.

    Args:
        client: names whose request this is; by that, clients take turns.
    """

    def __init__(self, library: Library, service: Service, queue: DeviceQueue, client: Callable[[], str]) -> None:
        self._library, self._service, self._queue, self._client = library, service, queue, client
        self._searching = Searching(library, service, queue)

    def mask_of(self, photo: str, steps: Sequence[Step]) -> tuple[RLE, float]:
        """The mask that the last of the steps chose. Raises BadRequest, `samjax.app.queue.Busy`, and as
        `Library.facts` does."""
        facts = self._library.facts(photo)

        def work(_: Job) -> tuple[RLE, float]:
            answer = self._service.answer(facts, lambda: self._library.read(photo), steps)
            (mask,) = self._service.masks(facts.size, answer, only=[steps[-1].chosen])
            return mask.rle, mask.iou

        return self._queue.submit(self._client(), work).future.result()

    def everything_mask(self, photo: str, config: Mapping[str, Any], index: int) -> tuple[RLE, float]:
        """Mask number `index` of everything in a photo. Raises BadRequest if there are fewer, and as `mask_of`."""
        facts = self._library.facts(photo)
        settings = generation_config(config).with_thresholds(self._service.sam.thresholds)
        records = self._service.found(facts, settings)
        if records is None:
            self._searching.submit(self._client(), Search(facts, settings, Shape())).future.result()
            records = self._service.found(facts, settings) or []
        if not 0 <= index < len(records):
            raise BadRequest(f"there are {len(records)} masks with these settings, and no number {index}")
        return records[index]["segmentation"], records[index]["predicted_iou"]
