"""samjax on a GPU beside PyTorch on the same card: is it right, how fast is it, what does it leave unused.

    python benchmarks/gpu.py [--budget 300] [--out gpu] [--sections NAME ...] [--checkpoint FILE] [--tiny]

Needs PyTorch and segment-anything-py for what compares with them, transformers for its part; what is missing is said.
Each contender of each section runs in a process of its own with its own time limit, one after the other, so that
whatever it does to itself or to the card, the others are measured; the next one imports its packages meanwhile. After
each, OUT/gpu.json and OUT/gpu.md are written anew. What the budget has no time for is recorded as skipped.

Times are medians of warm repeats, without copying photos to the device; compile time and the peak of the device's
memory stand apart, and shares are of the bfloat16 peak that "peaks" measures. samjax's programs are compiled without
XLA's search for Triton kernels, which "encoder_b8_searched" turns on. Weights are random, every parameter significant,
unless a ViT-B `--checkpoint` is given to "correctness" and "everything".

    python benchmarks/gpu.py --sections correctness --limit 3600 --budget 7200     # also on a CPU, with patience

`--tiny` runs everything on the smallest model in seconds, to see that it works. Exit status 1: a check or job failed.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_sections.jobs import PACKAGES, Job, JobFailed, Record, Setting, Worker, run_here
from gpu_sections.schedule import schedule
from gpu_sections.stopwatch import cpu_name
from gpu_sections.table import line, peak, table

LEAST = 15.0  # seconds of the budget without which nothing is begun


class Results:
    """What was found so far, in OUT/gpu.json and OUT/gpu.md."""

    def __init__(self, out: Path, machine: dict[str, Any]) -> None:
        self.out, self.machine, self.records = out, machine, []
        out.mkdir(parents=True, exist_ok=True)

    def add(self, job: Job, record: Record) -> None:
        record = {"section": job.section, "contender": job.contender, **record}
        if job.framework == "jax" and self.machine["driver"]:
            record["xla_flags"] = job.xla_flags
        self.records.append({**self.machine, **record})
        print(line(record), flush=True)
        self._write()

    @property
    def good(self) -> bool:
        return all(record["kind"] != "failed" and record.get("passed", True) for record in self.records)

    def _write(self) -> None:
        top = peak(self.records, "flops_per_second")
        for record in self.records:
            if top and "flops" in record:
                record["share_of_peak"] = record["flops"] / record["seconds"] / top
        _replace(self.out / "gpu.json", json.dumps(self.records, indent=1) + "\n")
        _replace(self.out / "gpu.md", table(self.machine, self.records))


def run(
    jobs: Sequence[Job], setting: Setting, results: Results, budget: float, limit: float | None, *, in_process: bool
) -> None:
    """All jobs, one after the other. `limit` replaces their own."""
    end = time.monotonic() + budget
    with contextlib.ExitStack() as stack:
        waiting: dict[int, Worker] = {}

        def prepare(number: int) -> Worker:
            worker = Worker(jobs[number], setting, number, gpu=results.machine["driver"] is not None)
            stack.callback(worker.stop)
            return worker

        def prepare_following(number: int) -> None:
            following = next((other for other in runnable if other > number), None)
            if following is not None:
                waiting[following] = prepare(following)

        runnable = [number for number, job in enumerate(jobs) if not job.missing()]
        for number, job in enumerate(jobs):
            left = end - time.monotonic()
            if missing := job.missing():
                results.add(job, {"kind": "skipped", "reason": f"{missing[0]} is not installed"})
                continue
            if left < LEAST:
                reason = f"{max(left, 0):.0f} s were left of the budget of {budget:.0f} s"
                results.add(job, {"kind": "skipped", "reason": reason})
                continue
            if in_process:
                records = run_here(job, setting)
            else:
                worker = waiting.pop(number, None) or prepare(number)
                prepare_following(number)
                records = worker.run(min(limit or job.limit, left))
            try:
                for record in records:
                    results.add(job, record)
            except JobFailed as error:
                results.add(job, {"kind": "failed", "reason": error.reason, "output": error.output})


def machine(*, tiny: bool = False) -> dict[str, Any]:
    """What every record names: the card, versions, the date."""
    card, driver = _card_and_driver() or (cpu_name(), None)
    versions = {name: _version(name) for name in ("jax", "torch", "transformers")}
    models = "replaced by the smallest" if tiny else None
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"card": card, "driver": driver, **versions, "models": models, "date": date}


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(job.section for job in schedule()))
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of results")
    parser.add_argument("--budget", type=float, default=300, help="seconds for everything")
    parser.add_argument("--limit", type=float, help="seconds for each contender of a section instead of its own limit")
    parser.add_argument("--sections", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--checkpoint", type=Path, help="weights of a ViT-B in any format instead of random ones")
    parser.add_argument("--tiny", action="store_true", help="the smallest model; figures mean nothing")
    parser.add_argument("--in-process", action="store_true", help="all in this process, one crash ends all; for tests")
    options = parser.parse_args(args)

    jobs = [job for job in schedule(tiny=options.tiny) if job.section in options.sections]
    results = Results(options.out, machine(tiny=options.tiny))
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(Path(scratch), options.tiny, options.checkpoint and options.checkpoint.absolute())
        run(jobs, setting, results, options.budget, options.limit, in_process=options.in_process)
    print(f"\n{(options.out / 'gpu.md').read_text()}")
    return 0 if results.good else 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _card_and_driver() -> tuple[str, str] | None:
    """The first card and the version of its driver; None if there is no card of NVIDIA's."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    name, _, driver = (done.stdout.splitlines() or [""])[0].rpartition(", ")
    return (name, driver) if done.returncode == 0 and name else None


def _replace(path: Path, text: str) -> None:
    """Writes a file that appears complete or not at all (not by `samjax.atomic`: nothing that is measured is imported
    here)."""
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_text(text)
    temporary.replace(path)


if __name__ == "__main__":
    sys.path[:0] = map(str, PACKAGES)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes of jobs end with this one
    sys.exit(main())
