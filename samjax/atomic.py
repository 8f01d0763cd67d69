"""Files and folders that appear complete or not at all."""

import contextlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    foreign: Callable[[Path], Sequence[str]] = os.listdir,
) -> Iterator[Path]:
    """Gives a temporary sibling name to write a file or a folder under, which becomes `path` if the block succeeds.

    Args:
        path: the file or folder to make.
        overwrite: replace what stands at `path`.
        foreign: what in a folder at `path` is not the caller's to delete; such a folder is never replaced. By default
            it is everything, so a folder must be empty.

    Raises:
        FileExistsError: `path` exists and `overwrite` is not asked for, or it is a folder that holds foreign things.
    """
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists already; choose another name, remove it, or pass overwrite=True (--overwrite)"
        )
    _check_replaceable(path, foreign)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=scratch_prefix(path.name), suffix=".partial", dir=path.parent))
    try:
        yield scratch / path.name
        _check_replaceable(path, foreign)  # writing may have taken minutes
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


def scratch_prefix(name: str) -> str:
    """The prefix of the folders that `replacing` writes in: a long name is cut, its checksum tells it apart."""
    return f".{name}." if len(name) <= 40 else f".{name[:40]}-{zlib.crc32(os.fsencode(name)):08x}."


def _check_replaceable(path: Path, foreign: Callable[[Path], Sequence[str]]) -> None:
    if not path.is_dir() or not (names := sorted(foreign(path))):
        return
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    raise FileExistsError(
        f"{path} is a folder that holds other things than what is to replace it ({listed}); it is not replaced"
    )


def check_writable(folder: Path, option: str | None = None) -> None:
    """Makes a folder, before any work is done. Raises ValueError, naming the option that chose it, if nothing can be
    written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        named = "" if option is None else f"{option}: "
        raise ValueError(f"{named}cannot write into the folder {folder}: {error.strerror}") from error
