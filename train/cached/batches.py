"""Batches with the features of their photos."""

import dataclasses
import functools
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from samjax.checkpoint import Checksum
from samjax.config import SamConfig
from samjax.model import abstract_params, encode
from samjax.nn.encoders import family_of
from samjax.sharding import batch_sharding, make_mesh
from samjax.transforms import channel_statistics
from samjax.types import Params

from ..batch import Batch, pixels_of_photos
from ..config import TrainConfig
from ..execution import encoder_execution
from ..prefetch import Batches
from .plan import CachePlan
from .point import IMAGE, arrays_at
from .store import Arrays, DiskStore, MemoryStore

FORMAT = 1  # of what is on disk; a change of what the encoder computes, or how it is kept, is another one


class FeatureCache:
    """The features of photos at the point of a plan: looked up, or else computed and kept.

    A photo is known by its pixels in the INPUT frame, so that neither a file that was changed nor another augmentation
    is mistaken for it; what is on disk also by the encoder's parameters up to the point. Used by several threads. Each
    of several processes computes the features of its own part of a batch, each on a device of its own; what is on disk
    serves all of them.

    Args:
        plan: what is kept.
        config: the recipe.
        sam: the network.
        mesh: what it trains on.
        params: the network's parameters. Those of the encoder up to the point are copied, because a step reuses the
            memory of its state, and whole onto each of this process's devices: a program with collectives, run by the
            thread that reads ahead, could wait for a step's while that waits for it. They move to the host when as
            many photos as are planned have been computed for memory; until then, and with features on disk, they take
            room on the devices beside the state's.
        folder: of all features on disk.
    """

    def __init__(
        self, plan: CachePlan, config: TrainConfig, sam: SamConfig, mesh: Mesh, params: Params, folder: Path
    ) -> None:
        self.plan, self.encoded = plan, 0
        self._sam, self._lock = sam, threading.Lock()
        own = make_mesh(devices=mesh.local_devices)
        self._sharding = batch_sharding(own)
        self._execution = encoder_execution(config, own)
        # As many photos as are in work at a time: a CPU has one on each device.
        at_once = config.run.batch // config.run.accumulate * own.size // mesh.size
        self._piece = own.size if own.devices.flat[0].platform == "cpu" else -(-at_once // own.size) * own.size
        copied = jax.jit(functools.partial(jax.tree.map, jnp.copy), out_shardings=NamedSharding(mesh, P()))
        whole = copied(_before(sam, plan.point, params["image_encoder"]))
        self._params = jax.tree.map(functools.partial(_held_by, own), whole)
        if plan.on_disk:
            # A photo more than planned, the black one that fills a validation's last batch, and the files' headers.
            needed = plan.total_bytes + plan.measured_bytes + 1024 * (plan.photos + 1)
            budget = int(config.cache.budget_gb * 1e9)
            self._stores = {dtype: DiskStore(folder, name, budget, needed) for dtype, name in self._weights(config)}
        else:
            self._stores = {dtype: MemoryStore() for dtype in self._dtypes}

    def attach(self, batch: Batch, *, keep_images: bool, measured: bool = False) -> Batch:
        """A batch on the host with the features of its photos.

        Args:
            batch: without them.
            keep_images: leave its photos' pixels in it.
            measured: it is validated on, with features in the dtype for that.
        """
        keys = [_key(image, size) for image, size in zip(batch.image, batch.size, strict=True)]
        dtype = self.plan.measured_dtype if measured else self.plan.dtype
        with self._lock:
            found = {key: self._stores[dtype].get(key) for key in keys}
            missing = [key for key, arrays in found.items() if arrays is None]
            for start in range(0, len(missing), self._piece):
                found |= self._encode(batch, keys, missing[start : start + self._piece], dtype)
        rows: list[Any] = [found[key] for key in keys]
        stored = {name: np.stack([row[name] for row in rows]) for name in arrays_at(self._sam, self.plan.point)}
        images = batch.image if keep_images else batch.image[:, :0, :0]
        return dataclasses.replace(batch, image=images, stored=stored)

    def _encode(self, batch: Batch, keys: list[str], missing: list[str], dtype: str) -> dict[str, Arrays]:
        """Computes and keeps the features of a few photos of a batch; padded, so that one program serves all."""
        rows = [keys.index(key) for key in missing]
        padded = rows + [rows[0]] * (self._piece - len(rows))
        photos = jax.device_put((np.asarray(batch.image)[padded], np.asarray(batch.size)[padded]), self._sharding)
        how = self._sam, self._execution, self.plan.point, dtype
        arrays = jax.device_get(_features(*how, self._params, *photos))
        self.encoded += len(rows)
        found = {}
        for number, key in enumerate(missing):
            found[key] = {name: np.array(array[number]) for name, array in arrays.items()}
            self._stores[dtype].put(key, found[key])
        if not self.plan.on_disk and self.encoded >= self.plan.photos:
            self._params = jax.device_get(self._params)  # no more photos are to come; one that does takes longer
        return found

    @property
    def _dtypes(self) -> tuple[str, ...]:
        """That features are kept in: of training, and where it is another, of validation."""
        return tuple(dict.fromkeys((self.plan.dtype, self.plan.measured_dtype)))

    def _weights(self, config: TrainConfig) -> Iterator[tuple[str, str]]:
        """By dtype: a hash of all that decides the features of a photo's pixels, and their form."""
        checksum = Checksum()
        for name, leaf in self._params.items():
            checksum.add(name, np.asarray(leaf))
        point, statistics = self.plan.point, tuple(part.tolist() for part in channel_statistics(self._sam.channels))
        for dtype in self._dtypes:
            how = config.run.compute_dtype, point, dtype, arrays_at(self._sam, point), *statistics
            text = f"{FORMAT} {self._sam.image_encoder!r} {how} {checksum.hexdigest()}"
            yield dtype, hashlib.sha256(text.encode()).hexdigest()[:16]


class CachedBatches:
    """Batches (`samjax.train.prefetch.Batches`) with the features of their photos."""

    def __init__(
        self, batches: Batches, cache: FeatureCache, *, keep_images: bool = False, measured: bool = False
    ) -> None:
        self._batches, self._cache = batches, cache
        self._keep_images, self._measured = keep_images, measured

    def __next__(self) -> Batch:
        return self._cache.attach(next(self._batches), keep_images=self._keep_images, measured=self._measured)

    def get_state(self) -> dict[str, Any]:
        """As that of the batches."""
        return self._batches.get_state()


def _held_by(mesh: Mesh, leaf: jax.Array) -> jax.Array:
    """An array that is whole on every device, as one of a mesh of some of them."""
    shards = [shard.data for shard in leaf.addressable_shards]
    return jax.make_array_from_single_device_arrays(leaf.shape, NamedSharding(mesh, P()), shards)


def _key(image: np.ndarray, size: np.ndarray) -> str:
    digest = hashlib.sha256(repr((image.shape, np.asarray(size).tolist())).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]


def _before(sam: SamConfig, point: str, encoder: Params) -> dict[str, Any]:
    """The encoder's parameters that the features at a point depend on, by name."""
    flat: dict[str, Any] = flatten_dict(encoder, sep="/")
    if point == IMAGE:
        return flat
    layer = functools.partial(family_of(sam.image_encoder).layer, sam.image_encoder)
    last = family_of(sam.image_encoder).tap_names(sam.image_encoder).index(point) + 1
    return {name: leaf for name, leaf in flat.items() if layer(name) <= last}


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _features(
    sam: SamConfig, execution: Any, point: str, dtype: str, kept: dict[str, Any], image: Any, size: Any
) -> dict[str, Any]:
    """What is kept of photos. What of the encoder comes after the point is given zeros, and never computed."""
    declared: dict[str, Any] = flatten_dict(abstract_params(sam)["image_encoder"], sep="/")
    whole = {name: kept.get(name, jnp.zeros(leaf.shape, leaf.dtype)) for name, leaf in declared.items()}
    names = arrays_at(sam, point)
    taps = tuple(name for name in names if name != IMAGE)
    params = {"image_encoder": unflatten_dict(whole, sep="/")}
    features = encode(sam, params, pixels_of_photos(image, size), execution, taps=taps)
    return {name: (features.image if name == IMAGE else features.taps[name]).astype(dtype) for name in names}
