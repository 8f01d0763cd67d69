import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops.batching import deal, map_batch, undeal


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
