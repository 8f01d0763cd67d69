"""Recorded clicks go where photo and masks go, and nowhere else."""

import dataclasses

import numpy as np
import pytest
from example_clicks import disc, write_work
from example_models import SMALL, random_photo
from hypothesis import assume, given
from hypothesis import strategies as st

from samjax.ops.rle import encode_rle
from samjax.readers.indexed import IndexedSource
from samjax.readers.record import BadRecord, Click, Record
from samjax.readers.sources import open_sources
from samjax.train.batch import pack_cells, unpack_cells
from samjax.train.config import DataConfig, InteractionConfig
from samjax.train.data.clicks import check_clicks, first_clicks
from samjax.train.data.mixing import OldData
from samjax.train.data.pipeline import Pipeline
from samjax.train.data.placement import PlacedMask, Placement, place_photo
from samjax.train.data.report import BadRecords

HALF = (60, 90), (30, 45)  # a photo of 60 x 90, scaled to half


@pytest.mark.parametrize(
    ("placement", "click", "seen"),
    [
        # As it is: pixel (20, 10).
        (Placement((60, 90), (60, 90), (0, 0), (60, 90), False), (20, 10), (20, 10)),
        # Half the size: the centre of pixel 20 is 20.5 from the edge, 10.25 of the smaller pixels, so 9.75 counted in
        # centres; 10.5 / 2 - 0.5 = 4.75.
        (Placement(*HALF, (0, 0), (30, 45), False), (20, 10), (9.75, 4.75)),
        # Twice the size: the centre of pixel 20 is the edge between 40 and 41.
        (Placement((60, 90), (120, 180), (0, 0), (120, 180), False), (20, 10), (40.5, 20.5)),
        # Sides that are rounded have scales of their own: 20.5 * 0.6 - 0.5 = 11.8; 10.5 * 0.5 - 0.5 = 4.75.
        (Placement((60, 90), (30, 54), (0, 0), (30, 54), False), (20, 10), (11.8, 4.75)),
        # A crop begins at row 3 and column 7.
        (Placement((60, 90), (60, 90), (3, 7), (40, 50), False), (20, 10), (13, 7)),
        # Mirrored: the first column becomes the last.
        (Placement((60, 90), (60, 90), (0, 0), (60, 90), True), (0, 10), (89, 10)),
        (Placement((60, 90), (60, 90), (0, 0), (60, 90), True), (20, 10), (69, 10)),
        # Within the window: columns 7..56 become 49..0.
        (Placement((60, 90), (60, 90), (3, 7), (40, 50), True), (20, 10), (36, 7)),
        # All of it: 20.5 * 2 - 7 = 34 from the window's left edge, 16 from the right one.
        (Placement((60, 90), (120, 180), (3, 7), (40, 50), True), (20, 10), (15.5, 17.5)),
        # Between pixels.
        (Placement(*HALF, (0, 0), (30, 45), True), (20.5, 10.25), (34, 4.875)),
    ],
)
def test_a_click_is_scaled_cropped_and_mirrored(placement, click, seen):
    assert placement.seen(*click) == pytest.approx(seen, abs=1e-12)


@pytest.mark.parametrize("click", [(6, 10), (57, 10), (20, 2), (20, 43), (89, 59)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_click_beyond_the_window_is_not_seen(click, flip):
    placement = Placement((60, 90), (60, 90), (3, 7), (40, 50), flip)
    assert placement.seen(*click) is None
    inside = min(max(click[0], 7), 56), min(max(click[1], 3), 42)
    assert placement.seen(*inside) is not None


@given(st.integers(0, 39), st.integers(0, 29), st.floats(0.6, 3), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_click_is_where_the_photo_shows_its_pixel_and_the_mask_lies(x, y, scale, flip, seed):
    """The photo is black with the pixel's surroundings white; Pillow, which scales it, knows nothing of clicks."""
    random = np.random.default_rng(seed)
    mask = np.zeros((50, 60), bool)
    mask[y + 4 : y + 13, x + 4 : x + 13] = True  # nine by nine, the click in its middle, at (x + 8, y + 8)
    scaled = round(50 * scale), round(60 * scale)
    corner = tuple(int(random.integers(0, side // 3 + 1)) for side in scaled)
    size = tuple(int(side - start - random.integers(0, side // 3)) for side, start in zip(scaled, corner, strict=True))
    placement = Placement((50, 60), scaled, corner, size, flip)
    seen = placement.seen(x + 8, y + 8)
    shown = place_photo(mask[:, :, None].repeat(3, 2).astype(np.uint8) * 255, placement)[:, :, 0].astype(float)
    drawn = PlacedMask.of(encode_rle(mask), placement).draw((0, 0, *size[::-1])).astype(float)
    edges = np.concatenate([shown[0], shown[-1], shown[:, 0], shown[:, -1]])
    assume(seen is not None and not edges.any())  # where the square is cut its middle is another
    for picture in (shown, drawn):
        for place, axis in zip(seen, (1, 0), strict=True):
            middle = (picture.sum(1 - axis) * np.arange(size[axis])).sum() / picture.sum()
            assert abs(middle - place) < 0.51


PHOTO = 64, 128  # in a model of 64 x 64 at half its size: 32 x 64


def square(left, top, side=20):
    mask = np.zeros(PHOTO, bool)
    mask[top : top + side, left : left + side] = True
    return encode_rle(mask)


class Clicked(IndexedSource):
    """Photos of four objects: one that was clicked twice, one without clicks, one whose first click is beside it by its
    label, and one whose first click missed it."""

    CLICKS = (
        (Click(15, 12, 1), Click(50, 60, 0)),
        (),
        (Click(70, 12, 0), Click(72, 14, 1)),
        (Click(120, 2, 1), Click(102, 42, 1)),
    )

    def __init__(self, count=8, clicks=CLICKS):
        super().__init__("memory", count)
        self.clicks, self.read = clicks, []

    def _name(self, index):
        return f"clicked_{index}"

    def _read(self, index):
        self.read.append(index)
        masks = square(10, 8), square(40, 8), square(65, 8), square(90, 32)
        return Record(
            self._name(index), random_photo(*PHOTO, seed=index), masks, categories=(0, 1, 2, 3), clicks=self.clicks
        )


@pytest.fixture
def make(tmp_path):
    """Pipelines, by default over the photos above, each of whose objects is in every batch."""

    def make(source=None, clicks=True, **options):
        config = DataConfig(**{"masks_per_image": 5, "threads": 0, "max_bad_share": 1.0, **options.pop("data", {})})
        report = BadRecords(tmp_path / "report.jsonl", 1.0)
        return Pipeline(
            config, source or Clicked(), SMALL, batch=8, seed=0, report=report, **{"clicks": clicks, **options}
        )

    return make


def by_object(batch):
    """The clicks of each object in a batch; slots without one have none."""
    assert batch.clicks.dtype == np.float32
    assert not batch.clicks[~batch.valid].any()
    return [batch.clicks[batch.valid & (batch.categories == number)].tolist() for number in range(4)]


def test_rows_have_the_first_click_of_each_mask_wherever_the_mask_is(make):
    """Click (15, 12) of a photo at half its size: 15.5 / 2 - 0.5 and 12.5 / 2 - 0.5."""
    batch = make().batch_at(0)
    assert len(set(map(tuple, batch.categories.tolist()))) > 4  # masks come in many orders
    first, *others = by_object(batch)
    assert first == [[7.25, 5.75, 1]] * 8
    assert others == [[[0, 0, 0]] * 8] * 3  # without clicks, beside the object, and missed


def test_clicks_are_mirrored_with_the_photo(make):
    """The photo is 64 wide in the model's input: 64 - 15.5 / 2 from the left, less half a pixel."""
    batch = make(data={"flip": 1.0}).batch_at(0)
    assert by_object(batch)[0] == [[55.75, 5.75, 1]] * 8


def test_clicks_move_with_scale_and_crop_and_are_lost_beyond_it(make):
    """Objects of a known centre, in crops at up to twice the size: a click on the centre is the middle of the mask, as
    the pixels say, if all of it is seen; if the click is not seen there is none."""
    source = Clicked(clicks=((Click(19.5, 17.5, 1),), (), (), ()))  # 20 pixels from (10, 8) on: 9.5 further
    pipeline = make(source, data={"scale": (1.0, 4.0), "flip": 0.5})
    seen = lost = 0
    for step in range(4):
        batch = pipeline.batch_at(step)
        for row, slot in np.argwhere(batch.valid & (batch.categories == 0)):
            mask = unpack_cells(batch.cells[row, slot], 2)[: batch.size[row, 0], : batch.size[row, 1]]
            y, x = np.nonzero(mask)
            *click, given = batch.clicks[row, slot]
            if given:
                assert mask[int(click[1] + 0.5), int(click[0] + 0.5)]
            if x.min() > 0 and y.min() > 0 and x.max() < mask.shape[1] - 1 and y.max() < mask.shape[0] - 1:
                assert given
                np.testing.assert_allclose(click, [x.mean(), y.mean()], atol=0.51)
                seen += 1
            lost += not given
    assert seen > 5
    assert lost > 1


def test_a_click_counts_where_its_cell_has_a_pixel_of_the_mask():
    mask = np.zeros((64, 64), bool)
    mask[8, 8] = True  # in the cell of rows and columns 8..11
    record = Record("one", random_photo(64, 64), (encode_rle(mask),) * 2)
    placement, cells = Placement.fitting((64, 64), (64, 64)), pack_cells(np.stack([mask] * 3), 4)

    def found(*click):
        clicked = dataclasses.replace(record, clicks=((), (Click(*click),)))
        return first_clicks(clicked, [1, 0], cells, placement, 4).tolist()

    for x, y in [(8, 8), (11, 11), (7.5, 11.25), (11.49, 8)]:
        assert found(x, y, 1) == [[pytest.approx(x), y, 1], [0, 0, 0], [0, 0, 0]]
    for x, y in [(12, 8), (7, 8), (8, 12), (11.5, 8), (-3, 8), (70, 8)]:
        assert found(x, y, 1) == [[0, 0, 0]] * 3
    assert found(8, 8, 0) == [[0, 0, 0]] * 3


def test_batches_are_the_same_but_for_the_clicks(make):
    options = {"data": {"flip": 0.5, "scale": (0.5, 2.0), "masks_per_image": 2}}
    with_clicks, without = make(**options).batch_at(2), make(clicks=False, **options).batch_at(2)
    assert without.clicks is None
    for field in dataclasses.fields(without):
        if field.name != "clicks":
            np.testing.assert_array_equal(getattr(with_clicks, field.name), getattr(without, field.name))


def test_old_data_between_the_new_keep_their_clicks_and_may_have_none(make, tmp_path):
    plain = Clicked(clicks=())
    for new, old, expected in ((plain, Clicked(), 2), (Clicked(), plain, 6)):
        mixed = OldData(old, BadRecords(tmp_path / "old.jsonl", 1.0))
        batch = make(new, data={"mix_share": 0.25}, old=mixed).batch_at(0)
        assert (batch.clicks[..., 2] == 1).sum() == expected


def test_validation_has_no_recorded_clicks(make):
    assert make(validation_images=4).batch_at(0).clicks is None


# Data without clicks


@pytest.fixture
def open_as(monkeypatch):
    """Sources as `open_sources` gives them, where `work` opens the one and `labelmap` the other."""

    def open_as(work, other):
        from samjax.readers import sources

        for form, source in (("work", work), ("labelmap", other)):
            monkeypatch.setitem(sources.FORMATS, form, (lambda path, source=source: source, ("FOLDER",)))
        return sources.open_sources(["labelmap=a", "work=b"])

    return open_as


def test_clicks_are_looked_for_in_formats_that_keep_them_and_no_further_than_the_first(open_as):
    class Bad(Clicked):
        def _read(self, index):
            if index == 0:
                raise BadRecord("planted")
            return super()._read(index)

    work, other = Bad(), Clicked()
    joined = open_as(work, other)
    check_clicks(InteractionConfig(), {"data.train": joined})
    assert work.read == other.read == []
    check_clicks(InteractionConfig(recorded_share=0.5), {"data.train": joined})
    assert (work.read, other.read) == ([1], [])


@pytest.mark.parametrize("clicks", [(), ((),) * 4, ((Click(1, 1, 0), Click(15, 12, 1)), (), (), ())])
def test_data_without_clicks_are_refused_where_some_are_to_be_shown(open_as, clicks):
    joined = open_as(Clicked(clicks=clicks), Clicked())
    with pytest.raises(ValueError, match=r"recorded_share is 0\.5, .* of data\.train or data\.mix .*\(work\)"):
        check_clicks(InteractionConfig(recorded_share=0.5), {"data.train": joined, "data.mix": joined})


# From the page's work to a batch


def test_a_click_of_the_page_comes_to_the_batch_with_its_mask(make, tmp_path):
    """The photo is 48 x 64, the model's input 64 wide: nothing is scaled."""
    source = open_sources([f"work={write_work(tmp_path / 'work')}"])
    check_clicks(InteractionConfig(recorded_share=1.0), {"data.train": source})
    batch = make(source).batch_at(0)
    assert batch.valid.sum() == 16
    for row in range(8):
        [[slot]] = np.argwhere(batch.clicks[row, :, 2]).tolist()
        assert batch.clicks[row, slot].tolist() == [20, 15, 1]
        np.testing.assert_array_equal(unpack_cells(batch.cells[row, slot], 2)[:48], disc(20, 15))
