"""The native checkpoint: an orbax folder beside `samjax.json`, which holds configuration, provenance and checksums.

    CKPT/samjax.json   format version, SamConfig, provenance, shape, dtype and sha256 of every parameter
    CKPT/arrays/       the parameters, one orbax array each, under the names of the parameter tree

Parameters are written and restored one at a time, so the peak is the parameters themselves plus the largest of them.
"""

import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax.atomic import replacing
from samjax.config import ENCODERS, EncoderConfig, MaskThresholds, SamConfig, ViTConfig, written_fields
from samjax.errors import first_line
from samjax.mismatch import explain_mismatch
from samjax.types import Params

FORMAT_VERSION = 1
MANIFEST = "samjax.json"
_BATCH = 32 << 20  # bytes written at once
_COORDINATES = "positional_encoding_gaussian_matrix"  # turns coordinates into Fourier features: always float32
_HUGGING_FACE_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")
_HUGGING_FACE_CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")

ParamSharding = jax.sharding.Sharding | Callable[[str, jax.ShapeDtypeStruct], jax.sharding.Sharding] | None


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what was expected, what came and what to do."""


@dataclasses.dataclass(frozen=True)
class LazyArray:
    """An array that is still in its file (or on its device): `read` gives a fresh numpy array at each call."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Description:
    """The contents of a checkpoint, as `samjax info` prints them."""

    format: str  # "native", "meta" or "huggingface"
    config: SamConfig
    parameters: int  # numbers, not arrays
    dtypes: tuple[str, ...]
    provenance: dict[str, Any]
    checksum: str  # of the parameters, equal in every format that holds the same ones
    place: str = ""  # of the state dict within what a training program has saved
    skipped: tuple[str, ...] = ()  # what lies beside it, as "name (class)"
    dropped: tuple[str, ...] = ()  # names of tensors in it that are no part of the model
    warnings: tuple[str, ...] = ()  # what reading it warns of
    thresholds: MaskThresholds = dataclasses.field(default_factory=MaskThresholds)  # of mask generation, for the model

    @property
    def variant(self) -> str:
        """`SamConfig.variant`."""
        return self.config.variant


class Checksum:
    """sha256 over the sorted lines "name dtype shape sha256(bytes)", so arrays may come in any order."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Any]] = {}  # name to dtype, shape and sha256

    def add(self, name: str, array: np.ndarray) -> None:
        """Adds the array of a parameter; one of the same name is replaced."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        digest = hashlib.sha256(data.data).hexdigest()
        self.entries[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": digest}

    def hexdigest(self) -> str:
        """The checksum of the arrays that have been added."""
        lines = [
            f"{name} {entry['dtype']} {'x'.join(map(str, entry['shape']))} {entry['sha256']}\n"
            for name, entry in sorted(self.entries.items())
        ]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def lazy(array: Any) -> LazyArray:
    """Any array (numpy, JAX on any device, or lazy already) as a `LazyArray`."""
    if isinstance(array, LazyArray):
        return array
    return LazyArray(tuple(array.shape), np.dtype(array.dtype), lambda: np.asarray(array))


def cast(name: str, array: np.ndarray, dtype: Any) -> np.ndarray:
    """A parameter in another dtype; the matrix of the Fourier features, which coordinates need, always in float32."""
    return array.astype(np.float32 if name.rpartition("/")[2] == _COORDINATES else dtype, copy=False)


def place(name: str, array: np.ndarray, *, dtype: Any = None, sharding: ParamSharding = None) -> jax.Array:
    """One parameter on its devices: `cast` on the host, then each device receives its own shard and nothing more."""
    if dtype is not None:
        array = cast(name, array, dtype)
    if callable(sharding):
        sharding = sharding(name, jax.ShapeDtypeStruct(array.shape, array.dtype))
    if sharding is None:
        return jax.device_put(array)  # `jnp.asarray` would compile a program for each shape
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def save(
    path: str | os.PathLike[str],
    config: SamConfig,
    params: Params,
    provenance: dict[str, Any] | None = None,
    *,
    thresholds: MaskThresholds | None = None,
    overwrite: bool = False,
) -> str:
    """Writes a native checkpoint and returns its checksum; nothing is left behind where it fails.

    Args:
        path: the folder to make.
        config: the configuration that `params` belongs to.
        params: nested dict of arrays (numpy, JAX or `LazyArray`), as `samjax.model.abstract_params(config)` shapes it.
        provenance: where the parameters come from, as plain JSON values; date and samjax version are added.
        thresholds: of mask generation, suited to the model; None: Meta's.
        overwrite: replace what stands at `path`: a file, or a folder that is empty or a checkpoint and nothing else.
    """
    leaves = {name: lazy(array) for name, array in flatten_dict(params, sep="/").items()}
    check_names(config, {name: array.shape for name, array in leaves.items()})
    with replacing(path, overwrite=overwrite, foreign=foreign_to_checkpoints) as folder:
        folder.mkdir()
        checksum = _save_arrays(folder / "arrays", leaves)
        manifest = {
            "format_version": FORMAT_VERSION,
            "config": written_fields(config),
            "provenance": {
                **(provenance or {}),
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "samjax_version": importlib.metadata.version("samjax"),
            },
            **({} if thresholds is None else {"thresholds": dataclasses.asdict(thresholds)}),
            "checksum": checksum.hexdigest(),
            "parameters": dict(sorted(checksum.entries.items())),
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest["checksum"]


def restore(
    path: str | os.PathLike[str], *, dtype: Any = None, sharding: ParamSharding = None
) -> tuple[SamConfig, Params]:
    """Reads a native checkpoint: every checksum is compared, every array is placed straight on its shards.

    Args:
        path: the folder that `save` made.
        dtype: cast the parameters to it, see `place`; None keeps the stored one.
        sharding: one `jax.sharding.Sharding` for all parameters, or a function of (name, `jax.ShapeDtypeStruct`) that
            gives one, or None for the default device.

    Raises:
        CheckpointError: a file is missing or damaged, or a checksum differs.
    """
    config, leaves = open_native(path)
    placed = {name: place(name, leaf.read(), dtype=dtype, sharding=sharding) for name, leaf in leaves.items()}
    return config, unflatten_dict(placed, sep="/")


def is_native(path: str | os.PathLike[str]) -> bool:
    """True for a folder with a native checkpoint's manifest, whatever is in it."""
    return (Path(path) / MANIFEST).is_file()


def foreign_to_checkpoints(folder: Path) -> list[str]:
    """Names of the entries of a folder that belong to no native checkpoint or Hugging Face model in it."""
    entries = list(folder.iterdir())
    own = {MANIFEST, "arrays"} if is_native(folder) else set()
    weights = {entry.name for entry in entries if _HUGGING_FACE_WEIGHTS.fullmatch(entry.name)}
    if weights:
        own |= weights | set(_HUGGING_FACE_CONFIGS)
    return [entry.name for entry in entries if entry.name not in own or entry.is_dir() != (entry.name == "arrays")]


def describe(path: str | os.PathLike[str]) -> Description:
    """Describes a checkpoint by its `samjax.json`; the arrays themselves are not read."""
    config, manifest = _read_manifest(Path(path))
    parameters = manifest["parameters"].values()
    return Description(
        format="native",
        config=config,
        parameters=sum(int(np.prod(entry["shape"], dtype=np.int64)) for entry in parameters),
        dtypes=tuple(sorted({entry["dtype"] for entry in parameters})),
        provenance=manifest["provenance"],
        checksum=manifest["checksum"],
        thresholds=read_thresholds(path),
    )


def read_thresholds(path: str | os.PathLike[str]) -> MaskThresholds:
    """The thresholds that a native checkpoint carries for mask generation, or Meta's if it has none.

    Raises:
        CheckpointError: they are not numbers.
    """
    _, manifest = _read_manifest(Path(path))
    return thresholds_from_json(manifest.get("thresholds", {}), Path(path) / MANIFEST)


def thresholds_from_json(fields: Any, file: Path) -> MaskThresholds:
    """Thresholds by their names, read from `file`; those that are missing are Meta's.

    Raises:
        CheckpointError: they are no object of numbers.
    """
    try:
        numbers = dataclasses.astuple(from_json(MaskThresholds, fields))
        if not all(isinstance(number, float | int) and math.isfinite(number) for number in numbers):
            raise ValueError(f"got {fields}")
        return MaskThresholds(*map(float, numbers))
    except (ValueError, TypeError, AttributeError) as error:
        names = ", ".join(field.name for field in dataclasses.fields(MaskThresholds))
        raise CheckpointError(
            f"{file}: the thresholds of mask generation are damaged ({error}); expected numbers {names}"
        ) from None


def open_native(path: str | os.PathLike[str]) -> tuple[SamConfig, dict[str, LazyArray]]:
    """The parameters of a native checkpoint, flat ("a/b/c"), each checked against its sha256 when it is read."""
    folder = Path(path).absolute()
    config, manifest = _read_manifest(folder)
    leaves = {
        name: LazyArray(
            tuple(entry["shape"]), np.dtype(entry["dtype"]), functools.partial(_read_array, folder, name, entry)
        )
        for name, entry in manifest["parameters"].items()
    }
    check_names(config, {name: leaf.shape for name, leaf in leaves.items()})
    return config, leaves


def check_names(config: SamConfig, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises `CheckpointError` with the difference where names or shapes are not those of `config`."""
    from samjax.model import abstract_params

    declared: dict[str, Any] = flatten_dict(abstract_params(config), sep="/")
    expected = {name: leaf.shape for name, leaf in declared.items()}
    if difference := explain_mismatch(expected, shapes):
        raise CheckpointError(f"The parameters do not fit a {config.variant} at {config.image_size}:\n{difference}")


def from_json(cls: type, fields: dict[str, Any]) -> Any:
    """The inverse of `dataclasses.asdict` after a trip through JSON, which has no tuples.

    Raises `CheckpointError` for a field that the class has not.
    """
    kinds = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in kinds:
            raise CheckpointError(f"{cls.__name__} has no field {name!r}; was this written by a newer samjax?")
        if isinstance(value, dict):
            values[name] = from_json(_chosen(kinds[name], value), value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


def _chosen(kind: type, fields: dict[str, Any]) -> type:
    """The class of a nested configuration; that of an image encoder has the family that the fields name."""
    if kind is not EncoderConfig:
        return kind
    family = fields.get("family")
    for encoder in ENCODERS:
        if getattr(encoder, "family", None) == family:
            return encoder
    raise CheckpointError(f"unknown family {family!r} of image encoders; was this written by a newer samjax?")


def plain_vit(config: SamConfig, *, who: str) -> ViTConfig:
    """The configuration of the image encoder if it is a plain ViT. Raises `CheckpointError` if not; `who` needs it."""
    if not isinstance(config.image_encoder, ViTConfig):
        raise CheckpointError(f"{who} has a plain ViT, this model's encoder is a {type(config.image_encoder).__name__}")
    return config.image_encoder


def _read_manifest(folder: Path) -> tuple[SamConfig, dict[str, Any]]:
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text())
        if manifest["format_version"] != FORMAT_VERSION:
            version = manifest["format_version"]
            raise CheckpointError(f"{file} has format version {version!r}; this samjax reads {FORMAT_VERSION}")
        config = from_json(SamConfig, manifest["config"])
        checksum = Checksum()
        checksum.entries = manifest["parameters"]
        if checksum.hexdigest() != manifest["checksum"]:
            raise CheckpointError(f"{file} is damaged: its checksum does not fit; convert the source again")
        return config, manifest
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder} is no native checkpoint: it holds no {MANIFEST}") from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from None
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{file} is damaged ({problem}); convert the source again") from None


def _save_arrays(folder: Path, leaves: dict[str, LazyArray]) -> Checksum:
    """Orbax given all arrays at once holds two to three copies of them; its handler for lazy ones holds one array."""
    import orbax.checkpoint as ocp

    checksum = Checksum()

    class StreamingHandler(ocp.type_handlers.NumpyHandler):
        async def serialize(self, values, infos, args=None):
            for batch in _batches(list(zip(values, infos, args or (), strict=True))):
                arrays = [np.ascontiguousarray(leaf.read()) for leaf, _, _ in batch]
                batch_infos, batch_args = [info for _, info, _ in batch], [arg for _, _, arg in batch]
                for array, info in zip(arrays, batch_infos, strict=True):
                    checksum.add(info.name.replace(".", "/"), array)
                for write in await super().serialize(arrays, batch_infos, batch_args):
                    write.result()
            return []

    registry = ocp.type_handlers.create_type_handler_registry(
        (LazyArray, StreamingHandler()), (jax.Array, ocp.type_handlers.ArrayHandler())
    )
    # Weights are noise to a compressor: it costs 4x the time and saves 7 %.
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_compression=False, type_handler_registry=registry)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(folder, ocp.args.PyTreeSave(unflatten_dict(leaves, sep="/")))
    return checksum


def _batches(leaves: list[tuple[LazyArray, Any, Any]]) -> Iterator[list[tuple[LazyArray, Any, Any]]]:
    """Small arrays together, because each write waits for the disk."""
    batch: list[tuple[LazyArray, Any, Any]] = []
    for leaf in leaves:
        if batch and sum(other.nbytes for other, _, _ in batch) + leaf[0].nbytes > _BATCH:
            yield batch
            batch = []
        batch.append(leaf)
    if batch:
        yield batch


def _read_array(folder: Path, name: str, entry: dict[str, Any]) -> np.ndarray:
    """Reads one array by tensorstore, orbax's own storage: a partial restore by orbax costs 40 ms for each array."""
    import tensorstore

    kvstore = {"driver": "ocdbt", "base": f"file://{folder / 'arrays'}/", "path": name.replace("/", ".") + "/"}
    try:
        store = tensorstore.open({"driver": "zarr", "kvstore": kvstore}, open=True, read=True).result()
        array = store.read().result()
    except ValueError as error:
        raise CheckpointError(f"{folder}: {name} cannot be read ({first_line(error)}); convert again") from None
    checksum = Checksum()
    checksum.add(name, array)
    if checksum.entries[name] != entry:
        raise CheckpointError(f"{folder}: {name} is damaged, its checksum differs; convert the source again")
    return array
