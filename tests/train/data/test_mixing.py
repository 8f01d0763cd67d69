"""Old data between the new: the share holds everywhere, and a position says all."""

import dataclasses
import itertools
import pickle

import jax
import numpy as np
import pytest
from example_models import SMALL
from example_source import ShapesSource

from samjax.train.config import DataConfig
from samjax.train.data.mixing import OldData
from samjax.train.data.pipeline import Pipeline
from samjax.train.data.report import BadRecords

NEW, OLD = 10, 7
CONFIG = DataConfig(
    masks_per_image=2, flip=0.5, scale=(0.7, 1.5), threads=0, max_bad_share=1.0, mix=("sa1b=old",), mix_share=0.2
)


@pytest.fixture
def make(tmp_path):
    """Pipelines over two small sources in memory; records from `NEW` on are old."""

    def make(share=0.2, bad_old=(), threads=0, **options) -> Pipeline:
        config = dataclasses.replace(CONFIG, mix_share=share, threads=threads)
        reports = [BadRecords(tmp_path / name, config.max_bad_share) for name in ("new.jsonl", "old.jsonl")]
        old = OldData(ShapesSource(OLD, bad_old), reports[1])
        return Pipeline(
            config, ShapesSource(NEW), SMALL, report=reports[0], old=old, **{"batch": 4, "seed": 0} | options
        )

    return make


def records(pipeline, steps):
    return np.concatenate([pipeline.batch_at(step).record for step in range(steps)])


def same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.3, 1 / 3, 0.01, 0.97])
def test_in_any_stretch_of_a_run_the_share_is_old(make, share):
    rows = make(share)._rows.rows
    before = np.array([rows.old_before(position) for position in range(2001)])
    assert set(np.diff(before)) <= {0, 1}
    for length in (1, 4, 10, 64, 500):
        old = before[length:] - before[:-length]
        assert (np.abs(old - share * length) < 1 + 1e-9 + length * 1e-4).all()
    far = 2**32 - 1000  # positions have 32 bits
    assert abs(rows.old_before(far + 1000) - rows.old_before(far) - 1000 * share) <= 1.1


def test_rows_are_of_the_source_that_their_position_says(make):
    pipeline = make(0.3)
    old = records(pipeline, 25) >= NEW
    assert old.sum() == 30
    assert pipeline.batch_at(7).position.tolist() == [28, 29, 30, 31]
    assert all(pipeline.batch_at(step).valid.any(1).all() for step in range(5))


def test_each_source_goes_through_its_own_epochs(make):
    found = records(make(0.5), 35)
    for first, count in ((0, NEW), (NEW, OLD)):
        own = found[(found >= first) & (found < first + count)]
        epochs = [own[i : i + count] for i in range(0, len(own) - count + 1, count)]
        assert len(epochs) > 5
        assert all(sorted(epoch) == list(range(first, first + count)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    assert make(0.5).epoch_at(5) == pytest.approx(1.0)


def test_a_photo_is_augmented_by_its_position(make):
    """Old photos come again with other chance, and another seed changes everything but the share."""
    first, second = make(0.5, seed=1), make(0.5, seed=2)
    assert ((records(first, 10) >= NEW) == (records(second, 10) >= NEW)).all()
    assert (records(first, 10) != records(second, 10)).any()
    images = [first.batch_at(step) for step in range(10)]
    seen = {}
    for batch in images:
        for record, image in zip(batch.record, batch.image, strict=True):
            seen.setdefault(int(record), set()).add(image.tobytes())
    assert all(len(views) > 1 for record, views in seen.items() if record >= NEW)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_parts_of_all_processes_are_the_batch_of_one(make, processes):
    parts = [make(process_index=i, process_count=processes) for i in range(processes)]
    for step in (0, 5):
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[part.batch_at(step) for part in parts])
        same(joined, make().batch_at(step))


def test_a_resumed_run_sees_what_an_undisturbed_one_sees(make):
    direct = make()
    with make(threads=3).batches() as batches:
        undisturbed = list(itertools.islice(batches, 3))
        state = batches.get_state()
    assert state == {"step": 3, "seed": 0, "batch": 4, "records": NEW, "mixed": OLD}
    with make(threads=3).batches() as batches:
        batches.set_state(state)
        undisturbed.append(next(batches))
    for step, batch in enumerate(undisturbed):
        same(batch, direct.batch_at(step))


def test_rows_go_to_worker_processes_whole(make):
    rows = make()._rows
    for index in (3, 4, 9):
        same(pickle.loads(pickle.dumps(rows))[index], rows[index])


def test_a_run_that_mixed_nothing_in_cannot_be_resumed_with_old_data(make):
    with make().batches() as batches, pytest.raises(ValueError, match=r"belongs to .* but this run has"):
        batches.set_state({"step": 3, "seed": 0, "batch": 4, "records": NEW})


def test_a_bad_record_is_replaced_by_one_of_its_own_source(make):
    pipeline = make(0.5, bad_old=(1, 2))
    found = records(pipeline, 25)
    assert (found >= NEW).sum() == 50
    assert not {NEW + 1, NEW + 2} & set(found.tolist())
    assert len(pipeline.old.report.path.read_text().splitlines()) == 2
    assert not pipeline.report.path.read_text()


def test_old_records_have_names_of_their_own(make):
    source = make().source
    assert len(source) == NEW + OLD
    assert source.name(NEW + 3) == f"mix/{source.name(3)}"
    assert source[NEW + 3].name == source.name(NEW + 3)
    np.testing.assert_array_equal(source[NEW + 3].rgb, source[3].rgb)
