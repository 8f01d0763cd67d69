"""Opens a PyTorch-side checkpoint of any format: parameter names to arrays that are still in their files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from samjax.checkpoint import CheckpointError, LazyArray

from .safetensors_file import read_safetensors
from .torch_file import read_torch

StateDict = dict[str, LazyArray]

# Where training programs put the state dict, the likeliest first.
_WRAPPERS = (
    *("model", "state_dict", "model_state", "model_state_dict", "module", "sam", "sam_model", "net", "network"),
    *("params", "weights", "student", "ema", "model_ema", "teacher"),
)
_HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclasses.dataclass(frozen=True)
class Opened:
    """A state dict with what else its place tells."""

    tensors: StateDict
    files: tuple[Path, ...]  # those that hold the tensors
    declared: dict[str, Any] | None = None  # Hugging Face's config.json


def open_state_dict(path: Path) -> Opened:
    """Opens a file, or a Hugging Face folder; the format follows from the content, not from the name.

    Raises `CheckpointError` where it is missing, damaged, of an unknown format, or holds no state dict.
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
    return Opened(_open_file(path), (path,), declared)


def _open_folder(path: Path) -> Opened:
    for name in _HUGGING_FACE_FILES:
        for file in (path / name, path / f"{name}.index.json"):
            if file.is_file():
                return open_state_dict(file)
    raise CheckpointError(
        f"{path} holds no checkpoint: expected samjax.json (native), or {' or '.join(_HUGGING_FACE_FILES)} "
        "(Hugging Face), or the path of a single file"
    )


def _open_shards(index: Path, declared: dict[str, Any] | None) -> Opened:
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
        raise CheckpointError(f"{index} has no weight_map; fetch it again")
    shards = {shard: index.parent / shard for shard in sorted(set(names.values()))}
    for shard, file in shards.items():
        if Path(shard).name != shard or not file.is_file():
            raise CheckpointError(f"{index} names the file {shard!r}, which is not beside it")
    opened = {shard: _open_file(file) for shard, file in shards.items()}
    missing = [name for name, shard in names.items() if name not in opened[shard]]
    if missing:
        raise CheckpointError(f"{index} places {missing[0]!r} in {names[missing[0]]}, which does not hold it")
    return Opened({name: opened[shard][name] for name, shard in names.items()}, tuple(shards.values()), declared)


def _open_file(path: Path) -> StateDict:
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        return _find_state_dict(read_torch(path), path)
    if start[8:9] == b"{":
        return read_safetensors(path)
    raise CheckpointError(f"{path} {_foreign(start)}")


def _foreign(start: bytes) -> str:
    """What a file of no supported format seems to be."""
    if not start:
        return "is empty; fetch it again"
    if start[:1] == b"\x80":  # the magic number of PyTorch < 1.6, a bare pickle
        return (
            "is a pickle outside of a zip archive (PyTorch before 1.6 wrote these), which is not read; load it with a "
            "recent PyTorch and re-save it with torch.save(model.state_dict(), ...)"
        )
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not a checkpoint; the download went wrong"
    if start.startswith(b"\x89HDF"):
        return "is an HDF5 file; expected a PyTorch zip file (.pth, .pt, .bin) or .safetensors"
    return "is of no known format: expected a PyTorch zip file (.pth, .pt, .bin) or .safetensors"


def _find_state_dict(content: Any, path: Path) -> StateDict:
    """The state dict itself, or nested one or two levels deep as training programs save it."""
    level = [content]
    for _ in range(3):
        found = [tensors for candidate in level if (tensors := _tensors(candidate))]
        if found:
            return found[0]
        nested = [inner for outer in level if isinstance(outer, dict) for inner in _nested(outer)]
        level = list({id(inner): inner for inner in nested}.values())  # a hostile file may share one a million times
    keys = ", ".join(repr(key)[:40] for key in list(content)[:10]) if isinstance(content, dict) else ""
    raise CheckpointError(
        f"{path} holds no state dict: expected names with tensors, at the top or under {', '.join(_WRAPPERS[:4])}; "
        f"found {f'the keys {keys}' if keys else f'a {type(content).__name__}'}"
    )


def _tensors(candidate: Any) -> StateDict | None:
    """The tensors of a dictionary that consists of them; a few numbers beside them (an epoch) do no harm."""
    if not isinstance(candidate, dict):
        return None
    tensors = {name: item for name, item in candidate.items() if isinstance(item, LazyArray) and isinstance(name, str)}
    return tensors if 2 * len(tensors) > len(candidate) else None


def _nested(outer: dict[Any, Any]) -> list[Any]:
    names = [name for name in _WRAPPERS if name in outer]
    others = [name for name in outer if name not in names and name not in ("optimizer", "optimizer_state_dict")]
    return [outer[name] for name in names + others if isinstance(outer[name], dict)][:50]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}); fetch it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch it again")
    return content
