"""Segmentations as checked run-length encodings; pycocotools is the oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from samjax.ops.rle import as_text
from samjax.readers import masks
from samjax.readers.left_out import Problem, Reason
from samjax.readers.record import BadRecord

SIZE = (40, 60)
RGB = np.zeros((*SIZE, 3), np.uint8)


def random_masks(count: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.random(SIZE) < random.random() ** 3 for _ in range(count)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_sound_encodings_have_no_flaw_whatever_their_company(seed, count):
    arrays = [array | (np.arange(60) == seed % 60) for array in random_masks(count, seed)]
    rles = [as_text(coco.encode(np.asfortranarray(array, np.uint8))) for array in arrays]
    assert masks.mask_flaws(rles, SIZE) == [None] * count
    broken = {"size": list(SIZE), "counts": rles[0]["counts"][:-1] + "~"}
    assert [flaw is None for flaw in masks.mask_flaws([broken, *rles, broken], SIZE)] == [False, *[True] * count, False]


@given(st.binary(min_size=1, max_size=40).map(lambda data: "".join(chr(48 + byte % 64) for byte in data)))
def test_what_passes_is_what_pycocotools_can_decode(counts):
    sound = as_text(coco.encode(np.asfortranarray(random_masks(1, 3)[0], np.uint8)))
    rle = {"size": list(SIZE), "counts": counts}
    first, flaw, last = masks.mask_flaws([sound, rle, sound], SIZE)
    assert first is last is None
    if flaw is None:
        assert coco.encode(coco.decode(rle))["counts"] != b""
        assert int(coco.area(rle)) == coco.decode(rle).sum() > 0


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=9))
def test_runs_that_do_not_add_up_are_found(runs):
    rle = as_text(coco.frPyObjects({"size": list(SIZE), "counts": runs}, *SIZE))
    (flaw,) = masks.mask_flaws([rle], SIZE)
    if sum(runs) != 2400:
        assert f"cover {sum(runs)} pixels" in str(flaw)
    else:
        assert (flaw is None) == (sum(runs[1::2]) > 0)


def test_empty_and_full_masks():
    empty, full = (as_text(coco.encode(np.full(SIZE, value, np.uint8, "F"))) for value in (0, 1))
    flaws = masks.mask_flaws([empty, full, {"size": SIZE, "counts": ""}], SIZE)
    assert list(map(str, flaws)) == ["its mask is empty", "None", "its mask has no runs"]
    assert masks.mask_flaws([], SIZE) == []


def test_texts_that_would_lead_pycocotools_astray_are_refused():
    half = coco.frPyObjects({"size": list(SIZE), "counts": [1200, 1200]}, *SIZE)["counts"].decode()
    full = coco.frPyObjects({"size": list(SIZE), "counts": [0, 2400]}, *SIZE)["counts"].decode()
    breaks_off = half + "P"  # a digit that says that more follow
    endless = "P" * 13 + full  # the first number has more digits than a number can have
    assert masks.mask_flaws([{"size": SIZE, "counts": text} for text in (half, full)], SIZE) == [None, None]
    for text in (breaks_off, endless):
        (flaw,) = masks.mask_flaws([{"size": SIZE, "counts": text}], SIZE)
        assert str(flaw) == "its counts are no run-length encoding"


def test_labels_become_their_pixels():
    random = np.random.default_rng(0)
    for values in ([1, 2, 3], [7, 400, 65_000], [-1, 5, 2**31 - 1], [-3, -2]):
        labels = random.choice(np.array([0, *values]), SIZE)
        found = dict(masks.rles_from_labels(labels))
        assert found.keys() == {value for value in values if value > 0}
        for value, rle in found.items():
            np.testing.assert_array_equal(coco.decode(rle), labels == value)
    assert not dict(masks.rles_from_labels(np.zeros(SIZE, np.uint16)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_the_largest_number_of_a_type_is_a_label_like_others(dtype):
    most = np.iinfo(dtype).max
    labels = np.arange(most - 99, most + 1).astype(dtype).reshape(10, 10)
    found = dict(masks.rles_from_labels(labels))
    assert list(found) == labels.ravel().tolist()
    np.testing.assert_array_equal(coco.decode(found[most]), labels == most)


@pytest.mark.parametrize("values", [[1, 2**32 - 1], [2**31, 2**31 + 1], [3, 2**63, 2**64 - 1]])
def test_numbers_beyond_signed_ones_are_labels(values):
    labels = np.random.default_rng(0).choice(np.array([0, *values], np.uint64), SIZE)
    labels = labels.astype(np.uint32) if max(values) < 2**32 else labels
    found = dict(masks.rles_from_labels(labels))
    assert list(found) == values
    for value, rle in found.items():
        np.testing.assert_array_equal(coco.decode(rle), labels == np.uint64(value))


POLYGON = [3.5, 4.0, 30.25, 6.0, 20.0, 33.0]


@pytest.mark.parametrize(
    "polygons",
    [[POLYGON], [POLYGON, [40, 1, 55, 1, 55, 20, 40, 20]], [POLYGON, [1, 1, 2, 2]], [[-2, 5, 63, 5, 50, 43]]],
)
def test_polygons_are_drawn_as_pycocotools_does(polygons):
    expected = coco.decode(coco.merge(coco.frPyObjects([p for p in polygons if len(p) > 4], *SIZE)))
    np.testing.assert_array_equal(coco.decode(masks.rle_from_coco(polygons, SIZE)), expected)


MALFORMED = {
    "no polygon": [],
    "two points": [[1, 2, 3, 4]],
    "odd": [[1, 2, 3, 4, 5, 6, 7]],
    "text": [["a", "b", "c", "d", "e", "f"]],
    "flat": [1, 2, 3, 4, 5, 6],
    "NaN": [[1, 2, 3, 4, float("nan"), 6]],
    "far outside": [[1, 2, 3, 4, 500, 6]],
    "swapped": [[5, 58, 20, 58, 20, 90]],
    "negative runs": {"size": [40, 60], "counts": [2500, -100]},
    "nested runs": {"size": [40, 60], "counts": [[1, 2], 3]},
    "fractions": {"size": [40, 60], "counts": [1199.5, 1200.5]},
    "missing runs": {"size": [40, 60], "counts": [None, 2400]},
    "huge": [[1, 2, 3, 4, 5, 10**400]],
    "a size that is none": {"size": [40, "60.5"], "counts": [2400]},
    "runs of another size": {"size": [40, 60], "counts": [2000, 100]},
    "another size": {"size": [60, 40], "counts": [2400]},
    "no size": {"counts": [2400]},
    "number": 7,
    "none": None,
    "counts": {"size": [40, 60], "counts": 5},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_segmentations_are_refused(case):
    with pytest.raises(ValueError, match=r"its |no polygon"):
        masks.rle_from_coco(MALFORMED[case], SIZE)


def test_sizes_and_runs_may_be_written_as_floats_or_text():
    expected = masks.rle_from_coco({"size": [40, 60], "counts": [1000, 200, 1200]}, SIZE)
    for form in (float, str, lambda number: f"{number}.0"):
        written = {"size": list(map(form, [40, 60])), "counts": list(map(form, [1000, 200, 1200]))}
        assert masks.rle_from_coco(written, SIZE) == expected
    text = {"size": ["40", 60.0], "counts": expected["counts"]}
    assert masks.rle_from_coco(text, SIZE) == expected
    ring = [3.5, 4, 30.25, 6, 20, 33]
    assert masks.rle_from_coco([list(map(str, ring))], SIZE) == masks.rle_from_coco([ring], SIZE)


def test_a_record_without_a_sound_mask_is_bad():
    found = masks.Findings("photo", RGB)
    found.add("annotation 5", {"size": list(SIZE), "counts": "~"}, 5)
    with pytest.raises(BadRecord, match="annotation 5: its counts are no run-length encoding") as caught:
        found.record()
    assert caught.value.reason == Reason.NO_USABLE_MASK


def test_a_photo_without_annotations_or_with_empty_masks_has_no_objects():
    found = masks.Findings("photo", RGB)
    assert found.record().masks == ()
    found.add("annotation 5", as_text(coco.encode(np.zeros(SIZE, np.uint8, "F"))), 5)
    record = found.record()
    assert record.masks == ()
    assert record.problems == (Problem("annotation 5", "its mask is empty", Reason.EMPTY),)


def test_ids_that_come_again_are_told_apart():
    found = masks.Findings("photo", RGB)
    full = as_text(coco.encode(np.ones(SIZE, np.uint8, "F")))
    for identity in (0, "0 (2)", 0, 7, 0, "0 (2)"):
        found.add("mask", full, identity)
    assert found.record().ids == (0, "0 (2)", "0 (3)", 7, "0 (4)", "0 (2) (2)")
