import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops.batching import map_batch


@pytest.mark.parametrize("together", [None, 1, 2, 3, 5, 64])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_how_many_items_run_together_changes_nothing(size, together):
    x, y = jnp.arange(size * 3.0).reshape(size, 3), {"a": jnp.arange(float(size))}
    result = map_batch(lambda x, y: {"sum": x.sum() + y["a"], "x": 2 * x}, x, y, together=together)
    np.testing.assert_array_equal(result["sum"], x.sum(1) + y["a"])
    np.testing.assert_array_equal(result["x"], 2 * x)
