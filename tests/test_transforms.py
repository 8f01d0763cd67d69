import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samjax import VARIANTS, mask_prompt, transforms

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


# Sizes and coordinates


@given(sizes)
def test_a_photo_is_fitted_as_the_reference_fits_it(original):
    """`ResizeLongestSide.get_preprocess_shape` of segment_anything, but never less than one pixel."""
    scale = 1024 * 1.0 / max(original)
    expected = tuple(max(int(side * scale + 0.5), 1) for side in original)
    assert transforms.input_size(original, (1024, 1024)) == expected


@given(original=sizes, image_size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
def test_a_fitted_photo_fills_one_side_and_overflows_none(original, image_size):
    fitted = transforms.input_size(original, image_size)
    assert all(fit <= side for fit, side in zip(fitted, image_size, strict=True))
    assert any(fit == side for fit, side in zip(fitted, image_size, strict=True))


@given(original=sizes)
def test_the_photos_corners_are_the_inputs_corners(original):
    fitted = transforms.input_size(original, (1024, 1024))
    height, width = original
    corners = jnp.array([[0, 0], [width, 0], [0, height], [width, height]], jnp.float32)
    moved = transforms.to_input_frame(corners, jnp.array(original, jnp.int32), jnp.array(fitted, jnp.int32))
    expected = [[0, 0], [fitted[1], 0], [0, fitted[0]], [fitted[1], fitted[0]]]
    np.testing.assert_allclose(moved, expected, rtol=1e-6)


def test_each_axis_has_its_own_scale():
    """427 x 640 becomes 683 x 1024, and 683 / 427 is not 1024 / 640."""
    original, fitted = jnp.array([427, 640], jnp.int32), jnp.array([683, 1024], jnp.int32)
    moved = transforms.to_input_frame(jnp.array([100.0, 100.0]), original, fitted)
    np.testing.assert_allclose(moved, [160, 100 * 683 / 427], rtol=1e-6)


# Pixels


def test_pixels_are_normalised_and_padded_with_zeros():
    photo = random_photo(32, 64)
    pixels = transforms.to_pixels(photo, SMALL)
    mean, std = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
    np.testing.assert_array_equal(pixels[:32], (photo.astype(np.float32) - mean) / std)
    assert (pixels[32:] == 0).all()


def test_a_photo_is_resized_with_pillows_antialiasing_filter():
    photo = random_photo(100, 200)
    expected = np.asarray(Image.fromarray(photo).resize((64, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(transforms.resize_photo(photo, (32, 64)), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_the_tiniest_photos_are_taken(shape):
    assert np.isfinite(transforms.to_pixels(random_photo(*shape), SMALL)).all()


# Masks out


def test_upscaling_takes_the_references_two_steps():
    """Low-res to padded input, crop, input to original: here by JAX's own resizing."""
    original = (45, 100)
    logits = jnp.asarray(np.random.default_rng(0).standard_normal((2, *SMALL.mask_size)), jnp.float32)
    height, width = transforms.input_size(original, SMALL.image_size)
    padded = jax.image.resize(logits, (2, *SMALL.image_size), "linear", antialias=False)
    expected = jax.image.resize(padded[:, :height, :width], (2, *original), "linear", antialias=False)
    ours = transforms.upscale_masks(logits, original, SMALL, threshold=None)
    np.testing.assert_allclose(ours, expected, atol=1e-4)  # positions are float32 in both, rounded differently


@settings(max_examples=10)
@given(original=st.tuples(st.integers(1, 600), st.integers(1, 600)), value=st.floats(-30, 30, width=32))
def test_constant_logits_stay_constant_at_any_size(original, value):
    logits = np.full((1, *SMALL.mask_size), value, np.float32)
    upscaled = transforms.upscale_masks(logits, original, SMALL, threshold=None)
    assert upscaled.shape == (1, *original)
    np.testing.assert_allclose(upscaled, value, rtol=1e-5, atol=1e-6)


def test_masks_are_logits_above_the_threshold():
    logits = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, *SMALL.mask_size)), jnp.float32)
    upscaled = transforms.upscale_masks(logits, (30, 50), SMALL, threshold=None)
    assert upscaled.shape == (2, 3, 30, 50)
    for threshold in (0.0, 0.5):
        np.testing.assert_array_equal(
            transforms.upscale_masks(logits, (30, 50), SMALL, threshold=threshold), upscaled > threshold
        )


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_masks_are_the_same_however_many_are_made_together(count):
    logits = np.random.default_rng(0).standard_normal((count, *SMALL.mask_size)).astype(np.float32)
    alone = transforms.upscale_masks(logits, (30, 50), SMALL)
    assert alone.shape == (count, 30, 50)
    np.testing.assert_array_equal(transforms.upscale_masks(logits, (30, 50), SMALL, together=4), alone)


# Masks in


def _blob(height: int, width: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] + 0.5
    centre = random.uniform(0.3, 0.7, 2) * (height, width)
    radii = random.uniform(0.15, 0.35, 2) * (height, width)
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1


@settings(max_examples=10)
@given(height=st.integers(100, 700), width=st.integers(100, 700), seed=st.integers(0, 999))
def test_a_mask_prompt_stands_for_its_mask(height, width, seed):
    config = VARIANTS["vit_b"]
    blob = _blob(height, width, seed)
    prompt = mask_prompt(blob, config)
    assert prompt.shape == config.mask_size
    back = transforms.upscale_masks(prompt[None], (height, width), config)[0]
    assert (back & blob).sum() / (back | blob).sum() > 0.95  # a low-res cell covers up to three pixels a side


def test_a_mask_prompts_logits_are_the_inverse_sigmoid_of_coverage():
    half = np.zeros((64, 64), bool)
    half[:, :33] = True  # low-res cells are 2 x 2 pixels: column 16 is half covered
    prompt = mask_prompt(half, SMALL)
    np.testing.assert_allclose(prompt[:, 16], 0, atol=1e-6)
    np.testing.assert_allclose(prompt[:, :16], np.log(999), rtol=1e-5)
    np.testing.assert_allclose(prompt[:, 17:], -np.log(999), rtol=1e-5)


def test_padding_is_background():
    prompt = mask_prompt(np.ones((32, 64)), SMALL)
    assert (prompt[:16] > 0).all()
    assert (prompt[16:] < 0).all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 3, 3), (4,)])
def test_what_is_no_mask_is_refused(shape):
    with pytest.raises(ValueError, match=r"must have shape \(H, W\)"):
        mask_prompt(np.zeros(shape), SMALL)


def test_an_image_of_pillows_is_a_mask_by_the_rules_of_files():
    grey = np.zeros((64, 64), np.uint8)
    grey[:, :32], grey[:, 32] = 255, 20  # a smooth edge
    by_array, by_picture = mask_prompt(grey, SMALL), mask_prompt(Image.fromarray(grey), SMALL)
    np.testing.assert_array_equal(by_picture, mask_prompt(grey > 127, SMALL))
    assert (by_array[:, 16] > by_picture[:, 16]).all()
