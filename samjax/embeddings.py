"""Image embeddings on disk, keyed by what they depend on: the photo's pixels and the model that made them."""

import hashlib
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import UInt8

from samjax.atomic import replacing
from samjax.checkpoint import Checksum
from samjax.pictures import image_hash
from samjax.sam import Sam
from samjax.types import Embedding

_TAPS = "taps/"


def model_hash(sam: Sam) -> str:
    """SHA-256 of what decides a model's answers: configuration, parameters and compute dtype."""
    checksum = Checksum()
    for name, leaf in flatten_dict(sam.params, sep="/").items():
        checksum.add(name, np.asarray(leaf))
    described = f"{sam.config!r} {sam.execution.compute_dtype} {checksum.hexdigest()}"
    return hashlib.sha256(described.encode()).hexdigest()


class EmbeddingStore:
    """A folder of embeddings of one model, one safetensors file per photo.

    The key has the parameters' checksum, the configuration and the compute dtype in it: an embedding made by another
    model or for another input size is never found.
    """

    def __init__(self, folder: str | os.PathLike, sam: Sam) -> None:
        self.folder = Path(folder)
        self.model_hash = model_hash(sam)

    def path(self, rgb: UInt8[np.ndarray, "H W channels"]) -> Path:
        """The file of a photo's embedding, whether it exists or not."""
        return self.path_of(image_hash(rgb))

    def path_of(self, image: str) -> Path:
        """`path` by the photo's `image_hash`."""
        return self.folder / f"{image[:32]}-{self.model_hash[:16]}.safetensors"

    def get(self, rgb: UInt8[np.ndarray, "H W channels"]) -> Embedding | None:
        """The stored embedding of a photo, or None. Raises ValueError for a damaged file."""
        return self.get_of(image_hash(rgb))

    def get_of(self, image: str) -> Embedding | None:
        """`get` by the photo's `image_hash`."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.path_of(image)
        if not path.is_file():
            return None
        try:
            arrays = {name: jnp.asarray(array) for name, array in load_file(path).items()}
            taps = {name.removeprefix(_TAPS): arrays.pop(name) for name in list(arrays) if name.startswith(_TAPS)}
            return Embedding(**arrays, taps=taps)
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it to have it made again") from error

    def put(self, rgb: UInt8[np.ndarray, "H W channels"], embedding: Embedding) -> Path:
        """Stores a photo's embedding."""
        return self.put_of(image_hash(rgb), embedding)

    def put_of(self, image: str, embedding: Embedding) -> Path:
        """`put` by the photo's `image_hash`."""
        from safetensors.numpy import save_file

        arrays = {name: np.asarray(getattr(embedding, name)) for name in ("features", "original_size", "input_size")}
        arrays |= {f"{_TAPS}{name}": np.asarray(tap) for name, tap in embedding.taps.items()}
        path = self.path_of(image)
        with replacing(path, overwrite=True) as temporary:
            save_file(arrays, temporary, metadata={"model": self.model_hash, "image": image})
        return path
