"""Exact masks for what is kept: of steps, and of the search for everything."""

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from samjax.app.library import KnownPhoto, Library, PhotoChanged
from samjax.app.predicting import Shape
from samjax.app.protocols import Photo
from samjax.app.queue import DeviceQueue, Job
from samjax.app.searching import Search, Searching, generation_config
from samjax.app.service import Service
from samjax.app.steps import BadRequest, Step
from samjax.app.waiting import IsGone, result_of
from samjax.ops.rle import RLE


class ExactMasks:
    """Masks at the photo's size with their predicted IoU. They wait in the queue like any request, and hold no thread.

    Args:
        client: names whose request this is; by that, clients take turns.
    """

    def __init__(self, library: Library, service: Service, queue: DeviceQueue, client: Callable[[], str]) -> None:
        self._library, self._service, self._queue, self._client = library, service, queue, client
        self._searching = Searching(library, service, queue)

    async def mask_of(self, photo: Photo, steps: Sequence[Step], is_gone: IsGone) -> tuple[RLE, float]:
        """The mask that the last of the steps chose. Raises BadRequest, `samjax.app.queue.Busy` and `GivenUp`,
        PhotoChanged, and as `Library.facts` does."""
        facts = await asyncio.to_thread(self._facts, photo)
        drawn = await asyncio.to_thread(self._service.drawn, facts, steps)

        def work(_: Job) -> Generator[None, None, tuple[RLE, float]]:
            answer = yield from self._service.answering(facts, lambda: self._library.read(facts.id), steps, drawn)
            (mask,) = self._service.masks(facts.size, answer, only=[steps[-1].chosen])
            return mask.rle, mask.iou

        return await result_of(self._queue.submit(self._client(), work), is_gone)

    async def everything_mask(
        self, photo: Photo, config: Mapping[str, Any], index: int, is_gone: IsGone
    ) -> tuple[RLE, float]:
        """Mask number `index` of everything in a photo. Raises BadRequest if there are fewer, and as `mask_of`."""
        facts = await asyncio.to_thread(self._facts, photo)
        settings = generation_config(config).with_thresholds(self._service.sam.thresholds)
        if self._service.found(facts, settings) is None:
            job = self._searching.submit(self._client(), Search(facts, settings, Shape()))
            await result_of(job, is_gone)
        records = self._service.found(facts, settings) or []
        if not 0 <= index < len(records):
            raise BadRequest(f"there are {len(records)} masks with these settings, and no number {index}")
        return records[index]["segmentation"], records[index]["predicted_iou"]

    def _facts(self, photo: Photo) -> KnownPhoto:
        facts = self._library.facts(photo.id)
        if facts.hash != photo.hash:
            raise PhotoChanged(f"{photo.name} has changed: open it again")
        return facts
