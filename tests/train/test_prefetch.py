"""Batches arrive on the devices in order, with the state of what was consumed, and errors arrive as well."""

import itertools
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from example_models import SMALL
from example_source import ShapesSource
from jax.sharding import SingleDeviceSharding

from samjax.train.batch import Batch
from samjax.train.config import DataConfig
from samjax.train.data.pipeline import Pipeline
from samjax.train.data.report import BadRecords
from samjax.train.prefetch import data_part, prefetch_to_device


@pytest.fixture
def pipeline(tmp_path) -> Pipeline:
    config = DataConfig(masks_per_image=2, threads=2)
    return Pipeline(config, ShapesSource(10), SMALL, batch=4, seed=0, report=BadRecords(tmp_path / "report.jsonl"))


@pytest.fixture
def sharding() -> SingleDeviceSharding:
    return SingleDeviceSharding(jax.devices()[0])


class Counting:
    """An iterator over tiny batches that counts how many were asked for, and ends, fails or waits at will."""

    def __init__(self, count: int, error: Exception | None = None, pause: float = 0.0) -> None:
        self.count, self.error, self.pause, self.read = count, error, pause, 0

    def __next__(self) -> Batch:
        if self.read == self.count:
            raise self.error or StopIteration
        time.sleep(self.pause)
        self.read += 1
        row = np.full(1, self.read)
        return Batch(
            np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 2), np.int32), np.zeros((1, 1, 1, 1), np.uint16),
            np.ones((1, 1), bool), row.astype(np.uint32), row.astype(np.int32),
        )  # fmt: skip

    def get_state(self) -> dict:
        return {"read": self.read}


def threads_here() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_batches_arrive_in_order_with_their_states(pipeline, sharding):
    with pipeline.batches() as batches, prefetch_to_device(batches, sharding) as prefetched:
        taken = list(itertools.islice(prefetched, 4))
    for step, item in enumerate(taken):
        expected = pipeline.batch_at(step)
        for ours, theirs in zip(jax.tree.leaves(item.batch), jax.tree.leaves(expected), strict=True):
            assert isinstance(ours, jax.Array)
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(item.records, expected.record)
        assert item.state["step"] == step + 1
        assert item.waited >= 0


def test_the_state_goes_on_after_what_was_consumed(pipeline, sharding):
    with pipeline.batches() as batches, prefetch_to_device(batches, sharding, depth=3) as prefetched:
        state = list(itertools.islice(prefetched, 2))[-1].state
        expected = next(prefetched)
    with pipeline.batches() as batches:
        batches.set_state(state)
        np.testing.assert_array_equal(next(batches).image, expected.batch.image)


def test_no_more_than_depth_batches_wait(sharding):
    source = Counting(100)
    with prefetch_to_device(source, sharding, depth=3) as prefetched:
        for taken in range(3):
            deadline = time.monotonic() + 10
            while source.read < taken + 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)
            assert source.read == taken + 3
            next(prefetched)


def test_an_end_ends_the_loop(sharding):
    with prefetch_to_device(Counting(3), sharding) as prefetched:
        assert [int(item.records[0]) for item in prefetched] == [1, 2, 3]
        assert list(prefetched) == []


def test_an_error_is_raised_after_the_batches_before_it(sharding):
    with prefetch_to_device(Counting(2, OSError("the disk is gone")), sharding) as prefetched:
        assert next(prefetched).state == {"read": 1}
        assert next(prefetched).state == {"read": 2}
        with pytest.raises(OSError, match="the disk is gone"):
            next(prefetched)
        with pytest.raises(StopIteration):
            next(prefetched)


def test_closing_stops_the_thread(sharding):
    assert "prefetch to device" not in threads_here()
    prefetched = prefetch_to_device(Counting(10**9), sharding)
    next(prefetched)
    assert "prefetch to device" in threads_here()
    prefetched.close()
    assert "prefetch to device" not in threads_here()
    prefetched.close()


def test_the_wait_is_measured(sharding):
    with prefetch_to_device(Counting(3, pause=0.2), sharding, depth=1) as slow:
        assert next(slow).waited > 0.1
    with prefetch_to_device(Counting(3), sharding, depth=1) as fast:
        time.sleep(0.3)
        assert next(fast).waited < 0.1


def test_a_depth_of_nothing_is_refused(sharding):
    with pytest.raises(ValueError, match=r"data\.prefetch must be at least 1"):
        prefetch_to_device(Counting(1), sharding, depth=0)


def test_one_process_loads_everything(sharding):
    assert data_part(sharding, 6) == (0, 1)


MANY_DEVICES = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from samjax.train.prefetch import data_part

class Of:
    "A sharding as a process with some of the devices sees it."
    def __init__(self, sharding, mine):
        self.sharding, self.mine = sharding, mine
    def addressable_devices_indices_map(self, shape):
        return {d: i for d, i in self.sharding.devices_indices_map(shape).items() if d.id in self.mine}

mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
rows = NamedSharding(mesh, P(("data", "fsdp")))
halves = [data_part(Of(rows, range(4 * i, 4 * i + 4)), 16) for i in range(2)]
assert halves == [(0, 2), (1, 2)], halves
alone = [data_part(Of(rows, [i]), 16) for i in range(8)]  # pairs differ along tensor only
assert alone == [(0, 4), (0, 4), (1, 4), (1, 4), (2, 4), (2, 4), (3, 4), (3, 4)], alone
replicated = [data_part(Of(NamedSharding(mesh, P()), [i]), 16) for i in range(8)]
assert replicated == [(0, 1)] * 8, replicated
try:
    data_part(Of(rows, [0, 6]), 16)
except ValueError as error:
    print(error)

batch = np.arange(16 * 3).reshape(16, 3)
placed = jax.make_array_from_process_local_data(rows, batch)
assert placed.shape == (16, 3) and {s.data.shape for s in placed.addressable_shards} == {(4, 3)}
"""


def test_processes_load_the_rows_that_their_devices_hold(run_python):
    printed = run_python(MANY_DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    assert "must be neighbours along the data axis" in printed


TWO_PROCESSES = """
import sys
sys.path.insert(0, "tests")
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("localhost:{port}", 2, {process})
import numpy as np, tempfile
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from example_models import SMALL
from example_source import ShapesSource
from samjax.train.config import DataConfig
from samjax.train.data.pipeline import Pipeline
from samjax.train.data.report import BadRecords
from samjax.train.prefetch import data_part, prefetch_to_device

sharding = NamedSharding(Mesh(np.array(jax.devices()), "data"), P("data"))
report = BadRecords(tempfile.mkdtemp() + "/report.jsonl")
index, count = data_part(sharding, 4)
assert (index, count) == ({process}, 2)
config = DataConfig(masks_per_image=2, threads=1, flip=0.5)
part = Pipeline(config, ShapesSource(10), SMALL, batch=4, seed=0, report=report, process_index=index, process_count=2)
whole = Pipeline(config, ShapesSource(10), SMALL, batch=4, seed=0, report=report).batch_at(0)
with part.batches() as batches, prefetch_to_device(batches, sharding) as prefetched:
    item = next(prefetched)
assert item.batch.image.shape == (4, 64, 64, 3)
total = jax.jit(lambda image: (image.astype(int) * (1 + jax.numpy.arange(4))[:, None, None, None]).sum())
expected = (whole.image.astype(int) * (1 + np.arange(4))[:, None, None, None]).sum()
assert int(total(item.batch.image)) == expected
assert item.records.tolist() == whole.record[2 * index : 2 * index + 2].tolist()
print("agreed")
"""


def test_two_processes_make_one_batch_together(root):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES.replace("{port}", str(port)).replace("{process}", str(process))],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    for process in running:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0, printed
        assert "agreed" in printed
