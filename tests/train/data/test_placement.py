"""Photo and masks stay together whatever the placement, and unaugmented training sees what inference sees."""

import numpy as np
import pytest
from example_models import random_photo
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from samjax.ops.rle import as_text, encode_rle
from samjax.train.data.placement import PlacedMask, Placement, place_photo
from samjax.transforms import input_size, resize_photo


def compressed(mask: np.ndarray) -> dict:
    """A mask as sources give it."""
    return as_text(coco.encode(np.asfortranarray(mask, np.uint8)))


def whole(placed: PlacedMask) -> np.ndarray:
    return placed.draw((0, 0, *placed.placement.size[::-1]))


@st.composite
def placements(draw) -> Placement:
    original, scaled = (tuple(draw(st.integers(1, 40)) for _ in range(2)) for _ in range(2))
    size = tuple(draw(st.integers(1, side)) for side in scaled)
    corner = tuple(draw(st.integers(0, side - part)) for side, part in zip(scaled, size, strict=True))
    return Placement(original, scaled, corner, size, draw(st.booleans()))


def sampled(mask: np.ndarray, placement: Placement) -> np.ndarray:
    """The mask at the centres of INPUT pixels, by definition."""
    height, width = placement.size
    y, x = np.mgrid[:height, :width] + 0.5
    x = width - x if placement.flip else x
    y = (y + placement.corner[0]) / placement.scaled[0] * placement.original[0]
    x = (x + placement.corner[1]) / placement.scaled[1] * placement.original[1]
    # centres that fall between two pixels of the photo belong to the later one, however floats round
    return mask[np.floor(y + 1e-9).astype(int), np.floor(x + 1e-9).astype(int)]


@given(placements(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
def test_masks_are_sampled_at_the_centres_of_input_pixels(placement, seed, share):
    mask = np.random.default_rng(seed).random(placement.original) < share
    placed, expected = PlacedMask.of(compressed(mask), placement), sampled(mask, placement)
    np.testing.assert_array_equal(whole(placed), expected)
    assert placed.area == expected.sum()
    assert placed.cover == mask.mean()
    x0, y0, x1, y1 = placed.box
    np.testing.assert_array_equal(placed.draw(placed.box), expected[y0:y1, x0:x1])
    outside = expected.copy()
    outside[y0:y1, x0:x1] = False
    assert not outside.any()


def test_the_box_of_a_small_mask_is_small():
    mask = np.zeros((300, 400), bool)
    mask[100:120, 200:240] = True
    placed = PlacedMask.of(compressed(mask), Placement((300, 400), (150, 200), (0, 0), (150, 200), False))
    assert placed.box == (100, 50, 120, 60)
    mirrored = PlacedMask.of(compressed(mask), Placement((300, 400), (150, 200), (0, 0), (150, 200), True))
    assert mirrored.box == (80, 50, 100, 60)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 4\) belongs to a photo of size \(4, 3\)"):
        PlacedMask.of(compressed(np.ones((3, 4), bool)), Placement.fitting((4, 3), (8, 8)))


def test_runs_as_text_are_read_as_well():
    mask = np.eye(9, dtype=bool)
    np.testing.assert_array_equal(whole(PlacedMask.of(encode_rle(mask), Placement.fitting((9, 9), (9, 9)))), mask)


@pytest.mark.parametrize("size", [(60, 90), (97, 41), (500, 333), (64, 64)])
def test_a_fitting_photo_is_what_inference_sees(size):
    photo = random_photo(*size)
    placement = Placement.fitting(size, (64, 64))
    fitted = input_size(size, (64, 64))
    assert placement.size == placement.scaled == fitted
    np.testing.assert_array_equal(place_photo(photo, placement), resize_photo(photo, fitted))


def smooth_region(height: int, width: int, shape: str) -> np.ndarray:
    y, x = (np.mgrid[:height, :width] + 0.5) / max(height, width)
    if shape == "disc":
        return (x - 0.45) ** 2 + (y - 0.35) ** 2 < 0.22**2
    return 0.8 * x + 0.6 * y < 0.55


@pytest.mark.parametrize("shape", ["disc", "half-plane"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("scaled", "corner", "size"),
    [
        ((64, 96), (0, 0), (64, 96)),  # smaller
        ((200, 300), (0, 0), (200, 300)),  # as it is
        ((410, 615), (33, 81), (256, 256)),  # larger, a crop
        ((150, 225), (20, 41), (100, 128)),  # smaller, a crop
        ((611, 917), (110, 430), (80, 120)),  # a crop at three times the size
    ],
)
def test_photo_and_mask_stay_registered_to_a_fraction_of_a_pixel(shape, flip, scaled, corner, size):
    """The photo is a picture of the mask, so where the photo is all white or all black, the mask must agree; and the
    two boundaries enclose the same area to a fraction of a pixel along their length."""
    mask = smooth_region(200, 300, shape)
    placement = Placement((200, 300), scaled, corner, size, flip)
    photo = place_photo(np.repeat(mask[:, :, None], 3, 2).astype(np.uint8) * 255, placement)[:, :, 0] / 255
    drawn = whole(PlacedMask.of(compressed(mask), placement))
    assert drawn[photo == 1].all()
    assert not drawn[photo == 0].any()
    length = max(int(((photo > 0.5)[1:] != (photo > 0.5)[:-1]).sum()), int(np.diff(photo > 0.5).sum()), 1)
    assert abs(photo.sum() - drawn.sum()) / length < 0.25
    for axis in (0, 1):  # centres of mass
        place = np.arange(size[axis])
        middle = [(share.sum(1 - axis) * place).sum() / share.sum() for share in (photo, drawn)]
        assert abs(middle[0] - middle[1]) < 0.25


def test_a_crop_is_the_crop_of_the_scaled_photo():
    photo = random_photo(200, 300)
    placement = Placement((200, 300), (410, 615), (33, 81), (256, 256), False)
    scaled = resize_photo(photo, (410, 615))[33:289, 81:337]
    ours = place_photo(photo, placement)
    # Pillow's filter ends at the window's edges, and its 8-bit passes round
    apart = np.abs(ours[2:-2, 2:-2].astype(int) - scaled[2:-2, 2:-2])
    assert apart.max() <= 2
    assert apart.mean() < 0.05
    mirrored = place_photo(photo, Placement((200, 300), (410, 615), (33, 81), (256, 256), True))
    np.testing.assert_array_equal(mirrored, ours[:, ::-1])


def test_masks_of_real_size_agree_with_pillow_at_nearest_neighbours():
    mask = smooth_region(1500, 2250, "disc")
    placement = Placement.fitting((1500, 2250), (1024, 1024))
    nearest = Image.fromarray(mask.astype(np.uint8)).resize(placement.size[::-1], Image.Resampling.NEAREST)
    np.testing.assert_array_equal(whole(PlacedMask.of(compressed(mask), placement)), np.asarray(nearest).astype(bool))
