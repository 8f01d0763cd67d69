"""The opacity of a picture is the binary mask, if it is a cut-out's."""

import example_pictures
import numpy as np
import pytest
from example_pictures import relabelled, saved, white
from PIL import Image

from samjax import pictures
from samjax.foreground import EmptyMask
from samjax.maps import read_mask


@pytest.fixture
def ellipse() -> np.ndarray:
    return example_pictures.ellipse()


@pytest.fixture
def labels() -> np.ndarray:
    return example_pictures.three_labels()


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (120, 160, 3)).astype(np.uint8)


@pytest.mark.parametrize("form", ["png", "tiff"])
@pytest.mark.parametrize("kind", ["everywhere", "cleared", "with black", "white", "black", "black on white"])
def test_the_opacity_of_a_cut_out_is_the_mask(ellipse, colours, kind, form):
    shown = {
        "everywhere": colours,
        "cleared": colours * ellipse[..., None],  # what cannot be seen is black
        "with black": colours * (colours[..., :1] > 20),
        "white": np.full_like(colours, 255),
        "black": np.zeros_like(colours),
        "black on white": np.dstack([white(~ellipse)] * 3),
    }[kind]
    np.testing.assert_array_equal(read_mask(saved(np.dstack([shown, white(ellipse)]), form)), ellipse)


def test_grey_and_palettes_have_opacity_too(ellipse, colours):
    np.testing.assert_array_equal(read_mask(saved(np.dstack([colours[..., 0], white(ellipse)]))), ellipse)
    few = Image.fromarray(np.dstack([colours, white(ellipse)])).quantize(200)
    assert few.mode == "P"
    np.testing.assert_array_equal(read_mask(saved(few)), ellipse)


@pytest.mark.parametrize("form", ["png", "tiff", "gif", "webp"])
@pytest.mark.parametrize("number", [2, 8, 32])
def test_a_cut_out_in_flat_colours_is_its_opacity(ellipse, number, form):
    """As icons are, and photos of few colours."""
    flat = np.array([(40, 250, 90), *np.random.default_rng(0).integers(30, 255, (31, 3))], np.uint8)
    shown = flat[np.arange(ellipse.size).reshape(ellipse.shape) // (40 * 160) * 11 % number]
    picture = Image.fromarray(np.dstack([shown, white(ellipse)]))
    kept = {"lossless": True} if form == "webp" else {}
    np.testing.assert_array_equal(read_mask(saved(picture, form, **kept)), ellipse)
    np.testing.assert_array_equal(read_mask(saved(picture.convert("LA"))), ellipse)
    np.testing.assert_array_equal(read_mask(saved(picture.quantize(number + 1))), ellipse)


def test_that_opacity_counts_and_flat_colours_do_not_is_said_once(labels, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "_said", set())
    coloured = relabelled(labels, [(255, 0, 0), (0, 255, 0), (0, 0, 255)])
    for _ in range(2):
        found = read_mask(saved(np.dstack([coloured, white(labels > 0)])), name="a.png")
        np.testing.assert_array_equal(found, labels > 0)
    (record,) = caplog.records
    assert "a.png has areas of 3 colours and is transparent elsewhere: opacity is the mask" in record.getMessage()


def test_opacity_of_several_levels_is_cut_at_half(ellipse, colours):
    """Shadows are no objects, and quantising leaves a trace of opacity in the background."""
    alpha = np.where(ellipse, 255, 2).astype(np.uint8)
    alpha[:20], alpha[-20:] = 100, 180
    np.testing.assert_array_equal(read_mask(saved(np.dstack([colours, alpha]))), alpha > 127)


def test_opacity_that_is_nowhere_0_is_no_mask(ellipse, colours):
    dim = np.where(ellipse, 230, 30).astype(np.uint8)
    np.testing.assert_array_equal(read_mask(saved(np.dstack([white(ellipse)] * 3 + [dim]))), ellipse)
    with pytest.raises(ValueError, match=r"photo\?.*where the opacity is the mask, keep only that: image\.getchannel"):
        read_mask(saved(np.dstack([colours, dim])))


def test_smooth_opacity_is_cut_at_half(ellipse, colours):
    smooth = np.asarray(Image.fromarray(white(ellipse)).resize((80, 60), Image.Resampling.BOX))
    for shown in (colours[:60, :80], np.full((60, 80, 3), 255, np.uint8), np.zeros((60, 80, 3), np.uint8)):
        np.testing.assert_array_equal(read_mask(saved(np.dstack([shown, smooth]))), smooth >= 128)


def test_a_mask_that_is_drawn_on_a_part_of_the_picture_is_what_can_be_seen(ellipse):
    on_paper = np.zeros_like(ellipse)
    on_paper[10:110, 10:150] = True
    drawn = white(ellipse)
    drawn[:5] = 255  # where nothing can be seen
    picture = np.dstack([drawn, drawn, drawn, white(on_paper)])
    np.testing.assert_array_equal(read_mask(saved(picture)), ellipse & on_paper)


@pytest.mark.parametrize("opacity", [0, 128, 255])
def test_colours_are_the_mask_where_opacity_is_the_same_everywhere(ellipse, opacity):
    picture = np.dstack([white(ellipse)] * 3 + [np.full(ellipse.shape, opacity, np.uint8)])
    np.testing.assert_array_equal(read_mask(saved(picture)), ellipse)


def test_a_black_opaque_picture_is_empty(ellipse):
    with pytest.raises(EmptyMask, match="is empty: all of its pixels are 0"):
        read_mask(saved(np.dstack([np.zeros((*ellipse.shape, 3), np.uint8), white(ellipse | True)])))
