"""The command `samjax app`."""

import contextlib
import dataclasses
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from samjax import hub
from samjax.app.embeddings import BoundedStore
from samjax.app.http import check_exposure, current_client
from samjax.app.imports import Annotations, Importer
from samjax.app.library import Library, names_format
from samjax.app.masks import ExactMasks
from samjax.app.objects import Objects
from samjax.app.queue import DeviceQueue
from samjax.app.server import build, listening, serve, warm
from samjax.app.service import Service
from samjax.app.work import WorkFolder
from samjax.atomic import check_writable
from samjax.download import cache_dir
from samjax.everything.photos import WORK
from samjax.lock import working_in
from samjax.names import printable


def run(
    source: str | None,
    *,
    annotations: Sequence[str] = (),
    out: Path | None,
    checkpoint: str,
    tuned: Path | None,
    dtype: str,
    image_size: tuple[int, int] | None,
    host: str,
    port: int,
    token: str | None,
) -> int:
    """Serves the page until it is interrupted. Raises ValueError and OSError for what cannot be done."""
    check_exposure(host, token)
    folder = out or default_out(source)
    library = Library(source, folder)
    beside = Annotations(annotations, _say) if annotations else None
    listed = () if library.records is None else library.records.classes
    imported = Importer(library, beside, listed) if beside is not None or library.records is not None else None
    check_writable(folder, "--out")
    with contextlib.ExitStack() as stack:
        stack.enter_context(working_in(folder, say=_say))
        library.sweep()
        listener = stack.enter_context(listening(host, port))
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the library has a limit of its own
        sam = hub.load(checkpoint, image_size=image_size, tuned=tuned).with_dtype(dtype)  # type: ignore
        sam.check_reads_files()
        service = Service(sam, checkpoint, BoundedStore(cache_dir() / "embeddings", sam))
        queue = DeviceQueue()
        stack.callback(queue.close)
        bound = listener.getsockname()[1]
        warm(service, queue)
        works = WorkFolder(folder, dataclasses.asdict(service.model), imported, _say)
        stack.callback(works.close)
        objects = Objects(works, library, ExactMasks(library, service, queue, current_client))
        app = build(library, service, queue, host=host, port=bound, token=token, objects=objects)
        _print_address(host, bound, token, folder)
        signal.signal(signal.SIGTERM, _ended)
        serve(app, listener, queue.stop)
    return 0


def _ended(number: int, _: object) -> None:
    """Ends the process as Ctrl-C does, so that the queue and the folder are left in order."""
    raise SystemExit(128 + number)


def default_out(source: str | None) -> Path:
    """The folder of results for what was named: in a folder, beside an image, else here."""
    if source is None or names_format(source):
        return Path(WORK)
    path = Path(source).expanduser()
    return (path if path.is_dir() else path.parent) / WORK


def _print_address(host: str, port: int, token: str | None, folder: Path) -> None:
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    query = "" if token is None else f"?token={token}"
    print(f"samjax app: http://{shown}:{port}/{query}", flush=True)
    print(printable(f"Objects are kept in {folder}. Ctrl-C ends the server."), flush=True)


def _say(message: str) -> None:
    print(f"samjax: {printable(message)}", file=sys.stderr)
