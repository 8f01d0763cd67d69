"""Attention over a grid: every implementation that runs here against the definition in float64, and its gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops.attention import (
    Blocked,
    CuDNN,
    Folded,
    Plain,
    grid_attention,
    merge_heads,
    relative_positions,
    split_heads,
    window_attention,
)

# float32 sums of at most a few hundred terms in another order
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
HEADS, DEPTH = 2, 4
IMPLEMENTATIONS = {
    "plain": Plain(),
    "plain, one window at a time": Plain(windows_together=1),
    "blocked": Blocked(rows=2),
    "blocked, heads together": Blocked(rows=4, heads_together=True),
    "one block": Blocked(rows=99),
    "folded": Folded(rows=2),
    "folded, one head at a time": Folded(rows=4, heads_together=False),
    "cuDNN's construction": CuDNN(implementation="xla"),
}
each = pytest.mark.parametrize("how", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)


def normal(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes]


def case(seed: int, height: int, width: int) -> tuple[jax.Array, tuple]:
    """A projection and tables of relative positions."""
    shapes = (height, width, 3 * HEADS * DEPTH), (2 * height - 1, DEPTH), (2 * width - 1, DEPTH)
    qkv, *tables = normal(seed, *shapes)
    return qkv, tuple(tables)


def window_case(seed: int, height: int, width: int, size: int) -> tuple[jax.Array, jax.Array, tuple]:
    """A projection without its bias, the bias, and tables of relative positions within windows."""
    channels, rows = 3 * HEADS * DEPTH, 2 * size - 1
    projected, bias, *tables = normal(seed, (height, width, channels), (channels,), (rows, DEPTH), (rows, DEPTH))
    return projected, bias, tuple(tables)


def attention_in_loops(qkv, tables) -> np.ndarray:
    """The definition, one query and one key at a time, in float64."""
    height, width = qkv.shape[:2]
    q, k, v = np.moveaxis(np.asarray(qkv, np.float64).reshape(height, width, 3, HEADS, DEPTH), 2, 0)
    rows, columns = (np.asarray(table, np.float64) for table in tables)
    result = np.zeros_like(q)
    for n in range(HEADS):
        for qh, qw in np.ndindex(height, width):
            logits = np.zeros((height, width))
            for kh, kw in np.ndindex(height, width):
                content = q[qh, qw, n] @ k[kh, kw, n] / np.sqrt(DEPTH)
                bias = q[qh, qw, n] @ (rows[qh - kh + height - 1] + columns[qw - kw + width - 1])
                logits[kh, kw] = content + bias
            weights = np.exp(logits - logits.max())
            result[qh, qw, n] = np.einsum("hw,hwd->d", weights / weights.sum(), v[:, :, n])
    return result.reshape(height, width, HEADS * DEPTH)


@each
@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (4, 1), (7, 3), (1, 6)], ids=str)
def test_grid_attention_follows_its_definition(how, grid):
    qkv, tables = case(0, *grid)
    np.testing.assert_allclose(grid_attention(qkv, tables, HEADS, how), attention_in_loops(qkv, tables), **TOLERANCE)


@each
@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (4, 1), (7, 3)], ids=str)
def test_windows_do_not_see_each_other(how, grid):
    size = 3
    projected, bias, tables = window_case(1, *grid, size)
    together = window_attention(projected, bias, size, tables, HEADS, how)
    assert together.shape[:2] == grid
    padded = np.pad(projected, ((0, -grid[0] % size), (0, -grid[1] % size), (0, 0)))
    for row, column in itertools.product(range(0, grid[0], size), range(0, grid[1], size)):
        window = padded[row : row + size, column : column + size] + np.asarray(bias)
        attended = attention_in_loops(window, tables)
        expected = attended[: grid[0] - row, : grid[1] - column]
        np.testing.assert_allclose(together[row : row + size, column : column + size], expected, **TOLERANCE)


@each
@pytest.mark.parametrize("size", [None, 3], ids=["grid", "windows"])
def test_gradients_are_those_of_the_plain_form(how, size):
    def attend(how, projected, bias, tables):
        if size is None:
            return grid_attention(projected + bias[None, None], tables, HEADS, how)
        return window_attention(projected, bias, size, tables, HEADS, how)

    given = window_case(2, 4, 6, size) if size else (*window_case(2, 4, 6, 1)[:2], case(2, 4, 6)[1])

    def gradient(how):
        return jax.jit(jax.grad(lambda given: jnp.square(attend(how, *given)).sum()))(given)

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # noqa: E731
    jax.tree.map(close, gradient(how), gradient(Plain()))


def test_heads_are_split_and_merged_as_the_projection_has_them():
    qkv = jnp.arange(2 * 3 * 3 * HEADS * DEPTH, dtype=jnp.float32).reshape(2, 3, -1)
    q, k, v = split_heads(qkv, HEADS)
    assert q.shape == (HEADS, 2, 3, DEPTH)
    np.testing.assert_array_equal(k[1, 0, 2], qkv[0, 2, HEADS * DEPTH + DEPTH : 2 * HEADS * DEPTH])
    np.testing.assert_array_equal(merge_heads(v), qkv[..., 2 * HEADS * DEPTH :])


def test_relative_positions_are_looked_up_by_query_minus_key():
    table = jnp.arange(5.0)[:, None]
    np.testing.assert_array_equal(relative_positions(table, 3)[..., 0], [[2, 1, 0], [3, 2, 1], [4, 3, 2]])


def test_a_relative_position_table_of_another_size_is_refused():
    qkv, (by_row, by_column) = case(3, 4, 3)
    with pytest.raises(ValueError, match="for 4 tokens has 7 rows, got 5"):
        grid_attention(qkv, (by_row[1:-1], by_column), HEADS, Plain())
    with pytest.raises(ValueError, match="for 2 tokens has 3 rows, got 5"):
        window_attention(qkv, jnp.zeros(qkv.shape[-1]), 2, (by_row[2:-2], by_column), HEADS, Plain())


@each
def test_half_precision_inputs_are_summed_in_float32(how):
    qkv, tables = (jax.tree.map(lambda x: x.astype(jnp.bfloat16), part) for part in case(6, 16, 16))
    with jax.numpy_dtype_promotion("standard"):  # XLA's form of `jax.nn.dot_product_attention` relies on it
        half = grid_attention(qkv, tables, HEADS, how)
    exact = grid_attention(*jax.tree.map(lambda x: x.astype(jnp.float32), (qkv, tables)), HEADS, how)
    assert half.dtype == jnp.bfloat16
    # A bfloat16 has 8 significant bits, so rounding weights and result costs 2^-8 each; sums would cost far more.
    np.testing.assert_allclose(half.astype(jnp.float32), exact, rtol=2**-6, atol=2**-6)
