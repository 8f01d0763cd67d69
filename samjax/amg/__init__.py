"""Segment everything: masks of all objects in a photo."""

import importlib
import warnings
from typing import Any


def moved_generator(module: str, name: str) -> Any:
    """`SamAutomaticMaskGenerator`, asked for as an attribute of a module that had it in 0.1, with a warning.

    Raises AttributeError for any other name.
    """
    if name != "SamAutomaticMaskGenerator":
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    new = "samjax.drop_in.generator"
    warnings.warn(f"{module}.{name} is now {new}.{name}; the old name goes with the next release", FutureWarning, 3)
    return getattr(importlib.import_module(new), name)


def __getattr__(name: str) -> Any:
    return moved_generator(__name__, name)
