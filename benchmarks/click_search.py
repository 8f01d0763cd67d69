"""The next click for many objects of a photo: on the host (`samjax.evaluation.user.clicks`), and on the device.

    python benchmarks/click_search.py [--masks 64] [--size 480 640] [--repeats 5]

The device's way is the exact distance transform in two passes, for all masks at once: distances along columns by scans,
then for each row the least of distance² + offset² over all offsets. Both ways are given the same blobs, and find the
same depths.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from contest import machine
from jaxtyping import Array, Bool, Float32

from samjax.evaluation.user.clicks import depths


def host(regions: np.ndarray) -> np.ndarray:
    return np.array([depths(region).deepest()[0] for region in regions], np.float32)


@jax.jit
def device(regions: Bool[Array, "N H W"]) -> Float32[Array, " N"]:
    inside = jnp.pad(regions, ((0, 0), (1, 1), (1, 1)))

    def steps(column):
        """Along axis 1, how far the last pixel outside is."""
        return jax.lax.associative_scan(lambda a, b: (jnp.where(b[1], a[0] + b[0], b[0]), a[1] & b[1]), column, axis=1)[
            0
        ]

    ones = inside.astype(jnp.float32)
    down = steps((ones, inside))
    up = steps((ones[:, ::-1], inside[:, ::-1]))[:, ::-1]
    vertical = jnp.minimum(down, up) ** 2
    width = inside.shape[2]

    def nearest(best, offset):
        shifted = jnp.roll(vertical, offset, 2)
        column = jnp.arange(width) - offset
        outside = (column < 0) | (column >= width)
        return jnp.minimum(best, jnp.where(outside, jnp.inf, shifted) + offset.astype(jnp.float32) ** 2), None

    squared, _ = jax.lax.scan(nearest, vertical, jnp.arange(-width + 1, width))
    return jnp.sqrt(squared.max((1, 2)))


def blobs(count: int, height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    regions = []
    for _ in range(count):
        center, radius = random.uniform(0, [height, width]), random.uniform(8, height / 3)
        wave = 1 + 0.3 * np.sin(random.integers(2, 7) * np.arctan2(y - center[0], x - center[1]))
        regions.append(np.hypot(y - center[0], x - center[1]) < radius * wave)
    return np.stack(regions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=64)
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    regions = blobs(options.masks, *options.size)
    on_device = jax.device_put(regions)
    np.testing.assert_allclose(device(on_device), host(regions), rtol=1e-5)
    seconds: dict[str, list[float]] = {"host": [], "device": []}
    for _ in range(options.repeats):
        for name, find in (("host", lambda: host(np.asarray(on_device))), ("device", lambda: device(on_device))):
            start = time.perf_counter()
            jax.block_until_ready(find())
            seconds[name].append(time.perf_counter() - start)
    print(f"{machine()}\n{options.masks} regions of {options.size[0]} x {options.size[1]} pixels")
    for name, times in seconds.items():
        print(f"{name:7} {1e3 * statistics.median(times):8.1f} ms")


if __name__ == "__main__":
    main()
