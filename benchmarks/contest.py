"""Contenders in processes of their own that take turns, so that a noisy machine disturbs all of them alike.

Peak memory is the largest resident set during a stage: weights, libraries and what earlier stages keep included.
"""

import math
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

Stages = dict[str, Callable[[], object]]


class Result(NamedTuple):
    seconds: float  # median of the warm repeats
    first: float  # of the first run, which compiles
    peak: int  # bytes


class Contest:
    """Asks contenders, by name, to run stages in turns."""

    def __init__(self, pipes: dict[str, Any], eager: Sequence[str]) -> None:
        self.pipes = pipes
        self.eager = eager

    def run(self, stage: str, repeats: int) -> dict[str, Result]:
        first = {name: self._ask(name, stage)[0] for name in self.pipes if name not in self.eager or repeats > 1}
        runs: dict[str, list[tuple[float, int]]] = {name: [] for name in self.pipes}
        for _ in range(repeats):
            for name in self.pipes:
                runs[name].append(self._ask(name, stage))
        return {
            name: Result(
                statistics.median(time for time, _ in these), first.get(name, math.nan), max(peak for _, peak in these)
            )
            for name, these in runs.items()
        }

    def _ask(self, name: str, stage: str) -> tuple[float, int]:
        self.pipes[name].send(stage)
        return answer(name, self.pipes[name])


@contextmanager
def contest(
    contenders: dict[str, Callable[..., Stages]], *arguments: Any, eager: Sequence[str] = ("PyTorch",)
) -> Iterator[Contest]:
    """Starts a process for each contender: a function that, called with `arguments` there, gives its stages.

    Those that are `eager` compile nothing: where each stage is repeated only once they have no run to warm up.
    """
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name, stages in contenders.items():
        pipes[name], theirs = context.Pipe()
        context.Process(target=_contend, args=(theirs, stages, arguments), daemon=True).start()
        theirs.close()  # so that a contender that dies is noticed
        answer(name, pipes[name])
    yield Contest(pipes, eager)
    for pipe in pipes.values():
        pipe.send(None)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, run in a process of its own, which leaves nothing behind in this one."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_send, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    result = answer(function.__name__, ours)
    process.join()
    return result


def machine() -> str:
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "jax"))
    return f"{os.cpu_count()} cores, {platform.machine()}, {versions}"


def answer(name: str, pipe: Any) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise SystemExit(f"{name} stopped; its error is above") from None


def _send(pipe: Any, function: Callable[..., Any], arguments: tuple) -> None:
    pipe.send(function(*arguments))


def _contend(pipe: Any, stages: Callable[..., Stages], arguments: tuple) -> None:
    """Runs stages as asked, answering (seconds, peak resident bytes)."""
    functions = stages(*arguments)
    pipe.send(None)
    for stage in iter(pipe.recv, None):
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (proc(5))
        start = time.perf_counter()
        functions[stage]()
        seconds = time.perf_counter() - start
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        pipe.send((seconds, int(peak) * 1024))
