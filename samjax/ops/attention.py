"""Attention in its exact forms: with decomposed relative position over a grid, and across tokens and image.

One letter, one meaning: D channels of a head, H W grid, T tokens, S image tokens (row by row), C channels.
Positions and offsets count cells of the grid. Queries come unscaled: each function multiplies them by D^-1/2 itself,
unless it is given logits. Logits, softmax and sums are float32 whatever the inputs' dtype; results have the inputs'
dtype.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32

_einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def relative_positions(table: Float[Array, "L D"], size: int) -> Float[Array, "size size D"]:
    """The table's entries for all pairs of cells along an axis of `size` cells: [q, k] is that of the offset q - k.

    Offsets run from -(size - 1) to size - 1: the reference's `get_rel_pos` (image_encoder.py) where there are as many
    queries as keys. Raises ValueError unless L = 2 size - 1.
    """
    if table.shape[0] != 2 * size - 1:
        raise ValueError(f"a relative position table for {size} tokens has {2 * size - 1} rows, got {table.shape[0]}")
    offsets = np.arange(size)[:, None] - np.arange(size)[None, :] + size - 1
    return table[offsets]


def _softmax(
    logits: Float[Array, "*B T S"], axis: int, dtype: jnp.dtype
) -> tuple[Float[Array, "*B T S"], Float32[Array, "*B _ _"]]:
    """Softmax as (unnormalised weights in `dtype`, their float32 sums along `axis`)."""
    weights = jnp.exp(logits - lax.stop_gradient(logits.max(axis, keepdims=True)))
    return weights.astype(dtype), weights.sum(axis, keepdims=True)


def _softmax_times(logits: Float[Array, "*B T S"], v: Float[Array, "*B S D"]) -> Float[Array, "*B T D"]:
    """softmax(logits) v, divided after the product: T·D divisions instead of T·S, and XLA fuses what is left."""
    weights, sums = _softmax(logits, -1, v.dtype)
    return (_einsum("...ts,...sd->...td", weights, v) / sums).astype(v.dtype)


def _grid_logits(
    q: Float[Array, "*B T W D"],
    k: Float[Array, "*B S D"],
    rel_h: Float[Array, "*B T W H"],
    rel_w: Float[Array, "*B T W W"],
) -> Float[Array, "*B TW S"]:
    """Logits of T rows of queries against all S = H·W keys: scaled q·k plus the bias of the key's row and column."""
    *batch, rows, columns, depth = q.shape
    q = q.reshape(*batch, rows * columns, depth)
    logits = _einsum("...td,...sd->...ts", q * depth**-0.5, k)
    logits = logits.reshape(*batch, rows, columns, rel_h.shape[-1], rel_w.shape[-1])
    logits = logits + rel_h[..., :, None] + rel_w[..., None, :]
    return logits.reshape(*batch, rows * columns, -1)


def grid_attention(
    q: Float[Array, "heads H W D"],
    k: Float[Array, "heads H W D"],
    v: Float[Array, "heads H W D"],
    rel_pos_h: Float[Array, "Lh D"],
    rel_pos_w: Float[Array, "Lw D"],
) -> Float[Array, "heads H W D"]:
    """Self-attention over a grid, each token to all, with decomposed relative position (MViTv2, arXiv 2112.01526).

    The plain form: all logits, heads·(H·W)², exist at once. Right for windows, and the oracle of
    `blocked_grid_attention`.
    The bias is (unscaled q)·Rh[qh - kh] + (unscaled q)·Rw[qw - kw], as in the reference (`add_decomposed_rel_pos` in
    image_encoder.py).

    Raises ValueError unless Lh = 2H - 1 and Lw = 2W - 1.
    """
    heads, height, width, depth = q.shape
    rel_h = _einsum("nhwd,hkd->nhwk", q, relative_positions(rel_pos_h, height))
    rel_w = _einsum("nhwd,wkd->nhwk", q, relative_positions(rel_pos_w, width))
    logits = _grid_logits(q, k.reshape(heads, -1, depth), rel_h, rel_w)
    return _softmax_times(logits, v.reshape(heads, -1, depth)).reshape(q.shape)


def blocked_grid_attention(
    q: Float[Array, "heads H W D"],
    k: Float[Array, "heads H W D"],
    v: Float[Array, "heads H W D"],
    rel_pos_h: Float[Array, "Lh D"],
    rel_pos_w: Float[Array, "Lw D"],
    *,
    rows: int,
    heads_together: bool = False,
) -> Float[Array, "heads H W D"]:
    """`grid_attention` in a loop over heads and blocks of `rows` image rows of queries, each against all keys.

    Only one block's logits, rows·W x H·W of them (times heads if `heads_together`), exist at a time: on CPU they stay
    in cache, on accelerators they bound the memory. `rows` is lowered to the nearest divisor of H.

    Raises ValueError as `grid_attention` does, and if `rows` is below 1.
    """
    _, height, width, depth = q.shape
    rows = max(divisor for divisor in range(1, min(rows, height) + 1) if height % divisor == 0)
    rel_h = relative_positions(rel_pos_h, height)
    rel_w = relative_positions(rel_pos_w, width)

    def one_head(qkv):
        q, k, v = qkv
        row_bias = _einsum("hwd,hkd->hwk", q, rel_h)
        column_bias = _einsum("hwd,wkd->hwk", q, rel_w)
        k, v = k.reshape(-1, depth), v.reshape(-1, depth)

        @jax.checkpoint  # a gradient would keep the logits of all blocks
        def one_block(block):
            q, row_bias, column_bias = block
            return _softmax_times(_grid_logits(q, k, row_bias, column_bias), v)

        blocks = jax.tree.map(lambda x: x.reshape(-1, rows, *x.shape[1:]), (q, row_bias, column_bias))
        return lax.map(one_block, blocks).reshape(height, width, depth)

    return jax.vmap(one_head)((q, k, v)) if heads_together else lax.map(one_head, (q, k, v))


def masked_attention(
    q: Float[Array, "T heads D"],
    k: Float[Array, "S heads D"],
    v: Float[Array, "S heads D"],
    key_valid: Bool[Array, " S"] | None = None,
) -> Float[Array, "T heads D"]:
    """Multi-head attention in which keys that are not valid get weight exactly zero.

    Without `key_valid` all are valid; where none is, the result is NaN.
    """
    logits = _einsum("tnd,snd->nts", q * q.shape[-1] ** -0.5, k)
    if key_valid is not None:
        logits = jnp.where(key_valid, logits, -jnp.inf)
    return jnp.moveaxis(_softmax_times(logits, jnp.moveaxis(v, 1, 0)), 0, 1)


def tokens_attend_image(
    q: Float[Array, "T heads D"],
    image_with_position: Float[Array, "S C"],
    image: Float[Array, "S C"],
    k_kernel: Float[Array, "C heads D"],
    v_kernel: Float[Array, "C heads D"],
    v_bias: Float[Array, "heads D"],
) -> Float[Array, "T heads D"]:
    """`masked_attention` to keys and values that are projections of the image, without projecting the image.

    Keys are projections of `image_with_position`, values of `image`; all image tokens are attended.
    q·(K x) = (q K)·x and Σ w (V x) = V (Σ w x): the kernels meet the few tokens instead of the S image tokens, which
    takes 2·T·heads·S·C multiplications instead of 2·S·C·heads·D. The keys' bias shifts all logits of a query alike,
    which softmax does not see; weights sum to one, so the values' bias is added once.
    """
    folded = _einsum("tnd,cnd->ntc", q * q.shape[-1] ** -0.5, k_kernel).astype(q.dtype)
    weights, sums = _softmax(_einsum("ntc,sc->nts", folded, image_with_position), -1, q.dtype)
    context = (_einsum("nts,sc->ntc", weights, image) / sums).astype(q.dtype)
    return _einsum("ntc,cnd->tnd", context, v_kernel).astype(q.dtype) + v_bias[None]


def image_attends_tokens(
    logits: Float[Array, "heads T S"],
    v: Float[Array, "T heads D"],
    out_kernel: Float[Array, "heads D C"],
    out_bias: Float[Array, " C"],
    key_valid: Bool[Array, " T"],
) -> Float[Array, "S C"]:
    """Attention of every image token to the T tokens, with values and output projection folded into the tokens.

    `logits` are scaled. They are laid out with the image tokens last so that the reduction over few tokens runs along
    full vectors. Tokens that are not valid get weight exactly zero; where none is valid, the result is NaN.
    """
    folded = _einsum("tnd,ndc->ntc", v, out_kernel).astype(v.dtype)
    return _einsum("nts,ntc->sc", _over_tokens(logits, key_valid, v.dtype), folded).astype(v.dtype) + out_bias[None]


def image_attends_values(
    logits: Float[Array, "heads T S"], v: Float[Array, "T heads D"], key_valid: Bool[Array, " T"]
) -> Float[Array, "S heads D"]:
    """`image_attends_tokens` before the output projection, with the heads still apart."""
    return _einsum("nts,tnd->snd", _over_tokens(logits, key_valid, v.dtype), v).astype(v.dtype)


def _over_tokens(
    logits: Float[Array, "heads T S"], key_valid: Bool[Array, " T"], dtype: jnp.dtype
) -> Float[Array, "heads T S"]:
    """Softmax over the tokens; those that are not valid have weight zero."""
    weights, sums = _softmax(jnp.where(key_valid[:, None], logits, -jnp.inf), 1, jnp.dtype(jnp.float32))
    return (weights / sums).astype(dtype)
