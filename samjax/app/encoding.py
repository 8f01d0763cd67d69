"""Embedding photos in turn, and how far each is."""

import time
from typing import Any

from samjax.app.library import KnownPhoto, Library
from samjax.app.queue import DeviceQueue, GivenUp, Job, Kind
from samjax.app.service import Service
from samjax.errors import describe_error

_SOON = 1.0  # seconds; photos that are encoded so fast may be encoded in the pauses of a long job


class Encoding:
    """Puts each photo in the queue once, whoever asks."""

    def __init__(self, library: Library, service: Service, queue: DeviceQueue) -> None:
        self._library, self._service, self._queue = library, service, queue
        self._jobs: dict[str, Job] = {}  # by the photo's hash

    def start(self, client: str, photo: KnownPhoto) -> dict[str, Any]:
        """Queues a photo unless it is embedded or queued; gives its `state`. Raises `samjax.app.queue.Busy`."""
        if self.state(photo)["state"] in ("absent", "failed"):

            def work(_: Job) -> None:
                self._service.embed(photo, lambda: self._library.read(photo.id))
                self._service.warm(photo.size)

            expected = self._service.encode_seconds
            kind: Kind = "short" if expected is not None and expected < _SOON else "long"
            self._jobs[photo.hash] = self._queue.submit(client, work, kind=kind)
        return self.state(photo)

    def state(self, photo: KnownPhoto) -> dict[str, Any]:
        """{state: absent, queued, encoding, ready or failed; position: jobs before it; elapsed and expected: seconds;
        error}. `expected` is what the photo before took."""
        job = self._jobs.get(photo.hash)
        given = {"position": 0, "elapsed": 0.0, "expected": self._service.encode_seconds, "error": None}
        if job is not None and not job.future.done():
            if job.started is None:
                return {"state": "queued", **given, "position": job.position()}
            return {"state": "encoding", **given, "elapsed": round(time.monotonic() - job.started, 3)}
        if self._service.is_embedded(photo.hash):
            return {"state": "ready", **given}
        if job is None or job.future.cancelled() or (error := job.future.exception()) is None:
            return {"state": "absent", **given}  # also where it has been deleted since, to make room
        if isinstance(error, GivenUp):
            return {"state": "absent", **given}
        return {"state": "failed", **given, "error": describe_error(error)}
