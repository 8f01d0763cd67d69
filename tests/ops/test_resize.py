import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samjax.ops import resize

sides = st.integers(1, 70)
methods = st.sampled_from(["linear", "cubic"])


@given(source=sides, target=sides, method=methods)
def test_a_constant_stays_constant(source, target, method):
    # positions are float32, so cubic weights sum to one within its rounding
    np.testing.assert_allclose(resize.resize_matrix(source, target, method).sum(1), 1, atol=1e-5)


@given(source=sides, target=sides, method=methods)
def test_a_mirrored_signal_gives_the_mirrored_result(source, target, method):
    matrix = resize.resize_matrix(source, target, method)
    np.testing.assert_allclose(matrix[::-1, ::-1], matrix, atol=1e-4)  # of float32 positions up to 70


@given(side=sides, method=methods)
def test_the_same_size_is_the_identity(side, method):
    np.testing.assert_array_equal(resize.resize_matrix(side, side, method), np.eye(side))


@given(source=sides, target=sides)
def test_linear_resizing_never_leaves_the_range(source, target):
    assert resize.resize_matrix(source, target).min() >= 0


@given(source=sides, target=sides)
def test_linear_resizing_is_interpolation_between_pixel_centres(source, target):
    signal = np.random.default_rng(source).standard_normal(source)
    centres = (np.arange(target) + 0.5) * source / target
    expected = np.interp(centres, np.arange(source) + 0.5, signal)
    np.testing.assert_allclose(resize.resize_matrix(source, target) @ signal, expected, atol=1e-4)  # float32 positions


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_a_ramp_stays_a_ramp_away_from_the_border(method):
    ramp = np.arange(20) + 0.5
    resized = resize.resize_matrix(20, 50, method) @ ramp
    expected = (np.arange(50) + 0.5) * 20 / 50
    np.testing.assert_allclose(resized[6:-6], expected[6:-6], atol=0.06 if method == "cubic" else 1e-5)


def test_cubic_is_keys_kernel_at_minus_three_quarters():
    # Halfway between samples, Keys' kernel weighs its four neighbours a/8, 1/2 - a/8, 1/2 - a/8, a/8.
    row = resize.resize_matrix(8, 4, "cubic")[1]
    np.testing.assert_allclose(row, [0, -0.09375, 0.59375, 0.59375, -0.09375, 0, 0, 0], atol=1e-6)


def by_blocks(image, rows, columns):
    """The whole resized image, put together from the blocks of `map_row_blocks`."""
    blocks = resize.map_row_blocks(
        lambda block, _: block, image, resize.banded(rows), resize.banded(columns), len(rows)
    )
    return blocks.reshape(-1, blocks.shape[-1])[: len(rows), : len(columns)]


@pytest.mark.parametrize(("source", "target"), [((5, 7), (11, 3)), ((64, 48), (700, 129)), ((40, 300), (8, 301))])
def test_images_are_resized_block_by_block(source, target):
    image = np.random.default_rng(0).standard_normal(source).astype(np.float32)
    rows, columns = (resize.resize_matrix(*sides) for sides in zip(source, target, strict=True))
    theirs = jax.image.resize(image, target, "linear", antialias=False)
    np.testing.assert_allclose(
        by_blocks(image, rows, columns), theirs, atol=3e-5
    )  # positions are rounded as PyTorch does


def test_blocks_come_with_the_number_of_their_first_row():
    matrix = resize.banded(resize.resize_matrix(10, 300))
    starts = resize.map_row_blocks(lambda _, start: start + 1, np.zeros((10, 10), np.float32), matrix, matrix, 256)
    assert starts.tolist() == [1, 129, 0]  # the third one is not asked for


def test_a_block_needs_a_small_window_of_the_source():
    matrix = resize.banded(resize.resize_matrix(256, 1800))
    assert matrix.weights.shape == (16, 128, 32)


def test_half_precision_images_are_resized_in_float32():
    matrix = resize.resize_matrix(4, 9)
    assert by_blocks(np.ones((4, 4), jnp.bfloat16), matrix, matrix).dtype == jnp.float32


def test_one_axis_of_a_table_is_resized():
    table = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32)
    resized = resize.resize_axis(table, 1, 9, "cubic")
    assert resized.shape == (4, 9, 3)
    expected = np.einsum("ts,asc->atc", resize.resize_matrix(6, 9, "cubic"), table)
    np.testing.assert_allclose(resized, expected, atol=1e-6)
