import numpy as np
import pytest

from samjax.amg.labels import label_map
from samjax.ops.rle import encode_rle, run_lengths


def record(segmentation, iou: float = 0.5) -> dict:
    return {"segmentation": segmentation, "predicted_iou": iou}


def box_mask(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((20, 30), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_the_smallest_mask_has_the_pixel():
    whole, part = box_mask(2, 2, 20, 18), box_mask(5, 5, 9, 9)
    labels = label_map([record(part, 0.1), record(whole, 0.9)], (20, 30))
    np.testing.assert_array_equal(labels, np.where(part, 1, np.where(whole, 2, 0)))


def test_among_equal_masks_the_better_one_and_then_the_earlier_one_has_the_pixel():
    left, right = box_mask(0, 0, 10, 10), box_mask(5, 0, 15, 10)
    assert label_map([record(left, 0.5), record(right, 0.6)], (20, 30))[0, 7] == 2
    assert label_map([record(left, 0.5), record(right, 0.5)], (20, 30))[0, 7] == 1


def test_a_hidden_mask_has_no_pixel_and_the_labels_stay_record_numbers():
    hidden = box_mask(0, 0, 10, 10)
    halves = [box_mask(0, 0, 5, 10), box_mask(5, 0, 10, 10)]
    labels = label_map([record(mask) for mask in (hidden, *halves)], (20, 30))
    assert np.unique(labels).tolist() == [0, 2, 3]


def test_every_form_of_segmentation_gives_the_same_map():
    masks = [box_mask(0, 0, 10, 10), box_mask(8, 3, 25, 20)]
    rles = [encode_rle(mask) for mask in masks]
    runs = [{"size": rle["size"], "counts": run_lengths(rle).tolist()} for rle in rles]
    maps = [label_map([record(segmentation) for segmentation in form], (20, 30)) for form in (masks, rles, runs)]
    assert maps[0].dtype == np.int32
    assert all((other == maps[0]).all() for other in maps[1:])


def test_nothing_found_is_all_background():
    assert not label_map([], (20, 30)).any()


def test_masks_of_another_photo_are_refused():
    with pytest.raises(ValueError, match=r"record 0 has a mask of size \[20, 30\], the photo has \(30, 20\)"):
        label_map([record(box_mask(0, 0, 1, 1))], (30, 20))


def test_runs_may_be_bytes_as_pycocotools_makes_them():
    mask = box_mask(3, 2, 9, 8)
    rle = encode_rle(mask) | {"counts": encode_rle(mask)["counts"].encode("ascii")}
    np.testing.assert_array_equal(label_map([record(rle)], (20, 30)), mask.astype(np.int32))
