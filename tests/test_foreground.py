"""Binary masks from pictures: what was saved lossy or smooth is what was drawn.

What was drawn is the oracle, and Pillow's codecs and filters do to it what people's tools do.
"""

import example_pictures
import numpy as np
import pytest
from example_pictures import saved, tiff, white
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from samjax import pictures
from samjax.maps import read_mask


@pytest.fixture
def ellipse() -> np.ndarray:
    return example_pictures.ellipse()


LOSSY = {
    "jpeg 95": ("jpeg", {"quality": 95}),
    "jpeg 30": ("jpeg", {"quality": 30}),
    "webp": ("webp", {"quality": 60}),
    "avif": ("avif", {"quality": 50}),
    "jpeg 2000": ("jpeg2000", {"irreversible": True, "quality_mode": "dB", "quality_layers": [35]}),
    "tiff": ("tiff", {"compression": "jpeg"}),
}


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.parametrize("channels", ["grey", "colours", "png since"])
def test_a_mask_that_was_saved_lossy_is_what_was_drawn(ellipse, kind, channels):
    form, options = LOSSY[kind]
    drawn = np.dstack([white(ellipse)] * 3) if channels == "colours" else white(ellipse)
    file = saved(drawn, form, **options)
    if channels == "png since":
        file = saved(Image.open(file).convert("L"))
    wrong = read_mask(file) != ellipse
    assert wrong.mean() < 0.003
    assert not wrong[[0, -1]].any()


def test_a_mask_in_one_colour_is_cut_by_that_colour(ellipse):
    drawn = ellipse[..., None] * np.array([220, 20, 60], np.uint8)
    np.testing.assert_array_equal(read_mask(saved(drawn)), ellipse)
    assert (read_mask(saved(drawn, "jpeg", quality=90)) != ellipse).mean() < 0.005


@pytest.mark.parametrize("grey", [60, 128, 220])
@pytest.mark.parametrize("quality", [20, 90])
def test_the_object_may_have_any_grey(ellipse, grey, quality):
    file = saved(ellipse.astype(np.uint8) * np.uint8(grey), "jpeg", quality=quality)
    assert (read_mask(file) != ellipse).mean() < 0.01


@pytest.mark.parametrize("numbers", ["8 bits", "16 bits", "fractions"])
def test_smooth_edges_are_cut_at_half_of_the_maximum(ellipse, numbers):
    large = Image.fromarray(white(ellipse))
    small = np.asarray(large.resize((80, 60), Image.Resampling.BOX))
    stored = {
        "8 bits": lambda: saved(small // 2),
        "16 bits": lambda: saved(small.astype(np.uint16) * 200),
        "fractions": lambda: tiff(small.astype(np.float32) / 510),
    }[numbers]()
    np.testing.assert_array_equal(read_mask(stored), small >= 128)


@pytest.mark.parametrize("two", ["bool", "1", "255", "65535", "-1", "0.5"])
def test_two_values_are_0_and_the_other(ellipse, two):
    stored = {
        "bool": lambda: saved(ellipse),
        "1": lambda: saved(ellipse.astype(np.uint8)),
        "255": lambda: saved(white(ellipse)),
        "65535": lambda: saved(ellipse.astype(np.uint16) * np.uint16(65535)),
        "-1": lambda: tiff(-ellipse.astype(np.int8)),
        "0.5": lambda: tiff(ellipse / 2, compression="lzw"),
    }[two]()
    np.testing.assert_array_equal(read_mask(stored), ellipse)


def test_specks_that_a_lossy_format_left_are_no_objects(ellipse):
    drawn = white(ellipse)
    drawn[:60:3] = np.clip(drawn[:60:3], 1, 254)
    np.testing.assert_array_equal(read_mask(saved(drawn)), ellipse)


SHAPES = st.builds(
    lambda x, y, width, height, turn, is_round: _drawn(x, y, width, height, turn, is_round),
    x=st.integers(95, 145),
    y=st.integers(95, 115),
    width=st.integers(40, 80),
    height=st.integers(40, 80),
    turn=st.integers(0, 89),
    is_round=st.booleans(),
)


def _drawn(x, y, width, height, turn, is_round) -> Image.Image:
    """An ellipse or a rectangle of half this width and height, turned, in a picture of 240 x 216 pixels."""
    picture = Image.new("L", (240, 216))
    draw = ImageDraw.Draw(picture)
    (draw.ellipse if is_round else draw.rectangle)([x - width, y - height, x + width, y + height], fill=255)
    return picture.rotate(turn, Image.Resampling.NEAREST)


def _overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return np.count_nonzero(found & truth) / np.count_nonzero(found | truth)


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.sampled_from(["jpeg", "webp"]), st.integers(30, 95), st.booleans())
def test_any_mask_survives_a_lossy_format(drawn, form, quality, in_colour):
    picture = drawn.convert("RGB") if in_colour else drawn
    found = read_mask(saved(picture, form, quality=quality))
    assert _overlap(found, np.asarray(drawn) > 0) > 0.98


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(2, 4), st.sampled_from(["LANCZOS", "BICUBIC", "BILINEAR", "BOX"]), st.booleans())
def test_any_mask_survives_another_size(drawn, factor, resampling, is_larger):
    """But for half a pixel along its edge, which is two of what was drawn where four have become one."""
    by = Image.Resampling[resampling]
    size = tuple(side * factor if is_larger else side // factor for side in drawn.size)
    found = read_mask(saved(drawn.resize(size, by)))
    back = Image.fromarray(found).resize(drawn.size, Image.Resampling.NEAREST)
    assert _overlap(np.asarray(back), np.asarray(drawn) > 0) > (0.95 if is_larger else 0.93)


@settings(max_examples=15, deadline=None)
@given(SHAPES, st.sampled_from([0.5, 1, 2, 3, 5]))
def test_any_mask_survives_blurring(drawn, radius):
    found = read_mask(saved(drawn.filter(ImageFilter.GaussianBlur(radius))))
    assert _overlap(found, np.asarray(drawn) > 0) > 0.95


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("resampling", ["BILINEAR", "BICUBIC"])
@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_thin_lines_survive_being_enlarged(factor, resampling, form):
    """Most of whose pixels are then edge. Half a pixel on each side of lines of two is a fifth of them."""
    random = np.random.default_rng(0)
    drawn = Image.new("L", (300, 200))
    for _ in range(15):
        ImageDraw.Draw(drawn).line([tuple(point) for point in random.integers(0, (300, 200), (4, 2)).tolist()], 255, 2)
    found = read_mask(saved(drawn.resize((300 * factor, 200 * factor), Image.Resampling[resampling]), form))
    assert _overlap(found, np.kron(np.asarray(drawn) > 0, np.ones((factor, factor), bool))) > 0.8


def test_a_smooth_edge_along_the_border_is_no_object(ellipse):
    drawn = white(ellipse)
    drawn[-2, 5:12], drawn[-1, 5:12] = 200, 100
    np.testing.assert_array_equal(read_mask(saved(drawn)), drawn > 127)


def test_what_is_white_is_foreground_where_0_is_white(ellipse):
    for mask in (~ellipse, white(~ellipse), white(~ellipse).astype(np.uint16) * np.uint16(257)):
        np.testing.assert_array_equal(read_mask(tiff(mask, photometric="miniswhite")), ellipse)


def test_smooth_edges_of_4_bits_are_no_labels(ellipse, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    from affine import Affine

    smooth = np.asarray(Image.fromarray(white(ellipse)).resize((80, 60), Image.Resampling.BOX))
    options = {"height": 60, "width": 80, "count": 1, "dtype": "uint8", "transform": Affine.scale(2)}
    with rasterio.open(tmp_path / "a.tif", "w", nbits=4, **options) as file:
        file.write(smooth >> 4, 1)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), smooth >= 128)


def test_palettes_count_by_index_or_by_their_greys(ellipse):
    for background, foreground in (([7, 7, 90], [200, 0, 0]), ([0, 0, 0], [255, 255, 255])):
        picture = Image.fromarray(ellipse.astype(np.uint8))
        picture.putpalette([*background, *foreground])
        np.testing.assert_array_equal(read_mask(saved(picture)), ellipse)
    picture = Image.fromarray((~ellipse).astype(np.uint8))
    picture.putpalette([255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(saved(picture)), ellipse)


def test_smooth_edges_of_a_palette_are_those_of_its_colours(ellipse):
    """Whatever the order of the palette."""
    smooth = np.asarray(Image.fromarray(white(ellipse)).resize((80, 60), Image.Resampling.LANCZOS))
    order = np.random.default_rng(0).permutation(256)
    picture = Image.fromarray(np.argsort(order).astype(np.uint8)[smooth])
    for colour in ([1, 1, 1], [1, 0.2, 0.1]):
        picture.putpalette((order[:, None] * np.array(colour)).astype(np.uint8).ravel().tolist())
        np.testing.assert_array_equal(read_mask(saved(picture)), smooth >= 128)


def test_cutting_is_said_once(ellipse, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "_said", set())
    read_mask(saved(white(ellipse)), name="white.png")
    assert not caplog.records
    for name in ("first.jpg", "second.jpg"):
        read_mask(saved(white(ellipse), "jpeg"), name=name)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "first.jpg has more than two values" in record.getMessage()
    assert "half of their maximum" in record.getMessage()
