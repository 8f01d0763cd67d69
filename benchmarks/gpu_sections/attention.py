"""The forms of attention that may run on the device, in bfloat16: right or not, and how fast, with the gradient too."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpu_sections import jax_device
from gpu_sections.jobs import Record, Setting
from gpu_sections.stopwatch import check, speed, warm
from samjax.execution import Execution
from samjax.ops.attention import (
    AttentionForm,
    Blocked,
    CuDNN,
    Folded,
    Plain,
    Workload,
    grid_attention,
    window_attention,
)
from samjax.ops.attention.grid import Extent

DTYPE = jnp.dtype(jnp.bfloat16)
# The largest error in units of the largest number, as in tests/ops/attention/test_forms.py.
OF_VALUES, OF_GRADIENTS = 0.01, 0.025


def of_samjax(setting: Setting) -> Iterator[Record]:
    """Every form over a whole grid and within windows, with the heads of ViT-B and ViT-H."""
    models = {"tiny": (2, 32)} if setting.tiny else {"ViT-B": (12, 64), "ViT-H": (16, 80)}
    images, grid, size = (2, (5, 6), 3) if setting.tiny else (8, (64, 64), 14)
    for model, (heads, head_dim) in models.items():
        for extent in ("grid", "windows"):
            for form in _forms(grid, None if extent == "grid" else size, heads, head_dim):
                with jax.numpy_dtype_promotion("standard"):  # as JAX's own form of cuDNN's construction needs
                    records = list(_one(model, extent, form, images, grid, size, heads, head_dim))
                yield from records


def _forms(grid: tuple[int, int], window: int | None, heads: int, head_dim: int) -> Iterator[AttentionForm]:
    platform = Execution.for_backend().platform
    work = Workload(platform, DTYPE, grid, window, heads, head_dim)
    cudnn = CuDNN(implementation="cudnn" if platform == "gpu" else "xla")
    forms = (cudnn, Folded(), Plain() if window else Blocked(heads_together=True))
    return (form for form in forms if form.unsupported(work) is None)


def _one(
    model: str,
    extent: Extent,
    form: AttentionForm,
    images: int,
    grid: tuple[int, int],
    size: int,
    heads: int,
    head_dim: int,
) -> Iterator[Record]:
    random = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> jax.Array:
        return jnp.asarray(scale * random.standard_normal(shape), DTYPE)

    channels = heads * head_dim
    tables = tuple(normal(2 * side - 1, head_dim, scale=0.1) for side in (grid if extent == "grid" else (size, size)))
    given = normal(images, *grid, 3 * channels), normal(3 * channels), tables
    out = normal(images, *grid, channels)

    def attend(how: AttentionForm, projected: Any, bias: Any, tables: Any) -> Any:
        if extent == "windows":
            return window_attention(projected, bias, size, tables, heads, how)
        return grid_attention(projected, tables, heads, how)

    def batch(how: AttentionForm, given: Any) -> Any:
        return jax.vmap(functools.partial(attend, how), (0, None, None))(*given)

    def with_gradient(how: AttentionForm, given: Any, out: Any) -> Any:
        value, gradient = jax.vjp(functools.partial(batch, how), given)
        return value, gradient(out)[0]

    with jax.default_matmul_precision("float32"):
        exact = jax.jit(with_gradient, static_argnums=0)
        one = (given[0][:1], *given[1:])
        expected = exact(Blocked(), jax.tree.map(lambda x: x.astype(jnp.float32), one), out[:1].astype(jnp.float32))
    name = f"{model} attention, {extent}, {type(form).__name__}"
    value, gradient = jax.jit(with_gradient, static_argnums=0)(form, one, out[:1])
    yield check(f"{name}: values", _furthest(value, expected[0]), OF_VALUES)
    yield check(f"{name}: gradients", _furthest(gradient, expected[1]), OF_GRADIENTS)

    forward = jax.jit(batch, static_argnums=0)
    step = jax.jit(with_gradient, static_argnums=0)
    for what, call in (
        ("forward", functools.partial(forward, form, given)),
        ("forward and gradient", functools.partial(step, form, given, out)),
    ):
        timing = warm(call, jax_device.finish)
        yield speed(f"{name}, batch {images}, {what}", str(DTYPE), timing, count=images)


def _furthest(found: Any, expected: Any) -> float:
    """The largest error of any array in units of its largest number."""

    def of_array(found: Any, expected: Any) -> float:
        exact = np.asarray(expected, np.float64)
        return float(np.abs(np.asarray(found, np.float64) - exact).max() / max(np.abs(exact).max(), 1e-9))

    return max(jax.tree.leaves(jax.tree.map(of_array, found, expected)))
