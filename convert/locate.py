"""Finds the state dict in an object that a training program has saved, and names everything beside it.

It may stand beside an optimizer or within the state of a trainer, or be the modules of a whole model, whose parameters
are the state of objects that are not built.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

from samjax.mismatch import shortened

from .pickle_arrays import ArrayReference, as_array
from .pickle_opcodes import Extent
from .pickle_reader import Global, Opaque, StorageReference, TensorReference

Reference = TensorReference | ArrayReference

# Names that training programs give to the state dict, the likeliest first.
WRAPPERS = (
    *("model", "state_dict", "model_state", "model_state_dict", "module", "sam", "sam_model", "net", "network"),
    *("params", "weights", "student"),
)
_AVERAGES = re.compile(r"(^|[._])(ema|teacher|swa|averaged?|momentum)([._]|$)", re.IGNORECASE)  # of the weights
PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")
_SAM = re.compile(rf"(^|\.)({'|'.join((*PARTS, 'vision_encoder'))})\.")
_MAX_DEPTH = 10  # of objects within objects
_MAX_MODULES = 20_000  # parameters, buffers and modules looked at: modules may share others without end
_LONGEST_PREFIX = 1000
_MAX_TRANSIENT = 100  # buffers of a module
_MAX_VISITED = 20_000  # objects
_MAX_ENTRIES = 20_000  # of a dictionary; ViT-H has 594
_MAX_ITEMS = 1000  # of a list: no state dict is expected beyond them
_MAX_STATES = 10  # of an object, which has one or two
_CLASSES_SHOWN = 3  # of the contents of a skipped container
_SKIPPED_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Located:
    """A state dict within a saved object."""

    tensors: dict[str, Reference]
    others: dict[str, Any]  # its values that are no tensors
    place: str  # "model", "trainer.model (the parameters of a my.Sam)"; "" if it is the whole object
    skipped: tuple[str, ...]  # everything beside it, as "name (class)"
    rivals: tuple[str, ...]  # places of other state dicts that it might have been


@dataclasses.dataclass(frozen=True)
class _Candidate:
    tensors: dict[str, Reference]
    others: dict[str, Any]
    path: tuple[str, ...]
    parents: tuple[Any, ...]  # the objects on the way, the outermost first
    module: str = ""  # the class of the `torch.nn.Module` whose parameters these are

    @property
    def place(self) -> str:
        place = ".".join(shortened(name) for name in self.path)
        if not self.module:
            return place
        parameters = f"the parameters of a {shortened(self.module)}"
        return f"{place} ({parameters})" if place else parameters

    def rank(self) -> tuple[bool, int, int]:
        """Orders equally good candidates, the likeliest first; averages of the weights come last."""
        average = any(_AVERAGES.search(name) for name in self.path)
        named = [WRAPPERS.index(name) for name in self.path[-1:] if name in WRAPPERS]
        return average, named[0] if named else len(WRAPPERS), len(self.path)


def locate(content: Any) -> Located | None:
    """Returns the state dict in a saved object, None if there is none.

    It is the dictionary with the most names of a SAM or, if none has any, with the most tensors.

    Args:
        content: `pickle_reader.Pickle.value`; containers in it may be shared, or contain themselves.
    """
    candidates = _candidates(content)
    scores = [sum(bool(_SAM.search(name)) for name in each.tensors) for each in candidates]
    if not any(scores):
        scores = [_majority(each) for each in candidates]
    if not any(scores):
        return None
    best = [each for each, score in zip(candidates, scores, strict=True) if score >= 0.9 * max(scores)]
    found, *rivals = sorted(best, key=_Candidate.rank)
    return Located(
        found.tensors,
        found.others,
        found.place,
        tuple(_beside(found)),
        tuple(sorted(each.place or "the whole file" for each in rivals if each.tensors != found.tensors)),
    )


def describe_kind(value: Any) -> str:
    """Names the class of a value in a file, with the classes in it if it is a container."""
    if isinstance(value, Opaque | Global):
        return shortened(value.name)
    if isinstance(value, TensorReference):
        return "tensor"
    if isinstance(value, StorageReference):
        return shortened(value.kind)
    if isinstance(value, Extent):
        return "str" if value.is_text else "bytes"
    within = _classes_within(value) if isinstance(value, dict | list | tuple) else []
    kind = type(value).__name__
    return f"{kind} of {', '.join(within)}" if within else kind


def list_entries(value: Any) -> list[tuple[str, str]]:
    """Lists the first ten entries of a container or an object as (name, class)."""
    return [(name, describe_kind(item)) for name, item in _entries(value)[:10]]


def _majority(candidate: _Candidate) -> int:
    """Counts the tensors of a candidate that mostly consists of them; a few numbers (an epoch) do no harm."""
    if any(name.startswith("optim") for name in candidate.path):
        return 0
    return len(candidate.tensors) if len(candidate.tensors) > len(candidate.others) else 0


def _candidates(content: Any) -> list[_Candidate]:
    found = []
    budget = itertools.repeat(None, _MAX_MODULES)
    queue: collections.deque[tuple[Any, tuple[str, ...], tuple[Any, ...]]] = collections.deque([(content, (), ())])
    visited: set[int] = set()  # by identity: objects may be shared, or contain themselves
    while queue and len(visited) < _MAX_VISITED:
        value, path, parents = queue.popleft()
        if id(value) in visited:
            continue
        visited.add(id(value))
        candidate = _candidate(value, path, parents, budget)
        if candidate and candidate.tensors:
            found.append(candidate)
        if not _module_attributes(value) and len(path) < _MAX_DEPTH and len(queue) < _MAX_VISITED:
            queue.extend((inner, (*path, name), (*parents, value)) for name, inner in _children(value))
    return found


def _candidate(
    value: Any, path: tuple[str, ...], parents: tuple[Any, ...], budget: Iterator[None]
) -> _Candidate | None:
    if _module_attributes(value):
        return _Candidate(*_flatten(value, budget), path, parents, value.name)
    tensors: dict[str, Reference] = {}
    others: dict[str, Any] = {}
    entries = value.items if isinstance(value, Opaque) else value
    if not isinstance(entries, dict):
        return None
    if all(part in entries for part in PARTS):  # each part saved as a state dict of its own
        for part in PARTS:
            inner = _candidate(entries[part], (), (), budget)
            if inner:
                tensors |= {f"{part}.{name}": tensor for name, tensor in inner.tensors.items()}
                others |= {f"{part}.{name}": kind for name, kind in inner.others.items()}
        return _Candidate(tensors, others, path, (*parents, value))
    for name, item in itertools.islice(entries.items(), _MAX_ENTRIES):
        if isinstance(name, str):
            _add(name, item, tensors, others)
    return _Candidate(tensors, others, path, parents)


def _add(name: str, item: Any, tensors: dict[str, Reference], others: dict[str, Any]) -> None:
    tensor = item if isinstance(item, TensorReference) else as_array(item)
    if tensor is None:
        others[name] = item
    else:
        tensors[name] = tensor


def _module_attributes(value: Any) -> dict[str, Any] | None:
    """Returns the attributes of a `torch.nn.Module` that was pickled whole, None for anything else."""
    if isinstance(value, Opaque):
        for state in value.states:
            if isinstance(state, dict) and isinstance(state.get("_modules"), dict) and "_parameters" in state:
                return state
    return None


def _flatten(module: Any, budget: Iterator[None]) -> tuple[dict[str, Reference], dict[str, Any]]:
    """Collects the tensors that the module's `state_dict()` would give, and other values in the place of parameters."""
    tensors: dict[str, Reference] = {}
    others: dict[str, Any] = {}
    stack = [(module, "")]
    while stack:
        module, prefix = stack.pop()
        attributes = _module_attributes(module)
        if attributes is None:
            others[prefix.removesuffix(".")] = module
            continue
        transient = _elements(attributes.get("_non_persistent_buffers_set"))
        for group in ("_parameters", "_buffers"):
            items = attributes.get(group)
            for (name, item), _ in zip(items.items() if isinstance(items, dict) else (), budget, strict=False):
                # Meta's constants are no part of its state dict; here they tell whether the model has others.
                left_out = group == "_buffers" and name in transient and name not in ("pixel_mean", "pixel_std")
                if isinstance(name, str) and item is not None and not left_out:
                    _add(prefix + name, item, tensors, others)
        children = [
            (child, f"{prefix}{name}.")
            for (name, child), _ in zip(attributes["_modules"].items(), budget, strict=False)
            if isinstance(name, str) and child is not None and len(prefix) < _LONGEST_PREFIX
        ]
        stack += reversed(children)
    return tensors, others


def _elements(value: Any) -> list[Any]:
    """Returns the first elements of a set."""
    if not isinstance(value, Opaque):
        return []
    listed = value.arguments[0] if value.arguments and isinstance(value.arguments[0], list) else []
    return [*listed[:_MAX_TRANSIENT], *(value.elements or [])[:_MAX_TRANSIENT]]


def _children(value: Any, limit: int = _MAX_ENTRIES) -> list[tuple[str, Any]]:
    """Lists the containers and objects within one, with their names."""
    return [(name, item) for name, item in _entries(value, limit) if isinstance(item, dict | list | tuple | Opaque)]


def _entries(value: Any, limit: int = _MAX_ENTRIES) -> list[tuple[str, Any]]:
    """Lists the contents of a container or an object with their names; of a long one, the beginning."""
    if isinstance(value, dict):
        named = itertools.islice(value.items(), limit)
        return [(key if isinstance(key, str) else key.name, item) for key, item in named]
    if isinstance(value, list | tuple):
        return [(f"[{i}]", item) for i, item in enumerate(itertools.islice(value, min(limit, _MAX_ITEMS)))]
    if not isinstance(value, Opaque) or as_array(value):
        return []
    within = (value.items, value.elements, *value.states[:_MAX_STATES], value.arguments)
    return [entry for part in within if not isinstance(part, Opaque) for entry in _entries(part, limit)]


def _beside(found: _Candidate) -> list[str]:
    """Names everything in the containers on the way to the state dict that is not on the way itself."""
    skipped: list[tuple[str, Any]] = []
    for depth, parent in enumerate(found.parents):
        prefix = "".join(f"{name}." for name in found.path[:depth])
        on_the_way = found.path[depth : depth + 1] or PARTS
        skipped += [(prefix + name, item) for name, item in _entries(parent) if name not in on_the_way]
    skipped += found.others.items()
    more = [f"and {len(skipped) - _SKIPPED_SHOWN} more"] if len(skipped) > _SKIPPED_SHOWN else []
    return [f"{shortened(name)} ({describe_kind(item)})" for name, item in skipped[:_SKIPPED_SHOWN]] + more


def _classes_within(value: Any) -> list[str]:
    """Names the first few classes of objects in a container, at any depth."""
    names: dict[str, None] = {}
    queue = collections.deque([value])
    visited: set[int] = set()
    while queue and len(visited) < 1000 and len(names) < _CLASSES_SHOWN:
        inner = queue.popleft()
        if id(inner) in visited:
            continue
        visited.add(id(inner))
        if isinstance(inner, Opaque):
            names[shortened(inner.name)] = None
        else:
            queue.extend(item for _, item in _children(inner, limit=100))
    return list(names)
