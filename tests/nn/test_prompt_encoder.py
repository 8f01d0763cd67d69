import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_params

from samjax.nn.prompt_encoder import PromptEncoder


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.asarray, random_params(SMALL)["prompt_encoder"])


def tokens(params, points, labels):
    encoder = PromptEncoder(SMALL, jnp.dtype("float32"))
    points = jnp.asarray(points, jnp.float32)
    return encoder.apply({"params": params}, points, jnp.asarray(labels, jnp.int32), method="tokens")


def position_code(params, point):
    """Of pixel coordinates in the input frame, in float64."""
    unit = (np.asarray(point, np.float64) + 0.5) / SMALL.image_size[::-1]
    phase = 2 * np.pi * (2 * unit - 1) @ np.asarray(params["pe_layer"]["positional_encoding_gaussian_matrix"])
    return np.concatenate([np.sin(phase), np.cos(phase)])


@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_a_token_is_the_position_of_the_pixels_centre_plus_the_embedding_of_its_kind(params, label):
    point = (13.0, 40.0)
    expected = position_code(params, point) + params["point_embeddings"][str(label)]["embedding"][0]
    np.testing.assert_allclose(tokens(params, [point], [label])[0], expected, atol=1e-5)


def test_a_padding_point_has_no_position(params):
    (token,) = tokens(params, [[13, 40]], [-1])
    np.testing.assert_array_equal(token, params["not_a_point_embed"]["embedding"][0])


def test_an_absent_point_is_zero_whatever_its_coordinates(params):
    np.testing.assert_array_equal(tokens(params, [[np.nan, np.inf], [1, 2]], [-2, -2]), np.zeros((2, SMALL.width)))


def test_the_grids_position_code_is_that_of_its_cells_centres(params):
    encoder = PromptEncoder(SMALL, jnp.dtype("float32"))
    grid = encoder.apply({"params": params}, method="grid_positions")
    patch = SMALL.image_encoder.patch_size
    for row, column in ((0, 0), (3, 5), (7, 7)):
        centre = ((column + 0.5) * patch - 0.5, (row + 0.5) * patch - 0.5)  # the code of a pixel is taken at +0.5
        np.testing.assert_allclose(grid[row, column], position_code(params, centre), atol=1e-5)


def test_a_mask_prompt_becomes_a_map_on_the_embeddings_grid(params):
    encoder = PromptEncoder(SMALL, jnp.dtype("float32"))
    mask = jnp.zeros(SMALL.mask_size).at[4:8, 8:12].set(5)  # exactly the cell in row 1, column 2
    dense, empty = (
        encoder.apply({"params": params}, logits, method="dense") for logits in (mask, jnp.zeros(SMALL.mask_size))
    )
    assert dense.shape == (*SMALL.grid, SMALL.width)
    changed = np.abs(dense - empty).max(-1) > 0
    assert np.argwhere(changed).tolist() == [[1, 2]]
