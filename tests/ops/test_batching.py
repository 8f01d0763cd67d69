import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops.batching import by_pieces, deal, map_batch, undeal


@pytest.mark.parametrize("together", [None, 1, 2, 3, 5, 64])
@pytest.mark.parametrize("size", [1, 2, 4, 5, 6])
def test_how_many_items_run_together_changes_nothing(size, together):
    x, y = jnp.arange(size * 3.0).reshape(size, 3), {"a": jnp.arange(float(size))}
    result = map_batch(lambda x, y: {"sum": x.sum() + y["a"], "x": 2 * x}, x, y, together=together)
    np.testing.assert_array_equal(result["sum"], x.sum(1) + y["a"])
    np.testing.assert_array_equal(result["x"], 2 * x)


def test_pieces_of_a_batch_have_an_item_of_each_of_its_parts():
    """So that each item stays on its device, where neighbours lie on one."""
    pieces = deal(jnp.arange(12).reshape(6, 2), 3)
    np.testing.assert_array_equal(pieces[..., 0] // 2, [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(undeal(pieces), jnp.arange(12).reshape(6, 2))


@pytest.mark.parametrize("features", [3, 5], ids=["as many channels", "more channels"])
@pytest.mark.parametrize("size", [None, 1, 5, 8, 24, 99])
def test_a_grid_in_pieces_has_the_answer_and_the_gradient_of_the_whole(size, features):
    x = jnp.sin(jnp.arange(4 * 6 * 3.0)).reshape(4, 6, 3)
    kernel = jnp.cos(jnp.arange(3.0 * features)).reshape(3, features)

    def pieces(x, kernel):
        return by_pieces(lambda x: jnp.tanh(x @ kernel), x, size)

    np.testing.assert_allclose(pieces(x, kernel), np.tanh(np.asarray(x) @ np.asarray(kernel)), rtol=1e-5, atol=1e-6)
    weights = jnp.cos(jnp.arange(24.0 * features)).reshape(4, 6, features)
    given = jax.grad(lambda *of: (weights * pieces(*of)).sum(), (0, 1))(x, kernel)
    expected = jax.grad(lambda x, kernel: (weights * jnp.tanh(x @ kernel)).sum(), (0, 1))(x, kernel)
    for ours, theirs in zip(given, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_piece_has_the_largest_divisor_that_is_not_above_its_size():
    seen = []
    by_pieces(lambda x: seen.append(x.shape) or x, jnp.zeros((4, 6, 3)), 10)
    assert set(seen) == {(24, 3), (8, 3)}  # the whole only in the abstract
