"""Modules under the names that they had in 0.1: importing one warns and gives the module of today's name."""

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# What was below an old name is below the new one.
RENAMED = {
    "samjax.cli_everything": "samjax.cli.everything",
    "samjax.cli_options": "samjax.cli.options",
    "samjax.data": "samjax.readers",
    "samjax.evaluation.boxes": "samjax.evaluation.protocols.boxes",
    "samjax.evaluation.clicks": "samjax.evaluation.user.clicks",
    "samjax.evaluation.detection": "samjax.evaluation.protocols.detection",
    "samjax.evaluation.edge_maps": "samjax.evaluation.protocols.edge_maps",
    "samjax.evaluation.edge_scores": "samjax.evaluation.metrics.edge_scores",
    "samjax.evaluation.edges": "samjax.evaluation.protocols.edges",
    "samjax.evaluation.grid": "samjax.evaluation.user.grid",
    "samjax.evaluation.interaction": "samjax.evaluation.user.interaction",
    "samjax.evaluation.interactive": "samjax.evaluation.protocols.interactive",
    "samjax.evaluation.object_records": "samjax.evaluation.metrics.object_records",
    "samjax.evaluation.overlap": "samjax.evaluation.metrics.overlap",
    "samjax.evaluation.points": "samjax.evaluation.protocols.points",
    "samjax.evaluation.proposals": "samjax.evaluation.protocols.proposals",
    "samjax.evaluation.saliency": "samjax.evaluation.protocols.saliency",
    "samjax.evaluation.semantic": "samjax.evaluation.protocols.semantic",
    "samjax.evaluation.targets": "samjax.evaluation.judged_objects",
    "samjax.formats": "samjax.writers",
    "samjax.nn.image_encoder": "samjax.nn.encoders.vit",
    "samjax.predictor": "samjax.drop_in.predictor",
    "samjax.train.clicks": "samjax.train.tasks.interactive.cell_clicks",
    "samjax.train.interaction": "samjax.train.tasks.interactive.user",
    "samjax.train.losses": "samjax.train.tasks.interactive.losses",
    "samjax.train.passes": "samjax.train.tasks.interactive.passes",
    "samjax.train.pictures": "samjax.train.tasks.interactive.pictures",
    "samjax.train.validation": "samjax.train.tasks.interactive.validation",
}


def new_name(name: str) -> str | None:
    """Today's name of a module; None if it has not changed."""
    for old, new in RENAMED.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return None


class _Alias(Loader):
    """Gives a module that is loaded under another name, unchanged."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # which the import system has just replaced


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not fullname.startswith("samjax.") or (new := new_name(fullname)) is None:
            return None
        warnings.warn(f"{fullname} is now {new}; the old name goes with the next release", FutureWarning, 2)
        return ModuleSpec(fullname, _Alias(new))


def install() -> None:
    """Makes the old names importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # First, because folders that an old name's module points to would be searched for its submodules.
        sys.meta_path.insert(0, _Finder())
