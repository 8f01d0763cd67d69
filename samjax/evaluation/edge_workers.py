"""Edges matched on all cores: processes that run `edge_scores` alone.

They are no `multiprocessing` ones, because those import the package and the user's main module, and JAX with it, and
forking a process where JAX has threads may hang.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from samjax.evaluation import edge_scores
from samjax.evaluation.edge_scores import Row, Task

MOST = 16  # processes; a photo has 99 thresholds


class EdgeWorkers:
    """Processes that count the masks of `edge_scores.count_edges`; they end with this object, or with this process.

    Args:
        count: of processes.
    """

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(count, "edges")  # each waits for one process at a time
        for _ in range(count):
            self._idle.put(_start())
        self.close = weakref.finalize(self, _stop, self._threads, self._idle)

    def __call__(self, tasks: Sequence[Task]) -> list[Row]:
        """`edge_scores.count_mask` of each. Raises what it raises."""
        return list(self._threads.map(self._one, tasks))

    def _one(self, task: Task) -> Row:
        worker = self._idle.get()
        try:
            pickle.dump(task, worker.stdin)
            worker.stdin.flush()
            answer = pickle.load(worker.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            code, worker = _end(worker), _start()
            raise RuntimeError(f"a process that matched edges has died, with code {code}; is memory short?") from error
        finally:
            self._idle.put(worker)
        if isinstance(answer, Exception):
            raise answer
        return answer


def usual_count() -> int:
    """As many as this process may use cores, but no more than `MOST`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST)


def _start() -> "subprocess.Popen[bytes]":
    # -P: the files beside edge_scores are not to be taken for modules
    return subprocess.Popen([sys.executable, "-P", edge_scores.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _stop(threads: ThreadPoolExecutor, idle: "queue.SimpleQueue[subprocess.Popen[bytes]]") -> None:
    threads.shutdown(cancel_futures=True)
    while not idle.empty():
        _end(idle.get())


def _end(worker: "subprocess.Popen[bytes]") -> int:
    """Its exit code."""
    worker.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.close()
    worker.terminate()
    return worker.wait()
