"""Edges matched in processes of their own."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from samjax.evaluation import edge_scores
from samjax.evaluation.datasets import read_bsds
from samjax.evaluation.edge_scores import THRESHOLDS, count_edges
from samjax.evaluation.edge_workers import MOST, EdgeWorkers, usual_count


@pytest.fixture
def workers():
    found = EdgeWorkers(2)
    yield found
    found.close()


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def fuzzy_circles(size: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    y, x = np.mgrid[: size[0], : size[1]]
    distances = [np.abs(np.hypot(y - 20 - shift, x - 30) - 12) for shift in range(3)]
    return np.exp(-(distances[0] ** 2) / 8), [distance < 0.5 for distance in distances]


def assert_equal_counts(edges, boundaries, thresholds, workers) -> None:
    serial = count_edges(edges, boundaries, thresholds=thresholds)
    pooled = count_edges(edges, boundaries, thresholds=thresholds, count_masks=workers)
    for name in ("found", "drawn", "right", "predicted"):
        assert getattr(serial, name).tolist() == getattr(pooled, name).tolist()
    assert serial.found.any()


def test_counts_are_those_of_this_process(workers):
    assert_equal_counts(*fuzzy_circles((40, 60)), THRESHOLDS, workers)


def test_counts_of_a_real_photo_are_those_of_this_process(workers, test_data):
    photo = read_bsds(test_data / "bsds500", "val")[0]
    edges = np.mean(photo.boundaries, 0)
    assert_equal_counts(edges, photo.boundaries[:2], np.array([0.1, 0.4, 0.7]), workers)


def test_they_run_without_jax():
    code = f"""
import runpy, sys
import numpy as np
line = np.eye(8, dtype=bool)
assert runpy.run_path({edge_scores.__file__!r})["count_mask"](line, [line], 0.1) == (8, 8, 8)
print([name for name in ("jax", "samjax") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.skipif(sys.platform != "linux", reason="children are listed in /proc")
def test_they_end_with_their_owner():
    before = children()
    workers = EdgeWorkers(2)
    workers([(np.eye(8, dtype=bool), [np.eye(8, dtype=bool)], 0.1)])
    assert len(children()) == len(before) + 2
    del workers
    gc.collect()
    assert children() == before


def test_what_goes_wrong_there_is_raised_here(workers):
    with pytest.raises(OverflowError):
        workers([(np.eye(8, dtype=bool), [np.eye(8, dtype=bool)], np.inf)])
    row = (8, 8, 8)
    assert workers([(np.eye(8, dtype=bool), [np.eye(8, dtype=bool)], 0.1)] * 3) == [row] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="children are listed in /proc")
def test_a_process_that_dies_is_replaced():
    before = children()
    workers = EdgeWorkers(1)
    (worker,) = set(children()) - set(before)
    os.kill(worker, signal.SIGKILL)
    task = (np.eye(8, dtype=bool), [np.eye(8, dtype=bool)], 0.1)
    with pytest.raises(RuntimeError, match="has died, with code -9; is memory short"):
        workers([task])
    assert workers([task]) == [(8, 8, 8)]
    workers.close()


def test_there_are_as_many_as_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5}, raising=False)
    assert usual_count() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(200)), raising=False)
    assert usual_count() == MOST
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usual_count() == 1
