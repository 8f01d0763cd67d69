"""What a job is, and how it runs: in a process of its own, which may crash, hang or fill the memory, or in this one.

This module imports neither JAX nor PyTorch, so that whatever they do, results are written.
"""

import collections
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "benchmarks", ROOT, ROOT / "tests")  # what jobs import from: the source tree, not an installed one
# Matrix products by cuBLAS alone. Searching for Triton kernels, XLA's default, takes minutes of a budget of five.
QUICK = "--xla_gpu_enable_triton_gemm=false"
_LINES = 12  # of a failed job's output that its record keeps
# Where files lie on this machine says nothing about what went wrong.
_PLACES = re.compile(r'(?<=")/[^"\n]*/(?:site-packages|dist-packages|lib/python3\.\d+)/')

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all jobs of a run have in common."""

    scratch: Path  # a folder in which jobs leave files for later ones
    tiny: bool = False  # the smallest model that has every part, for tests
    checkpoint: Path | None = None  # weights for the checks; None: random ones


@dataclasses.dataclass(frozen=True)
class Job:
    """A contender of a section: a function that yields records."""

    section: str
    contender: str
    run: str  # MODULE:FUNCTION, called with the `Setting` and `options`
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ("jax",)  # packages, of which "torch" decides who gets the device
    limit: float = 60.0  # seconds
    xla_flags: str = QUICK  # added to those of the environment where there is a GPU

    @property
    def framework(self) -> str:
        return "torch" if "torch" in self.needs else "jax"

    def missing(self) -> list[str]:
        """The packages among `needs` that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


class JobFailed(Exception):
    """Says why in a line, and has the last lines of the job's output."""

    def __init__(self, reason: str, output: str) -> None:
        super().__init__(reason)
        self.reason, self.output = reason, last_lines(output)


def execute(job: Job, setting: Setting) -> Iterator[Record]:
    """The records of a job that runs in this process, each with the device that it was measured on."""
    function, card = resolve(job)
    for record in function(setting, **job.options):
        yield {**record, "card": card()}


def resolve(job: Job) -> tuple[Any, Any]:
    """The job's function and the one that names its device; everything that they need is imported here."""
    for package in job.needs:
        if package == "segment_anything":
            importlib.import_module("parity.reference").import_segment_anything()  # also if there is no torchvision
        else:
            importlib.import_module(package)
    module, _, name = job.run.partition(":")
    device = importlib.import_module(f"gpu_sections.{job.framework}_device")
    return getattr(importlib.import_module(module), name), device.card


def run_here(job: Job, setting: Setting) -> Iterator[Record]:
    """`execute` in this process. Raises `JobFailed`."""
    try:
        yield from execute(job, setting)
    except Exception as error:
        raise JobFailed(described(error), traceback.format_exc()) from error


class Worker:
    """A job's process. It imports what the job needs at once, so that it can get ready while another one measures, and
    touches no device before `run`."""

    def __init__(self, job: Job, setting: Setting, number: int, *, gpu: bool) -> None:
        self._records = setting.scratch / f"{number}.jsonl"
        self._log = setting.scratch / f"{number}.log"
        self._seen = 0  # characters of the records that were read
        self._records.touch()
        task = setting.scratch / f"{number}.task"
        task.write_bytes(pickle.dumps((job, setting, self._records)))
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gpu_sections.worker", str(task)],
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(job, setting, gpu=gpu),
                start_new_session=True,  # so that what it starts can be ended with it
            )
        assert self._process.stdin is not None
        self._input = self._process.stdin

    def run(self, limit: float) -> Iterator[Record]:
        """The job's records as they come. Raises `JobFailed`; what came before it counts."""
        end = time.monotonic() + limit
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended before it began; its output says why
                self._input.write(b"go\n")
            while True:
                ended = self._process.poll() is not None  # asked first: what is written until then is read below
                yield from self._new_records()
                if ended:
                    break
                if time.monotonic() > end:
                    raise JobFailed(f"stopped after {limit:.0f} s", self._output())
                time.sleep(0.05)
            status = self._process.returncode
            if status == 1:  # the last line is what `worker` said
                raise JobFailed((self._output().splitlines() or ["exit status 1"])[-1], self._output())
            if status:
                raise JobFailed(f"exit status {status}", self._output())
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends the process, if it runs, and what it has started."""
        self._input.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _output(self) -> str:
        return self._log.read_text(errors="replace")

    def _new_records(self) -> Iterator[Record]:
        text = self._records.read_text()[self._seen :]
        whole = text[: text.rfind("\n") + 1]
        self._seen += len(whole)
        yield from map(json.loads, whole.splitlines())


def environment(job: Job, setting: Setting, *, gpu: bool) -> dict[str, str]:
    """Of a job's process: only its own framework may take the device, and JAX not all of its memory at once."""
    paths = [*map(str, PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    ours["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    ours.setdefault("JAX_COMPILATION_CACHE_DIR", str(setting.scratch / "compiled"))
    if job.framework == "torch":
        ours["JAX_PLATFORMS"] = "cpu"
    elif gpu:
        ours["JAX_PLATFORMS"] = "cuda"  # an error where JAX cannot use the card, instead of hours on the CPU
        ours["XLA_FLAGS"] = f"{ours.get('XLA_FLAGS', '')} {job.xla_flags}".strip()
    return ours


def described(error: Exception) -> str:
    """An error in one line; JAX's and PyTorch's have many."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def last_lines(output: str) -> str:
    """The end of a program's output, without the names of this machine's folders."""
    output = _PLACES.sub("", output).replace(f"{ROOT}/", "")
    return "\n".join(collections.deque((line for line in output.splitlines() if line.strip()), _LINES))
