"""Files and folders that appear complete or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary sibling name to write a file or a folder under, which becomes `path` if the block succeeds.

    Raises FileExistsError where `path` exists and `overwrite` is not asked for.
    """
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already; choose another name, remove it, or ask to overwrite it")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield scratch / path.name
        if path.is_dir():  # a folder can be renamed onto an empty one only
            path.replace(scratch / "replaced")
            try:
                (scratch / path.name).replace(path)
            except OSError:
                (scratch / "replaced").replace(path)
                raise
        else:
            (scratch / path.name).replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
