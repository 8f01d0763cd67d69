"""Batches on their way to the devices while a step runs."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Sharding

from .batch import Batch


@runtime_checkable
class Batches(Protocol):
    """A source of batches, such as `samjax.train.data.pipeline.PipelineBatches`."""

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch, as plain JSON."""
        ...


class Prefetched(NamedTuple):
    """A batch on the devices, and what the loop needs to know of it."""

    batch: Batch  # on the devices, sharded; its leading axis is that of all processes' parts together
    records: np.ndarray  # `Batch.record` of the part that this process has loaded
    state: dict[str, Any]  # of the iterator after this batch: from it, the next batch comes next
    waited: float  # seconds that the consumer waited for it


def data_part(sharding: Sharding, batch: int) -> tuple[int, int]:
    """The part of each batch that this process must load, of how many: a pipeline's `process_index` and
    `process_count`.

    Processes that hold the same rows (their devices differ along an axis that rows are not sharded over) load the same
    part. Raises ValueError if this process's devices hold no single block of rows, or the batch cannot be sharded.
    """
    slices = sharding.addressable_devices_indices_map((batch,)).values()
    blocks = sorted({index[0].indices(batch)[:2] for index in slices if index})
    start, stop = blocks[0][0], blocks[-1][1]
    if sum(end - begin for begin, end in blocks) != stop - start or batch % (stop - start) or start % (stop - start):
        raise ValueError(
            f"the devices of this process hold the rows {blocks} of a batch of {batch}, which are no block "
            "of equal size in every process; a process's devices must be neighbours along the data axis"
        )
    return start // (stop - start), batch // (stop - start)


def prefetch_to_device(batches: Batches, sharding: Sharding, depth: int = 2) -> "DevicePrefetch":
    """An iterator over `Prefetched`, of which up to `depth` wait on the devices; use it as a context, or close it.

    Args:
        batches: read by a thread of its own; nobody else may use it until this is closed.
        sharding: of the rows of a batch; other axes are not sharded.
    """
    return DevicePrefetch(batches, sharding, depth)


class DevicePrefetch:
    """The iterator of `prefetch_to_device`. Errors of the thread are raised where the batch would have been given."""

    def __init__(self, batches: Batches, sharding: Sharding, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"data.prefetch must be at least 1, got {depth}")
        self._batches, self._sharding = batches, sharding
        self._ready: queue.SimpleQueue = queue.SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._closing = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._fill, name="prefetch to device", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        try:
            while True:
                self._room.acquire()
                if self._closing.is_set():
                    return
                batch = next(self._batches)
                state = self._batches.get_state()
                on_device = jax.tree.map(
                    lambda part: jax.make_array_from_process_local_data(self._sharding, part), batch
                )
                self._ready.put((on_device, batch.record, state))
        except BaseException as error:  # StopIteration included: it ends the consumer's loop
            self._ready.put(error)

    def __iter__(self) -> Iterator[Prefetched]:
        return self

    def __next__(self) -> Prefetched:
        if self._ended:
            raise StopIteration
        start = time.perf_counter()
        ready = self._ready.get()
        waited = time.perf_counter() - start
        if isinstance(ready, BaseException):
            self._ended = True
            raise ready
        self._room.release()
        batch, records, state = ready
        return Prefetched(batch, records, state, waited)

    def close(self) -> None:
        """Stops the thread; batches that wait are dropped. What they were read from stays open."""
        self._ended = True
        self._closing.set()
        self._room.release()
        self._thread.join()

    def __enter__(self) -> "DevicePrefetch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
