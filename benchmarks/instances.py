"""The operations of Mask2Former beside the forms that others have, in one process: milliseconds, and a table of each.

    python benchmarks/instances.py [--side 768] [--threads 2]

Matching: 100 queries and as many slots as in the table, of which so many hold an object; batches by `vmap`. Beside it
`optax.assignment.hungarian_algorithm`, which knows no empty slots (they cost 0 there), and a callback to scipy on the
host. Deformable attention: all cells of strides 8, 16 and 32 of a square photo, 8 heads of 32 channels, 4 points.
Beside it the form of `transformers` in PyTorch, if installed. Times are the least of several rounds, all forms in turn.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import linear_sum_assignment

from samjax.ops.assignment import assign
from samjax.ops.attention import deformable_attention

QUERIES, ROUNDS = 100, 7
SLOTS = {(1, 1): "1", (20, 20): "20", (20, 5): "5 of 20", (100, 100): "100", (100, 20): "20 of 100"}


def least_milliseconds(forms: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The least time of each form, after one call that compiles it."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for form in forms.values():
        jax.block_until_ready(form())
    for _ in range(ROUNDS):
        for name, form in forms.items():
            start = time.perf_counter()
            jax.block_until_ready(form())
            times[name].append(time.perf_counter() - start)
    return {name: 1000 * min(measured) for name, measured in times.items()}


def matching(images: int, slots: int, present: int) -> dict[str, float]:
    """Times of a batch, with costs of queries that resemble each other."""
    random = np.random.default_rng(0)
    costs = 0.3 * random.standard_normal((images, QUERIES, slots)) + random.exponential(1, (images, QUERIES, 1))
    costs = jnp.asarray(costs + random.exponential(1, (images, 1, slots)), jnp.float32)
    valid = jnp.broadcast_to(jnp.arange(slots) < present, (images, slots))
    padded = jnp.where(valid[:, None], costs, 0)

    def on_host(costs):
        return np.stack([linear_sum_assignment(each.T)[1].astype(np.int32) for each in np.asarray(costs)])

    shape = jax.ShapeDtypeStruct((images, present), jnp.int32)
    ours, theirs = jax.jit(jax.vmap(assign)), jax.jit(jax.vmap(optax.assignment.hungarian_algorithm))
    callback = jax.jit(lambda costs: jax.pure_callback(on_host, shape, costs))
    return least_milliseconds(
        {
            "samjax": lambda: ours(costs, valid),
            "optax": lambda: theirs(padded),
            "callback": lambda: callback(costs[:, :, :present]),
        }
    )


def deformable(side: int) -> dict[str, float]:
    """Times of values, and of values with gradients."""
    random = np.random.default_rng(0)
    sizes = tuple((side // stride, side // stride) for stride in (32, 16, 8))
    cells = sum(rows * columns for rows, columns in sizes)
    values = random.standard_normal((cells, 8, 32)).astype(np.float32)
    weights = random.random((cells, 8, 3, 4)).astype(np.float32)
    points = random.random((cells, 1, 1, 1, 2)) + 0.05 * random.standard_normal((cells, 8, 3, 4, 2))
    given = values, points.astype(np.float32), weights
    forward = jax.jit(lambda *given: deformable_attention(given[0], sizes, *given[1:]))
    both = jax.jit(jax.grad(lambda *given: jnp.square(forward(*given)).sum(), (0, 1, 2)))
    forms: dict[str, Callable[[], Any]] = {
        "samjax": lambda: forward(*given),
        "samjax, gradients": lambda: both(*given),
    }
    try:
        import torch
        from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention
    except ImportError:
        return least_milliseconds(forms)
    tensors = [torch.tensor(each)[None] for each in given]

    def in_torch():
        with torch.no_grad():
            return multi_scale_deformable_attention(tensors[0], list(sizes), *tensors[1:]).numpy()

    def with_gradients():
        leaves = [each.clone().requires_grad_() for each in tensors]
        multi_scale_deformable_attention(leaves[0], list(sizes), *leaves[1:]).square().sum().backward()
        return leaves[0].grad

    return least_milliseconds(forms | {"PyTorch": in_torch, "PyTorch, gradients": with_gradients})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=768, help="pixels of the photo of deformable attention")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    arguments = parser.parse_args()
    try:
        import torch

        torch.set_num_threads(arguments.threads)
    except ImportError:
        pass
    print("matching, milliseconds")
    for images in (1, 8, 20):
        for (slots, present), name in SLOTS.items():
            row = "  ".join(f"{form} {time:8.3f}" for form, time in matching(images, slots, present).items())
            print(f"  {images:3} images, {name:>9} objects  {row}", flush=True)
    print(f"deformable attention of {arguments.side} x {arguments.side} pixels, milliseconds")
    for form, time_taken in deformable(arguments.side).items():
        print(f"  {form:20} {time_taken:8.1f}")


if __name__ == "__main__":
    main()
