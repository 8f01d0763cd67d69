"""Pictures that are given as a binary mask and are none: several objects, photos and what has no foreground."""

import example_pictures
import numpy as np
import pytest
from example_pictures import relabelled, saved, tiff, white
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samjax import assets
from samjax.maps import read_mask

INSTEAD = "several objects; give it as labelmap="


@pytest.fixture
def labels() -> np.ndarray:
    return example_pictures.three_labels()


SEVERAL = {
    "small numbers": lambda labels: saved(labels),
    "small fractions": lambda labels: tiff(labels.astype(np.float32)),
    "no background": lambda labels: saved((labels > 0).astype(np.uint8) + np.uint8(1)),
    "16 bits": lambda labels: saved(labels.astype(np.uint16) * np.uint16(20_000)),
    "void": lambda labels: saved(np.where(labels > 1, 255, labels).astype(np.uint8)),
    "three of grey": lambda labels: saved(relabelled(labels, [85, 170, 255])),
    "two of light grey": lambda labels: saved(relabelled(labels, [240, 255, 240])),
    "trimap": lambda labels: saved(relabelled(labels, [128, 255, 255])),
    "jpeg": lambda labels: saved(relabelled(labels, [85, 170, 255]), "jpeg", quality=60),
    "webp": lambda labels: saved(relabelled(labels, [85, 170, 255]), "webp", quality=60),
    "png since": lambda labels: saved(Image.open(saved(relabelled(labels, [85, 170, 255]), "jpeg", quality=60))),
    "colours": lambda labels: saved(relabelled(labels, [(255, 0, 0), (0, 255, 0), (0, 0, 255)])),
    "colours in jpeg": lambda labels: saved(relabelled(labels, [(255, 0, 0), (0, 255, 0), (0, 0, 255)]), "jpeg"),
    "a small one in jpeg": lambda labels: saved(relabelled(labels, [(0, 255, 0), (255, 0, 0), (255, 0, 0)]), "jpeg"),
    "colours on black with opacity": lambda labels: saved(
        np.dstack([relabelled(labels, [(255, 0, 0), (0, 255, 0), (0, 0, 255)]), white(np.indices(labels.shape)[0] > 5)])
    ),
    "red on white": lambda labels: saved(np.where(labels[..., None] > 0, (255, 0, 0), 255).astype(np.uint8)),
    "a palette": lambda labels: saved(_with_palette(labels)),
    "a speck": lambda labels: saved(_with_speck(white(labels == 3), 3, 128)),
    "a speck without an inside": lambda labels: saved(_with_speck(white(labels == 3), 2, 128)),
    "a speck beside smooth edges": lambda labels: saved(_with_speck(_turned(white(labels == 3)) & 224, 3, 128)),
    "a white speck in jpeg": lambda labels: saved(_with_speck(white(labels == 3) // 2, 4, 255), "jpeg", quality=90),
}


def _with_speck(mask: np.ndarray, height: int, grey: int) -> np.ndarray:
    speck = np.array(mask)
    speck[4 : 4 + height, 4:8] = grey
    return speck


def _turned(mask: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).rotate(7, Image.Resampling.BILINEAR))


def _with_palette(labels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(labels)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    return picture


@pytest.mark.parametrize("kind", SEVERAL)
def test_what_tells_objects_apart_is_refused(labels, kind):
    with pytest.raises(ValueError, match=INSTEAD):
        read_mask(SEVERAL[kind](labels))


IDS = {dtype: st.integers(1, np.iinfo(dtype).max) for dtype in ("uint8", "uint16", "int32")}


@st.composite
def label_maps(draw) -> np.ndarray:
    """Two to five rectangles that may touch, each of another number."""
    dtype = draw(st.sampled_from(sorted(IDS)))
    first = draw(IDS[dtype])
    near = st.integers(max(first - 4, 1), min(first + 4, np.iinfo(dtype).max))
    ids = draw(
        st.lists(st.one_of(IDS[dtype], near), min_size=1, max_size=4, unique=True).filter(lambda ids: [first] != ids)
    )
    labels = np.zeros((40, 100), dtype)
    for number, value in enumerate(dict.fromkeys([first, *ids])):
        gap, height, width = draw(st.integers(0, 2)), draw(st.integers(3, 36)), draw(st.integers(3, 18))
        labels[gap : gap + height, 20 * number + gap : 20 * number + gap + width] = value
    return labels


@settings(max_examples=80, deadline=None)
@given(label_maps())
def test_objects_of_any_numbers_are_refused(labels):
    with pytest.raises(ValueError, match=INSTEAD):
        read_mask(tiff(labels))


@pytest.mark.parametrize(
    "ids", [(33, 34, 34), (254, 255, 255), (120, 121, 122), (5, 100, 101), (4, 250, 255), (128, 255, 255)]
)
def test_objects_of_numbers_that_look_like_noise_are_refused(labels, ids):
    with pytest.raises(ValueError, match=f"areas of the numbers {ids[0]}, .*{INSTEAD}"):
        read_mask(saved(relabelled(labels, ids)))


@pytest.mark.parametrize("form", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("greys", [(5, 100, 255), (255, 225, 255), (40, 255, 255), (180, 200, 220)])
def test_areas_that_are_well_apart_are_told_apart_in_lossy_formats(labels, form, greys):
    with pytest.raises(ValueError, match=f"areas of several greys.*{INSTEAD}"):
        read_mask(saved(relabelled(labels, greys), form, quality=75))


@pytest.mark.parametrize("side", [2, 5])
def test_a_map_of_a_thousand_small_objects_is_refused(side):
    labels = np.zeros((150, 150), np.uint16)
    corners = np.arange(0, 148 - side, side + 2)
    for number, (row, column) in enumerate(np.stack(np.meshgrid(corners, corners), -1).reshape(-1, 2), 1):
        labels[row : row + side, column : column + side] = number
    with pytest.raises(ValueError, match=INSTEAD):
        read_mask(saved(labels))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_photo_is_no_mask(mode):
    for scene in ("astronaut", "cat", "rocket"):
        picture = Image.open(assets.photo(scene)).convert(mode)
        for file in (saved(picture), saved(picture, "jpeg")):
            with pytest.raises(ValueError, match=r"is it a photo|areas of several"):
                read_mask(file)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((9, 9), np.uint8), "is empty: all of its pixels are 0"),
        (np.where(np.eye(9) > 0, 2, -1).astype(np.int16), r"negative numbers \(down to -1\)"),
        (np.where(np.eye(9) > 0, 2, np.nan).astype(np.float32), "NaN or infinity"),
        (np.where(np.eye(9) > 0, 250, 190 + np.arange(81).reshape(9, 9) / 9), "no background: .* 190.111 to 250"),
        (np.zeros((5, 9, 9), np.uint8) + np.uint8(1), "5 pages, a mask has one"),
        (np.ones((9, 9, 5), np.uint8), "5 bands of uint8"),
        (np.ones((9, 9), np.complex64), "1 band of complex64"),
    ],
)
def test_what_is_no_mask_is_said(values, message):
    planes = {"planarconfig": "contig"} if values.shape[-1] == 5 else {}
    with pytest.raises(ValueError, match=rf"a\.tif.*{message}"):
        read_mask(tiff(values, photometric="minisblack", **planes), name="a.tif")


def test_small_numbers_do_not_survive_a_lossy_format(labels):
    with pytest.raises(ValueError, match=r"saved lossy with values up to [12]"):
        read_mask(saved((labels > 0).astype(np.uint8), "jpeg", quality=95))
