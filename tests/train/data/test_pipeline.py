"""The seed and the step name a batch, whoever makes it."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from example_models import SMALL, random_photo, with_patches
from example_source import ShapesSource
from pycocotools import mask as coco

from samjax.config import SamConfig
from samjax.readers.left_out import Reason
from samjax.readers.record import Record
from samjax.train.batch import Batch
from samjax.train.config import DataConfig
from samjax.train.data.pipeline import Pipeline
from samjax.train.data.report import BadRecords, TooManyBadRecords
from samjax.train.data.rows import ValidationRows
from samjax.transforms import input_size, resize_photo

CONFIG = DataConfig(
    masks_per_image=4, flip=0.5, scale=(0.5, 2.0), brightness=0.3, hue=0.1, threads=0, max_bad_share=1.0
)


@pytest.fixture
def make(tmp_path):
    """Pipelines over a small source in memory."""

    def make(source=None, config=CONFIG, model=SMALL, **options) -> Pipeline:
        report = BadRecords(tmp_path / "report.jsonl", config.max_bad_share)
        options = {"batch": 4, "seed": 0} | options
        return Pipeline(config, ShapesSource(10) if source is None else source, model, report=report, **options)

    return make


def same(first: Batch, second: Batch) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for ours, theirs in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def bits(cells: np.ndarray, ratio: int) -> np.ndarray:
    """Cells as masks again, by the definition of `pack_cells`."""
    *lead, h, w = cells.shape
    places = ratio * np.arange(ratio)[:, None] + np.arange(ratio)
    found = (cells[..., None, None] >> places.astype(cells.dtype)) & cells.dtype.type(1)  # h w y x
    return np.moveaxis(found, -2, -3).reshape(*lead, h * ratio, w * ratio).astype(bool)


def test_a_batch_has_the_documented_parts(make):
    batch = make().batch_at(3)
    assert batch.image.shape == (4, 64, 64, 3)
    assert batch.cells.shape == (4, 4, 32, 32)
    assert batch.cells.dtype == np.uint8
    assert batch.position.tolist() == [12, 13, 14, 15]
    masks = bits(batch.cells, 2)
    for image, size, mask, valid in zip(batch.image, batch.size, masks, batch.valid, strict=True):
        assert not image[size[0] :].any()
        assert not image[:, size[1] :].any()
        assert not mask[:, size[0] :].any()
        assert not mask[:, :, size[1] :].any()
        areas = mask.sum((1, 2))
        assert valid.any()
        assert (areas[valid] >= CONFIG.min_area).all()
        assert (areas[valid] <= 0.9 * size.prod()).all()
        assert not areas[~valid].any()


class HalfWhite:
    """One photo, white where its one mask is."""

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return "half"

    def __getitem__(self, index: int) -> Record:
        y, x = np.mgrid[:90, :120]
        mask = (x - 40) ** 2 + (y - 50) ** 2 < 30**2
        photo = np.repeat(mask[:, :, None], 3, 2).astype(np.uint8) * 255
        return Record("half", photo, (coco.encode(np.asfortranarray(mask, np.uint8)),))


@pytest.mark.parametrize("patch", [4, 8, 12, 16])
def test_masks_lie_on_what_they_are_masks_of(make, patch):
    """At every size of cells, through scale, crop, mirror image and packing."""
    model = with_patches(SMALL, 96, patch)
    batch = make(HalfWhite(), CONFIG, model, batch=16).batch_at(0)
    masks = bits(batch.cells[:, 0], patch // 4)
    white = np.abs(batch.image.astype(int) - batch.image.max((1, 2, 3), keepdims=True)).max(-1) == 0
    black = batch.image.max(-1) == 0
    assert batch.valid[:, 0].all()
    assert not (masks & black).any()
    assert not (white & ~masks).any()
    assert (masks & white).any((1, 2)).all()


class Squares:
    """Photos as large as the model's input, of squares whose class is their area; the largest has none."""

    def __len__(self) -> int:
        return 8

    def name(self, index: int) -> str:
        return f"squares_{index}"

    def __getitem__(self, index: int) -> Record:
        masks = np.zeros((64, 64, 7), np.uint8, order="F")
        for i in range(7):
            masks[i : i + 10 + 2 * i, 30 - i : 40 + i, i] = 1
        areas = masks.sum((0, 1)).tolist()
        photo = random_photo(64, 64, seed=index)
        return Record(self.name(index), photo, tuple(coco.encode(masks)), categories=(*areas[:-1], None))


def test_categories_go_with_their_masks(make):
    """Whatever masks are chosen, and in which order."""
    batch = make(Squares(), dataclasses.replace(CONFIG, scale=(1.0, 1.0)), batch=8).batch_at(0)
    areas = bits(batch.cells, 2).sum((2, 3))
    assert batch.categories.dtype == np.int32
    assert batch.valid.all()
    assert len(set(map(tuple, batch.categories.tolist()))) > 4
    np.testing.assert_array_equal(batch.categories, np.where(areas == 22**2, -1, areas))
    assert (make().batch_at(0).categories == -1).all()  # of data without classes


def test_every_epoch_has_every_record_once_in_an_order_of_its_own(make):
    pipeline = make(ShapesSource(12))
    epochs = [[int(i) for step in range(3) for i in pipeline.batch_at(3 * epoch + step).record] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, range(12)]}) == 5
    assert pipeline.epoch_at(6) == 2.0


def test_shuffling_is_global(make):
    """Neighbours in the source are as far apart in the order as by chance: a third of the epoch."""
    order = make(ShapesSource(3000))._rows.rows.order
    place = np.empty(3000)
    place[[order[i] for i in range(3000)]] = np.arange(3000)
    assert 900 < np.abs(np.diff(place)).mean() < 1100


def test_other_seeds_have_other_orders_and_other_augmentations(make):
    first, second = make(seed=1), make(seed=2)
    assert any((first.batch_at(i).record != second.batch_at(i).record).any() for i in range(4))
    first, second = make(HalfWhite(), seed=1).batch_at(0), make(HalfWhite(), seed=2).batch_at(0)
    assert (first.image != second.image).any()


def test_a_record_is_augmented_differently_each_time(make):
    batch = make(HalfWhite(), batch=8).batch_at(0)
    assert len({image.tobytes() for image in batch.image}) == 8


def test_views_are_augmentations_that_epochs_take_in_turn(make):
    pipeline = make(batch=10, views=2)
    epochs = [pipeline.batch_at(number) for number in range(4)]
    images = [{int(record): image.tobytes() for record, image in zip(e.record, e.image, strict=True)} for e in epochs]
    assert images[0] == images[2]
    assert images[1] == images[3]
    assert all(images[0][record] != images[1][record] for record in range(10))
    chosen = [{int(record): cells.tobytes() for record, cells in zip(e.record, e.cells, strict=True)} for e in epochs]
    assert chosen[0] != chosen[2]  # masks are drawn anew
    other = make(batch=10, views=2, seed=1).batch_at(0)
    assert {image.tobytes() for image in other.image}.isdisjoint(images[0].values())


@pytest.mark.parametrize("processes", [2, 4])
def test_the_parts_of_all_processes_are_the_batch_of_one(make, processes):
    parts = [make(process_index=i, process_count=processes) for i in range(processes)]
    for step in (0, 5):
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[part.batch_at(step) for part in parts])
        same(joined, make().batch_at(step))


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_threads_change_nothing(make, threads):
    config = dataclasses.replace(CONFIG, threads=threads)
    direct = make()
    with make(config=config).batches(2) as batches:
        for step, batch in zip(range(2, 6), batches, strict=False):
            same(batch, direct.batch_at(step))


def test_worker_processes_change_nothing_and_start_no_device(make):
    config = dataclasses.replace(CONFIG, threads=1, workers=2)
    bad = (3,)
    direct = make(ShapesSource(10, bad), process_index=1, process_count=2)
    with make(ShapesSource(10, bad, device_free=True), config, process_index=1, process_count=2).batches(1) as batches:
        for step, batch in zip(range(1, 6), batches, strict=False):
            same(batch, direct.batch_at(step))
            assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(batch))
        assert batches.get_state()["step"] == 6


@pytest.mark.parametrize("threads", [0, 3])
def test_a_resumed_run_sees_what_an_undisturbed_one_sees(make, threads):
    """From a state in the middle of an epoch, also back in time, and on another number of processes."""
    config = dataclasses.replace(CONFIG, threads=threads)
    with make(config=config).batches() as batches:
        undisturbed, states = [], []
        for batch in itertools.islice(batches, 6):
            undisturbed.append(batch)
            states.append(batches.get_state())
        batches.set_state(states[1])
        same(next(batches), undisturbed[2])
    with make(config=config).batches() as batches:
        next(batches)
        batches.set_state(states[3])
        same(next(batches), undisturbed[4])
        same(next(batches), undisturbed[5])
    with make(config=config, process_index=1, process_count=2).batches() as batches:
        batches.set_state(states[3])
        same(next(batches), jax.tree.map(lambda leaf: leaf[2:], undisturbed[4]))


def test_a_state_of_another_run_is_refused(make):
    state = make().batches(3).get_state()
    for other in (make(batch=2), make(seed=5), make(ShapesSource(11))):
        with pytest.raises(ValueError, match="the saved position in the data belongs to"):
            other.batches().set_state(state)


def test_a_bad_record_is_replaced_by_the_next_good_one_and_reported(make, tmp_path):
    good = make(ShapesSource(10))
    pipeline = make(ShapesSource(10, bad=(4, 5, 9)))
    instead = {4: 6, 5: 6, 9: 0}
    for step in range(5):
        batch, without = pipeline.batch_at(step), good.batch_at(step)
        assert batch.record.tolist() == [instead.get(i, i) for i in without.record.tolist()]
        same(batch, pipeline.batch_at(step))
        kept = without.record == batch.record
        same(*(jax.tree.map(lambda leaf, kept=kept: leaf[kept], part) for part in (batch, without)))
    report = (tmp_path / "report.jsonl").read_text()
    assert {f"shapes_{i}" for i in range(10) if f'"shapes_{i}"' in report} == {"shapes_4", "shapes_5", "shapes_9"}


class Negatives(ShapesSource):
    """The second half are photos without objects."""

    def __getitem__(self, index: int) -> Record:
        record = super().__getitem__(index)
        return dataclasses.replace(record, masks=()) if index >= self.count / 2 else record


def test_photos_without_objects_are_replaced_and_are_not_bad(make):
    config = dataclasses.replace(CONFIG, max_bad_share=0.0)
    pipeline = make(Negatives(10), config)
    batches = [pipeline.batch_at(step) for step in range(10)]
    records = np.concatenate([batch.record for batch in batches])
    assert set(records.tolist()) == set(range(5))
    assert all(batch.valid.any(1).all() for batch in batches)
    assert pipeline.report.tally().photos == {Reason.NO_OBJECTS: 5}
    again = make(Negatives(10), config)  # which has read other records before
    for step in (7, 3):
        same(again.batch_at(step), batches[step])
    joined = next(make(Negatives(4), config, validation_images=4).batches())
    assert joined.record.tolist() == [0, 1, 2, 3]
    assert joined.valid.any(1).tolist() == [True, True, False, False]


def test_a_record_without_usable_masks_is_bad(make, tmp_path):
    config = dataclasses.replace(CONFIG, min_area=2000)  # of 4096 pixels
    pipeline = make(ShapesSource(10), config)
    records = {int(i) for step in range(5) for i in pipeline.batch_at(step).record}
    assert 0 < len(records) < 10
    assert "data.min_area" in (tmp_path / "report.jsonl").read_text()


def test_a_crop_without_usable_masks_gives_way_to_the_whole_photo(make):
    """The one mask is in a corner that most crops at twice the size do not show."""
    config = dataclasses.replace(CONFIG, scale=(2.0, 2.0), flip=0.0)

    class Corner(HalfWhite):
        def __getitem__(self, index: int) -> Record:
            mask = np.zeros((64, 64), np.uint8, order="F")
            mask[:10, :10] = 1
            return Record("corner", np.zeros((64, 64, 3), np.uint8), (coco.encode(mask),))

    batch = make(Corner(), config, batch=64).batch_at(0)
    assert batch.valid[:, 0].all()
    areas = bits(batch.cells[:, 0], 2).sum((1, 2))
    assert (areas == 100).sum() > 25
    assert (areas != 100).any()


def test_a_run_stops_where_all_records_are_bad(make):
    pipeline = make(ShapesSource(10, bad=tuple(range(10))))
    with pytest.raises(TooManyBadRecords, match=r"report\.jsonl"):
        pipeline.batch_at(0)
    threads = dataclasses.replace(CONFIG, threads=2)
    with make(ShapesSource(10, bad=tuple(range(10))), threads).batches() as batches, pytest.raises(TooManyBadRecords):
        next(batches)


def test_validation_goes_once_through_the_first_images_unaugmented(make):
    pipeline = make(ShapesSource(10, bad=(2,)), batch=4, validation_images=6)
    assert pipeline.steps == 2
    batches = list(pipeline.batches())
    assert len(batches) == 2
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)
    assert joined.record.tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
    assert joined.valid.any(1).tolist() == [True, True, False, True, True, True, False, False]
    for row in (0, 1, 3):
        photo = ShapesSource(10)[row].rgb
        height, width = input_size(photo.shape[:2], (64, 64))
        assert joined.size[row].tolist() == [height, width]
        np.testing.assert_array_equal(joined.image[row, :height, :width], resize_photo(photo, (height, width)))


def test_validation_is_the_same_for_every_seed_batch_size_and_number_of_processes(make):
    def all_of(**options) -> Batch:
        batches = list(make(validation_images=6, **options).batches())
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:6], *batches)

    first = all_of(batch=4)
    same(all_of(batch=2, seed=7), first)
    half = next(make(validation_images=6, batch=6, process_index=1, process_count=2).batches())
    same(half, jax.tree.map(lambda leaf: leaf[3:], first))


def test_validation_of_fewer_images_than_asked_for_takes_all(make):
    assert isinstance((rows := make(validation_images=200)._rows.rows), ValidationRows)
    assert len(rows) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "run.batch must be a positive multiple"),
        ({"batch": 3, "process_count": 2}, "multiple of the 2 processes"),
        ({"process_index": 2, "process_count": 2}, "process_index"),
        ({"source": ShapesSource(0)}, "no records"),
        ({"model": with_patches(SMALL, 70, 14)}, "multiple of 4"),
        ({"model": with_patches(SMALL, 96, 24)}, "patch size 20"),
    ],
)
def test_what_cannot_be_met_is_refused_at_once(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_steps_that_do_not_exist_are_refused(make):
    with pytest.raises(ValueError, match="steps run from 0 to 2"):
        make(validation_images=10).batch_at(3)


def test_position_counts_to_the_end_of_its_32_bits(make):
    pipeline = make(HalfWhite())
    assert pipeline.batch_at(pipeline.steps - 1).position[-1] == 2**32 - 1


def test_real_data_at_real_size(make, test_data):
    from samjax.readers.sources import open_sources

    source = open_sources((f"sa1b={test_data / 'sa_mini' / 'val'}",))
    config = dataclasses.replace(CONFIG, masks_per_image=16, threads=2)
    model = SamConfig().with_image_size(256)
    with make(source, config, model).batches() as batches:
        for batch in itertools.islice(batches, 2):
            assert batch.valid.sum() >= 16
            assert batch.cells.dtype == np.uint16
