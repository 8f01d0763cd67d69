"""The memory that mask generation needs, predicted from the compiler's own figures for each program."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from samjax.amg.program import (
    MASKS_PER_PACK,
    Limits,
    Region,
    frame_of,
    jitted_choose,
    jitted_decode,
    jitted_judge,
    jitted_pack,
)
from samjax.config import SamConfig
from samjax.execution import Execution
from samjax.model import abstract_params, encode, jitted_encode
from samjax.ops.masks import Frame
from samjax.transforms import Size
from samjax.types import Embedding, Params

# Interpreter, libraries, compiler and compiled programs of a fresh process: measured for ViT-B, the part of its peak
# that no program accounts for. On accelerators they take nothing of the device's memory.
HOST_RUNTIME = 650_000_000
MOST_POINTS = 1024  # more points together gain nothing


@dataclasses.dataclass(frozen=True)
class Plan:
    """The expected peak, in bytes, of generating masks for one photo."""

    weights: int
    runtime: int
    photo: int  # the photo and what of it is made ready for the encoder
    embeddings: int
    encode: int  # temporaries of the image encoder
    find: int  # temporaries of the point batches
    pack: int  # bits of the surviving masks, and what making them takes
    points_per_batch: int
    backend: str

    @property
    def working(self) -> int:
        """Bytes beside the weights. Encoding and judging points follow each other; masks are packed meanwhile."""
        return self.runtime + self.photo + self.embeddings + max(self.encode, self.find) + self.pack

    def __str__(self) -> str:
        rows = {
            "weights": self.weights,
            "interpreter and libraries": self.runtime,
            "photo and model inputs": self.photo,
            "image embeddings": self.embeddings,
            "image encoder": self.encode,
            f"point batches of {self.points_per_batch}": self.find,
            "masks being packed": self.pack,
            "expected peak (encoder and batches take turns)": self.weights + self.working,
        }
        return "\n".join(f"  {name:<48}{size / 1e6:>10,.0f} MB" for name, size in rows.items())


def plan(
    config: SamConfig,
    params: Params,
    execution: Execution,
    photo: Size,
    frame: Size,
    *,
    views: int,
    points: int,
    nms: str,
    points_per_batch: int,
    budget: int | None,
) -> Plan:
    """The memory for a photo that is cut into views, the largest of which has size `frame`, with `points` points each.

    With a budget, `points_per_batch` is the most that keeps `Plan.working` within it. Raises ValueError if not even
    one point a batch does.
    """
    together = min(execution.images_per_step or views, views)
    backend = jax.default_backend()
    shapes = _abstract(frame_of(frame, config))
    taps = sum(tap.shape[-1] for tap in _embedding(config, execution).taps.values())

    def with_batches(count: int) -> Plan:
        height, width = config.image_size
        channels, places = config.channels, config.grid[0] * config.grid[1]
        return Plan(
            weights=sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
            runtime=HOST_RUNTIME if backend == "cpu" else 0,
            photo=channels * (photo[0] * photo[1] + together * (frame[0] * frame[1] + 2 * 4 * height * width)),
            embeddings=2 * together * places * (config.width + taps) * execution.dtype.itemsize,
            encode=_encode_bytes(config, execution, together),
            find=_find_bytes(config, execution, shapes, points, count, nms),
            pack=_pack_bytes(config, execution, shapes),
            points_per_batch=count,
            backend=backend,
        )

    if budget is None:
        return with_batches(min(points_per_batch, points))
    smallest = with_batches(1)
    if smallest.working > budget:
        raise ValueError(
            f"a memory budget of {budget / 1e6:,.0f} MB is too small: a photo of {photo[1]} x {photo[0]} takes "
            f"{smallest.working / 1e6:,.0f} MB beside the weights even with one point at a time; a smaller image_size "
            f"or bfloat16 takes less\n{smallest}"
        )
    per_point = 4 * config.multimask_answers * config.mask_size[0] * config.mask_size[1]
    spare = budget - smallest.working + max(smallest.encode - smallest.find, 0)
    count = min(MOST_POINTS, 1 << (1 + spare // per_point).bit_length() - 1)  # few different programs
    if count >= points:
        count = points
    while (chosen := with_batches(count)).working > budget:
        count //= 2
    return chosen


def _abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _compiled_bytes(lowered: jax.stages.Lowered) -> int:
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None  # XLA has one for every platform
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


@functools.lru_cache(maxsize=16)
def _encode_bytes(config: SamConfig, execution: Execution, images: int) -> int:
    pixels = jax.ShapeDtypeStruct((images, *config.image_size, config.channels), jnp.float32)
    return _compiled_bytes(jitted_encode.lower(config, abstract_params(config), pixels, execution))


@functools.lru_cache(maxsize=64)
def _find_bytes(
    config: SamConfig, execution: Execution, frame: Frame, points: int, points_per_batch: int, nms: str
) -> int:
    """`frame` has shapes for arrays, which many sizes of photos share."""
    # Shapes in place of arrays.
    scalar: Any = jax.ShapeDtypeStruct((), jnp.float32)
    box: Any = jax.ShapeDtypeStruct((4,), jnp.float32)
    count: Any = jax.ShapeDtypeStruct((), jnp.int32)
    grid: Any = jax.ShapeDtypeStruct((points, 2), jnp.float32)
    region = Region(grid, count, box, box)
    limits = Limits(*[scalar] * len(Limits._fields))
    model = config, abstract_params(config), _embedding(config, execution)
    judge = jitted_judge.lower(*model, region, frame, limits, execution, points_per_batch=points_per_batch, nms=nms)
    choose = jitted_choose.lower(judge.out_info, region, limits, nms=nms)
    return max(_compiled_bytes(judge), _bytes_of(judge.out_info) + _compiled_bytes(choose))


@functools.lru_cache(maxsize=16)
def _pack_bytes(config: SamConfig, execution: Execution, frame: Frame) -> int:
    points = jax.ShapeDtypeStruct((MASKS_PER_PACK, 2), jnp.float32)
    which = jax.ShapeDtypeStruct((MASKS_PER_PACK,), jnp.int32)
    model = config, abstract_params(config), _embedding(config, execution)
    decode = jitted_decode.lower(*model, points, which, execution)
    pack = jitted_pack.lower(decode.out_info, frame, execution)
    return 2 * max(_compiled_bytes(decode), _bytes_of(decode.out_info) + _compiled_bytes(pack))


def _bytes_of(tree: Any) -> int:
    return sum(leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _embedding(config: SamConfig, execution: Execution) -> Embedding:
    def embedded(params: Params, pixels: Any) -> Embedding:
        features, size = encode(config, params, pixels, execution), jnp.zeros(2, jnp.int32)
        return Embedding(features.image, size, size, features.taps)

    pixels = jax.ShapeDtypeStruct((*config.image_size, config.channels), jnp.float32)
    return jax.eval_shape(embedded, abstract_params(config), pixels)
