import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops import positions

GAUSSIAN = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8)), jnp.float32)


def test_fourier_features_follow_the_paper():
    unit = np.random.default_rng(1).uniform(0, 1, (5, 2)).astype(np.float32)
    phase = 2 * np.pi * (2 * unit.astype(np.float64) - 1) @ np.asarray(GAUSSIAN)
    expected = np.concatenate([np.sin(phase), np.cos(phase)], -1)
    # a phase of up to 2π·6 has a float32 spacing of 4e-6
    ours = positions.fourier_features(jnp.asarray(unit), GAUSSIAN)
    np.testing.assert_allclose(ours, expected, atol=2e-5)


def centres(grid: tuple[int, int]) -> list[jnp.ndarray]:
    return [jnp.asarray((np.arange(side) + 0.5) / side, jnp.float32) for side in grid]


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (3, 7), (64, 64)])
def test_a_grids_features_are_those_of_its_cell_centres(grid):
    rows, columns = centres(grid)
    y, x = jnp.meshgrid(rows, columns, indexing="ij")
    np.testing.assert_allclose(
        positions.grid_fourier_features(rows, columns, GAUSSIAN),
        positions.fourier_features(jnp.stack([x, y], -1), GAUSSIAN),
        atol=2e-5,
    )


def test_features_have_unit_length_per_frequency():
    sines, cosines = jnp.split(positions.grid_fourier_features(*centres((5, 6)), GAUSSIAN), 2, axis=-1)
    np.testing.assert_allclose(sines**2 + cosines**2, 1, atol=1e-5)
