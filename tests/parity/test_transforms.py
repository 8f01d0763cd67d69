"""Changes of frame against the reference's own, and resizing against PyTorch's."""

import numpy as np
import pytest
from example_models import SMALL, random_photo
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.comparison import relative_error

from samjax import VARIANTS, transforms
from samjax.ops import resize

pytestmark = pytest.mark.parity


def references_pixels(segment_anything, model, photo):
    """What `SamPredictor.set_image` feeds the encoder."""
    import torch

    side = model.image_encoder.img_size
    resized = segment_anything.utils.transforms.ResizeLongestSide(side).apply_image(photo)
    return model.preprocess(torch.as_tensor(resized).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


@pytest.fixture
def full_size_model(small, monkeypatch):
    """Whatever does not depend on the parameters, at the official input size."""
    model = small[0].model
    monkeypatch.setattr(model.image_encoder, "img_size", 1024)
    return model


@pytest.mark.parametrize("name", ["dog", "groceries", "truck"])
def test_the_pixels_of_photos_are_the_references_bit_for_bit(segment_anything, full_size_model, photos, name):
    for photo in (photos[name], photos[name][:100], photos[name][:, :101], photos[name][40:51, 60:69]):
        photo = np.ascontiguousarray(photo)
        expected = references_pixels(segment_anything, full_size_model, photo)
        np.testing.assert_array_equal(transforms.to_pixels(photo, VARIANTS["vit_b"]), expected)


def test_the_pixels_of_any_size_are_the_references_bit_for_bit(segment_anything, small):
    random = np.random.default_rng(0)
    for seed in range(50):
        photo = random_photo(*random.integers(2, 120, 2), seed=seed)
        expected = references_pixels(segment_anything, small[0].model, photo)
        np.testing.assert_array_equal(transforms.to_pixels(photo, SMALL), expected)


def test_points_are_moved_as_the_reference_moves_them(segment_anything):
    import jax.numpy as jnp

    resizer = segment_anything.utils.transforms.ResizeLongestSide(1024)
    random = np.random.default_rng(0)
    for _ in range(20):
        original = tuple(random.integers(1, 4000, 2).tolist())
        fitted = transforms.input_size(original, (1024, 1024))
        points = random.uniform(0, 1, (5, 2)) * original[::-1]
        ours = transforms.to_input_frame(
            jnp.asarray(points, jnp.float32), jnp.array(original, jnp.int32), jnp.array(fitted, jnp.int32)
        )
        np.testing.assert_allclose(ours, resizer.apply_coords(points, original), rtol=1e-6)  # float32 against float64


@pytest.mark.parametrize("original", [(534, 800), (1200, 1800), (700, 300), (13, 20), (1024, 1024), (1, 1)])
def test_logits_are_upscaled_as_the_reference_upscales_them(full_size_model, original):
    import torch

    config = VARIANTS["vit_b"]
    logits = np.random.default_rng(0).standard_normal((2, *config.mask_size)).astype(np.float32)
    fitted = transforms.input_size(original, config.image_size)
    expected = full_size_model.postprocess_masks(torch.tensor(logits)[None], fitted, original)[0].numpy()
    ours = transforms.upscale_masks(logits, original, config, threshold=None)
    assert relative_error(ours, expected) <= 1e-5  # two float32 interpolations against one product
    assert ((ours > 0) == (expected > 0)).mean() >= 0.99999


@settings(max_examples=100)
@given(
    source=st.integers(1, 80),
    target=st.integers(1, 80),
    method=st.sampled_from(["linear", "cubic"]),
    seed=st.integers(0, 9),
)
def test_resizing_is_torch_interpolate(source, target, method, seed):
    torch = pytest.importorskip("torch")
    signal = np.random.default_rng(seed).standard_normal(source).astype(np.float32)
    image = torch.tensor(signal)[None, None, :, None].expand(-1, -1, -1, 2)
    mode = {"linear": "bilinear", "cubic": "bicubic"}[method]
    expected = torch.nn.functional.interpolate(image, (target, 2), mode=mode, align_corners=False)[0, 0, :, 0]
    ours = resize.resize_matrix(source, target, method) @ signal
    np.testing.assert_allclose(ours, expected, atol=2e-5)  # float32 positions of up to 80
