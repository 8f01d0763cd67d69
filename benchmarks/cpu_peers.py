"""samjax's encoder beside other ways to run Meta's on a CPU, one image at a time: a table, and JSON.

    python benchmarks/cpu_peers.py [--variant vit_b] [--rounds 5] [--peers samjax openvino ...]
        [--other-python PYTHON] [--out FOLDER]

Peers have the same random weights and the pixels of the same photo. Each has a process of its own, they are started one
after the other, and then take turns, each round from another one on, so that no two compute at once and a noisy machine
disturbs all alike. Peers whose packages are missing are left out (`cpu_peers_requirements.txt` has them all), and
without --peers so are those in bfloat16 where the CPU does not multiply in it. `--other-python` is an interpreter with
another JAX, whose samjax takes part too.

The first answer takes reading the weights, imports and compilation; the export to ONNX is not in it. Peak memory is the
process's largest resident set, from its start and then in the warm rounds. Differences are the largest from what Meta's
code gives in float32, over the standard deviation of that. All peers stay in memory: ViT-B's take 20 GB together; fewer
at a time are named with --peers. CPU seconds, in the JSON, are those of all threads: other work on the machine disturbs
them less.
"""

import argparse
import contextlib
import datetime
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from encoder_peer import PEERS

WORKER = Path(__file__).with_name("encoder_peer.py")


class Entrant(NamedTuple):
    """A peer under an interpreter."""

    peer: str
    python: str

    @property
    def of_samjax(self) -> bool:
        return PEERS[self.peer].packages[0] == "jax"


class Worker:
    """A peer's process. Raises `Failed`, with the end of what it said, if it stops."""

    def __init__(self, entrant: Entrant, folder: Path) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        # Compiled anew: what an earlier run has left in a cache would make the first answer look quick.
        environment = environ() | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        self.process = subprocess.Popen(
            [entrant.python, str(WORKER), entrant.peer, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.log.seek(0)
        lines = self.log.read().strip().splitlines() or [f"exit status {self.process.wait()}"]
        raise Failed(lines[-1])

    def ask(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self.process.stdin.write(what + "\n")
            self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.log):
            assert file is not None
            with contextlib.suppress(BrokenPipeError):  # of what it never read
                file.close()


class Failed(Exception):
    """A peer's process stopped."""


def environ() -> dict[str, str]:
    """For workers: they find samjax in this source tree."""
    root = str(WORKER.parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def machine() -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.+)", cpu)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory[1]) / 1e6, 1) if memory else None,
        "bfloat16": next((flag for flag in ("amx_bf16", "avx512_bf16") if re.search(rf"\b{flag}\b", cpu)), None),
        "load": os.getloadavg()[0],
        "date": datetime.date.today().isoformat(),
    }


def missing(entrant: Entrant) -> list[str]:
    """Packages that a peer needs and its interpreter does not have."""
    packages = PEERS[entrant.peer].packages
    code = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    if not list(m.distributions(name=name)): print(name)"
    )
    return subprocess.run(
        [entrant.python, "-c", code, *packages], capture_output=True, text=True, check=True
    ).stdout.split()


def entrants(names: Sequence[str], other_python: str | None) -> tuple[list[Entrant], dict[str, str]]:
    """Those that can run here, and why others cannot."""
    native, found, reasons = machine()["bfloat16"], [], {}
    for name in names or PEERS:
        here = [Entrant(name, sys.executable)]
        if other_python and here[0].of_samjax:
            here.append(Entrant(name, other_python))
        for entrant in here:
            if PEERS[name].bfloat16 and not native and not names:
                reasons[name] = "this CPU does not multiply in bfloat16"
            elif lacking := missing(entrant):
                reasons[name] = f"not installed: {', '.join(lacking)}"
            else:
                found.append(entrant)
    return found, reasons


def contest(field: Sequence[Entrant], rounds: int, folder: Path) -> Iterator[dict[str, Any]]:
    """A record for each peer that came through, or of why it did not."""
    reference = np.load(folder / "reference.npy") if (folder / "reference.npy").exists() else None
    workers: dict[Entrant, Worker] = {}
    records: dict[Entrant, dict[str, Any]] = {}
    runs: dict[Entrant, list[dict[str, Any]]] = {entrant: [] for entrant in field}
    try:
        for entrant in field:
            title, bfloat16 = PEERS[entrant.peer].title, PEERS[entrant.peer].bfloat16
            records[entrant] = {"peer": title, "precision": "bfloat16" if bfloat16 else "float32"}
            with failing(records[entrant]):
                start = time.perf_counter()
                workers[entrant] = Worker(entrant, folder)
                records[entrant] |= workers[entrant].answer()
                peak = workers[entrant].ask("run")["peak"]
                records[entrant] |= {"first": time.perf_counter() - start, "peak_start": peak}
                workers[entrant].ask("save")
                if reference is not None:
                    given = np.load(folder / f"{entrant.peer}.npy")
                    records[entrant]["difference"] = float(abs(given - reference).max() / reference.std())
                print(f"{title}, {records[entrant]['precision']}: {records[entrant]}", file=sys.stderr)
        for turn in range(rounds):
            order = [entrant for entrant in field if "failed" not in records[entrant]]
            shift = turn % max(1, len(order))
            for entrant in order[shift:] + order[:shift]:
                with failing(records[entrant]):
                    runs[entrant].append(workers[entrant].ask("run"))
    finally:
        for worker in workers.values():
            worker.close()
    for entrant in field:
        if "failed" not in records[entrant]:
            seconds = [run["seconds"] for run in runs[entrant]]
            records[entrant] |= {
                "seconds": statistics.median(seconds),
                "cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs[entrant]),
                "peak_warm": max(run["peak"] for run in runs[entrant]),
                "runs": seconds,
            }
        yield records[entrant]


@contextlib.contextmanager
def failing(record: dict[str, Any]) -> Iterator[None]:
    """One peer's end is not the others'."""
    try:
        yield
    except Failed as error:
        record["failed"] = str(error)


def table(records: Sequence[dict[str, Any]]) -> str:
    """In Markdown; ratios are to the fastest samjax of the same precision."""
    rows = [
        "| encoder | precision | seconds | samjax is | first answer after s | peak GB, warm | peak GB, start "
        "| difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ours: dict[str, float] = {}
    for record in records:
        if record["peer"] == "samjax" and "seconds" in record:
            ours[record["precision"]] = min(record["seconds"], ours.get(record["precision"], math.inf))
    for record in records:
        who = f"{record['peer']} ({record.get('version', '?')})"
        if reason := record.get("failed"):
            rows.append(f"| {who} | {record['precision']} | failed: {reason} | | | | | |")
            continue
        base = ours.get(record["precision"])
        ratio = f"{record['seconds'] / base:.2f}x as fast" if base else ""
        difference = f"{record['difference']:.1e}" if "difference" in record else ""
        rows.append(
            f"| {who} | {record['precision']} | {record['seconds']:.2f} | {ratio} | {record['first']:.0f} "
            f"| {record['peak_warm'] / 1e9:.2f} | {record['peak_start'] / 1e9:.2f} | {difference} |"
        )
    return "\n".join(rows)


def prepare(variant: str, field: Sequence[Entrant], folder: Path) -> None:
    steps: list[tuple[str, ...]] = [("write_inputs", variant)]
    if any("torch" in PEERS[entrant.peer].packages for entrant in field):
        steps.append(("export",))
    for step in steps:
        done = subprocess.run(
            [sys.executable, str(WORKER), *step, str(folder)],
            capture_output=True,
            text=True,
            env=environ(),
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{step[0]} failed:\n{done.stderr}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[], help="all that can run here, if not given")
    parser.add_argument("--other-python", help="an interpreter with another JAX")
    parser.add_argument("--out", type=Path, help="a folder for cpu_peers.md and cpu_peers.json")
    options = parser.parse_args(arguments)

    field, reasons = entrants(options.peers, options.other_python)
    for name, reason in reasons.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if not field:
        raise SystemExit("no peer can run here")
    before = machine()
    with tempfile.TemporaryDirectory() as name:
        prepare(options.variant, field, Path(name))
        records = list(contest(field, options.rounds, Path(name)))
    result = {
        "variant": options.variant,
        "rounds": options.rounds,
        "machine": before | {"load_after": os.getloadavg()[0]},
        "left_out": reasons,
        "records": records,
    }
    told = f"{options.variant}, median of {options.rounds}; {before['cpu']}, {before['cores']} cores, load "
    told += f"{before['load']:.1f} before and {result['machine']['load_after']:.1f} after\n\n{table(records)}\n"
    print(told)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "cpu_peers.md").write_text(told)
        (options.out / "cpu_peers.json").write_text(json.dumps(result, indent=1) + "\n")
    if any("failed" in record for record in records):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
