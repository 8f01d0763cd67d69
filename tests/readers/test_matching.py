"""Which mask belongs to which photo."""

import pytest

from samjax.readers.left_out import Reason
from samjax.readers.matching import SUFFIXES, match_photos, stem


@pytest.fixture
def meet(tmp_path, write):
    """What photos and masks of these names make; of one folder where no masks are given."""

    def meet(photos, masks=None, suffix="_mask", **options):
        write(tmp_path / "i", dict.fromkeys(photos, b""))
        if masks is not None:
            write(tmp_path / "m", dict.fromkeys(masks, b""))
        pairs, flawed, left_out = match_photos(
            str(tmp_path / "i"), str(tmp_path / ("i" if masks is None else "m")), suffix, **options
        )
        return dict(pairs), {flaw.what: flaw for flaw in flawed}, left_out.photos

    return meet


@pytest.mark.parametrize("suffix", ["", *SUFFIXES, "_MASK", "_Labels"])
@pytest.mark.parametrize("ending", [".png", ".tif", ".ome.tif", ".OME.TIFF"])
@pytest.mark.parametrize("photo", ["x/cell.jpg", "x/cell.ome.tif"])
def test_a_mask_is_called_like_its_photo_with_a_suffix(meet, suffix, ending, photo):
    mask = f"x/cell{suffix}{ending}"
    assert meet([photo], [mask]) == ({photo: (mask,)}, {}, {})
    if suffix:
        assert meet([photo, mask]) == ({photo: (mask,)}, {}, {})


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b.ome.tif", "a/b"), ("b.OME.tiff", "b"), ("b.ome.png", "b.ome"), ("b", "b")]
)
def test_ome_is_part_of_a_tiffs_ending(name, expected):
    assert stem(name) == expected


def test_a_photo_that_is_called_like_a_mask_has_its_own(meet):
    photos = ["x.png", "x_mask.png", "ferrari_gt.jpg"]
    pairs, flawed, _ = meet(photos, ["x_mask.png", "x.png", "ferrari_gt_labels.png"])
    assert pairs == {"x.png": ("x.png",), "x_mask.png": ("x_mask.png",), "ferrari_gt.jpg": ("ferrari_gt_labels.png",)}
    assert not flawed


def test_in_one_folder_a_mask_has_its_photo_there(meet):
    names = ["a.png", "a_mask.png", "b_gt.jpg", "b_gt_masks.png", "c_labels.png", "d.png"]
    pairs, flawed, without = meet(names)
    assert pairs == {"a.png": ("a_mask.png",), "b_gt.jpg": ("b_gt_masks.png",)}
    assert list(flawed) == ["c_labels.png (masks)"]
    assert without == {Reason.NO_ANNOTATIONS: 1}


def test_the_suffix_of_the_format_comes_before_others(meet):
    masks = ["a_mask.png", "a_labels.png", "a_cp_masks.png"]
    assert meet(["a.jpg"], masks, "_labels") == ({"a.jpg": ("a_labels.png",)}, {}, {})
    assert meet(["a.jpg"], masks, "_mask") == ({"a.jpg": ("a_mask.png",)}, {}, {})


def test_what_may_belong_to_two_photos_belongs_to_none(meet):
    pairs, flawed, _ = meet(["a.jpg", "a_cp.jpg", "b.jpg"], ["a_cp_masks.png", "b_gt.png", "b_seg.png"])
    assert not pairs
    assert "a_cp.jpg and a.jpg" in flawed["a_cp_masks.png (masks)"].detail
    assert "several mask files of its name: b_gt.png, b_seg.png" in flawed["b.jpg"].detail
    assert {flaw.reason for flaw in flawed.values()} == {Reason.AMBIGUOUS}


def test_one_file_for_two_photos_of_its_name_is_an_error_that_names_both(meet):
    pairs, flawed, _ = meet(["x/a.jpg", "y/a.jpg", "z/b.jpg", "c.jpg"], ["a_mask.png", "b.png", "c.png", "d.png"])
    assert pairs == {"c.jpg": ("c.png",)}
    assert "it may belong to x/a.jpg or y/a.jpg" in flawed["a_mask.png (masks)"].detail
    assert "but z/b.jpg" in flawed["b.png (masks)"].detail
    assert flawed["d.png (masks)"].detail == "there is no photo of this name, nor of what stands before its suffix"
    assert {flaw.stray for flaw in flawed.values()} == {"files"}
