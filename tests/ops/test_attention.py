import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samjax.ops import attention

# float32 sums of at most a few hundred terms in another order
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def normal(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes]


def grid_case(seed: int, heads: int, height: int, width: int, depth: int) -> list[jax.Array]:
    token = (heads, height, width, depth)
    return normal(seed, token, token, token, (2 * height - 1, depth), (2 * width - 1, depth))


def attention_in_loops(q, k, v, rel_pos_h, rel_pos_w) -> np.ndarray:
    """The definition, one query and one key at a time, in float64."""
    q, k, v, rel_pos_h, rel_pos_w = (np.asarray(x, np.float64) for x in (q, k, v, rel_pos_h, rel_pos_w))
    heads, height, width, depth = q.shape
    result = np.zeros_like(q)
    for n in range(heads):
        for qh, qw in np.ndindex(height, width):
            logits = np.zeros((height, width))
            for kh, kw in np.ndindex(height, width):
                content = q[n, qh, qw] @ k[n, kh, kw] / np.sqrt(depth)
                bias = q[n, qh, qw] @ (rel_pos_h[qh - kh + height - 1] + rel_pos_w[qw - kw + width - 1])
                logits[kh, kw] = content + bias
            weights = np.exp(logits - logits.max())
            result[n, qh, qw] = np.einsum("hw,hwd->d", weights / weights.sum(), v[n])
    return result


@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (4, 1)])
def test_grid_attention_follows_its_definition(grid):
    case = grid_case(0, 2, *grid, 4)
    np.testing.assert_allclose(attention.grid_attention(*case), attention_in_loops(*case), **TOLERANCE)


@pytest.mark.parametrize("heads_together", [False, True])
@pytest.mark.parametrize(
    ("grid", "rows"),
    [((8, 8), 2), ((6, 9), 4), ((7, 3), 2), ((5, 4), 99), ((1, 6), 1)],
    ids=["divisor", "not a divisor", "prime height", "more rows than there are", "one row"],
)
def test_blocks_do_not_change_attention(grid, rows, heads_together):
    case = grid_case(7, 2, *grid, 4)
    blocked = attention.blocked_grid_attention(*case, rows=rows, heads_together=heads_together)
    np.testing.assert_allclose(blocked, attention.grid_attention(*case), **TOLERANCE)


def test_blocked_attention_has_the_plain_forms_gradient():
    case = grid_case(1, 2, 4, 6, 4)

    def gradient(function):
        return jax.grad(lambda *args: jnp.square(function(*args)).sum(), argnums=range(5))(*case)

    plain = gradient(attention.grid_attention)
    blocked = gradient(lambda *args: attention.blocked_grid_attention(*args, rows=2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), blocked, plain)


def test_relative_positions_are_looked_up_by_query_minus_key():
    table = jnp.arange(5.0)[:, None]
    np.testing.assert_array_equal(attention.relative_positions(table, 3)[..., 0], [[2, 1, 0], [3, 2, 1], [4, 3, 2]])


def test_a_relative_position_table_of_another_size_is_refused():
    with pytest.raises(ValueError, match="for 4 tokens has 7 rows, got 5"):
        attention.relative_positions(jnp.zeros((5, 2)), 4)


def test_masked_keys_have_no_influence():
    q, k, v = normal(2, (3, 2, 4), (5, 2, 4), (5, 2, 4))
    valid = jnp.array([True, False, True, True, False])
    masked = attention.masked_attention(q, k, v, valid)
    without = attention.masked_attention(q, k[valid], v[valid])
    np.testing.assert_allclose(masked, without, **TOLERANCE)


def test_huge_logits_do_not_overflow():
    q, k, v = normal(3, (3, 2, 4), (5, 2, 4), (5, 2, 4))
    assert jnp.isfinite(attention.masked_attention(1e6 * q, 1e6 * k, v)).all()


def test_attending_to_an_image_without_projecting_it_is_attending_to_its_projections():
    tokens, heads, depth, channels, places = 4, 2, 3, 6, 7
    q, image, position, k_kernel, k_bias, v_kernel, v_bias = normal(
        4,
        (tokens, heads, depth),
        (places, channels),
        (places, channels),
        (channels, heads, depth),
        (heads, depth),
        (channels, heads, depth),
        (heads, depth),
    )
    folded = attention.tokens_attend_image(q, image + position, image, k_kernel, v_kernel, v_bias)
    k = jnp.einsum("sc,cnd->snd", image + position, k_kernel) + k_bias[None]  # the keys' bias cancels in the softmax
    v = jnp.einsum("sc,cnd->snd", image, v_kernel) + v_bias[None]
    np.testing.assert_allclose(folded, attention.masked_attention(q, k, v), **TOLERANCE)


def test_folding_the_output_projection_into_the_tokens_changes_nothing():
    tokens, heads, depth, channels, places = 4, 2, 3, 6, 7
    q, k, v, out_kernel, out_bias = normal(
        5, (places, heads, depth), (tokens, heads, depth), (tokens, heads, depth), (heads, depth, channels), (channels,)
    )
    valid = jnp.array([True, True, False, True])
    logits = jnp.einsum("snd,tnd->nts", q, k) * depth**-0.5
    folded = attention.image_attends_tokens(logits, v, out_kernel, out_bias, valid)
    plain = jnp.einsum("snd,ndc->sc", attention.masked_attention(q, k, v, valid), out_kernel) + out_bias[None]
    np.testing.assert_allclose(folded, plain, **TOLERANCE)
    values = attention.image_attends_values(logits, v, valid)
    np.testing.assert_allclose(values, attention.masked_attention(q, k, v, valid), **TOLERANCE)


def test_half_precision_inputs_are_summed_in_float32():
    case = [x.astype(jnp.bfloat16) for x in grid_case(6, 2, 16, 16, 8)]
    half = attention.grid_attention(*case)
    exact = attention.grid_attention(*(x.astype(jnp.float32) for x in case))
    assert half.dtype == jnp.bfloat16
    # A bfloat16 has 8 significant bits, so rounding weights and result costs 2^-8 each; sums would cost far more.
    np.testing.assert_allclose(half.astype(jnp.float32), exact, rtol=2**-6, atol=2**-6)
