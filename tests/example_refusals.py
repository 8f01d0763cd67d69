"""Reading a checkpoint that is to be refused."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from samjax import convert
from samjax.checkpoint import CheckpointError

# Times `plain_work`, which takes 0.1 s. The slowest hostile file takes 5 times that, nearly all of it in the runtime
# checks of the tests (0.04 s without them); with a reader that only copies its stack at each instruction, 35 times.
_MOST = 15


def plain_work() -> float:
    """Seconds of computing that some ordinary Python takes, now, on this machine."""
    start = time.thread_time()
    seen = {}
    for number in range(500_000):
        seen[str(number)] = number
    return time.thread_time() - start


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Fails if what is done within takes this thread more than a second or two of computing.

    Other threads do not count, JAX's for one, and where the machine is busy the limit is longer by as much.
    """
    start = time.thread_time()
    yield
    used = time.thread_time() - start
    assert used < 1 or used < _MOST * plain_work()


def refusal(path: Path, **options: Any) -> str:
    """Fails to read a file; returns the error's message."""
    with pytest.raises(CheckpointError) as caught:
        convert.read(path, **options)
    return str(caught.value)


def refuse(path: Path, match: str | None = None) -> str:
    """Fails with the one kind of error, quickly; returns its message."""
    with quickly(), pytest.raises(CheckpointError, match=match) as caught:
        convert.read(path)
    assert len(str(caught.value)) < 20_000
    return str(caught.value)
