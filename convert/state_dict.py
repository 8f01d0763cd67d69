"""Opens a PyTorch-side checkpoint of any format: parameter names to arrays that are still in their files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from samjax.checkpoint import CheckpointError, LazyArray
from samjax.mismatch import shortened

from .legacy_file import PickleFile, is_pickle
from .locate import WRAPPERS, Located, describe_kind, list_entries, locate
from .npz_file import is_npz, read_npz
from .safetensors_file import read_safetensors
from .storages import SavedObject
from .torch_file import TorchArchive

StateDict = dict[str, LazyArray]

_HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclasses.dataclass(frozen=True)
class Opened:
    """A state dict, with what its place says about it."""

    tensors: StateDict
    files: tuple[Path, ...]  # those that hold the tensors
    declared: dict[str, Any] | None = None  # Hugging Face's config.json
    located: Located | None = None  # where the state dict lies in a saved object, and beside what


def open_state_dict(path: Path) -> Opened:
    """Opens a file, or a Hugging Face folder; the format follows from the content, not from the name.

    Raises:
        CheckpointError: it is missing, damaged, of an unknown format, or holds no state dict.
        OSError: the file cannot be opened.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    siblings = path.name.startswith(("model.", "pytorch_model"))
    config = path.parent / "config.json"
    declared = _read_json(config) if siblings and config.is_file() else None
    if path.name.endswith(".index.json"):
        return _open_shards(path, declared)
    tensors, located = _open_file(path)
    return Opened(tensors, (path,), declared, located)


def _open_folder(path: Path) -> Opened:
    """Opens the weights in a Hugging Face folder. Raises `CheckpointError` if there are none."""
    for name in _HUGGING_FACE_FILES:
        for file in (path / name, path / f"{name}.index.json"):
            if file.is_file():
                return open_state_dict(file)
    raise CheckpointError(
        f"{path} holds no checkpoint: expected samjax.json (native), or {' or '.join(_HUGGING_FACE_FILES)} "
        "(Hugging Face), or the path of a single file"
    )


def _open_shards(index: Path, declared: dict[str, Any] | None) -> Opened:
    """Opens the files that an index names, which lie beside it.

    Raises `CheckpointError` if the index is damaged, or a file is missing, damaged, or does not hold what the index
    places in it.
    """
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
        raise CheckpointError(f"{index} has no weight_map; fetch it again")
    shards = {shard: index.parent / shard for shard in sorted(set(names.values()))}
    for shard, file in shards.items():
        if Path(shard).name != shard or not file.is_file():
            raise CheckpointError(f"{index} names the file {shard!r}, which is not beside it")
    opened = {shard: _open_file(file)[0] for shard, file in shards.items()}
    missing = [name for name, shard in names.items() if name not in opened[shard]]
    if missing:
        raise CheckpointError(f"{index} places {missing[0]!r} in {names[missing[0]]}, which does not hold it")
    return Opened({name: opened[shard][name] for name, shard in names.items()}, tuple(shards.values()), declared)


def _open_file(path: Path) -> tuple[StateDict, Located | None]:
    """Opens a file in the format that its first bytes show. Raises as `open_state_dict`."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        return (read_npz(path), None) if is_npz(path) else _open_object(TorchArchive(path))
    if start[8:9] == b"{":
        return read_safetensors(path), None
    if is_pickle(start):
        return _open_object(PickleFile(path))
    raise CheckpointError(f"{path} {_foreign(start)}")


def _open_object(saved: SavedObject) -> tuple[StateDict, Located]:
    """Opens the state dict in a saved object. Raises `CheckpointError` if there is none, or a tensor is damaged."""
    located = locate(saved.content)
    if located is None:
        entries = ", ".join(f"{shortened(name)} ({kind})" for name, kind in list_entries(saved.content))
        raise CheckpointError(
            f"{saved.path} holds no state dict: expected names with tensors, at the top or under "
            f"{', '.join(WRAPPERS[:4])}; found a {describe_kind(saved.content)}{entries and f' with {entries}'}. "
            "Objects are not built: if one is the model, save its weights with torch.save(model.state_dict(), ...)"
        )
    return {name: saved.open(reference) for name, reference in located.tensors.items()}, located


def _foreign(start: bytes) -> str:
    """Guesses the format of a file that is not supported."""
    if not start:
        return "is empty; fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not a checkpoint; the download went wrong"
    if start.startswith(b"\x93NUMPY"):
        return "is a single NumPy array; save names with arrays: numpy.savez(FILE, **state_dict)"
    if start.startswith(b"\x89HDF"):
        return "is an HDF5 file; expected PyTorch's file (.pth, .pt, .bin), .safetensors or NumPy's .npz"
    return "is of no known format: expected PyTorch's file (.pth, .pt, .bin), .safetensors or NumPy's .npz"


def _read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises `CheckpointError` if the file cannot be read, or holds none."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}); fetch it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch it again")
    return content
