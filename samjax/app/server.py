"""The server: routes put together, and the process that answers them."""

import importlib.metadata
import logging
import os
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from samjax.app.connections import Ending, EndingServer, PromptConnection
from samjax.app.encoding import Encoding
from samjax.app.http import Guard, answering, error_response
from samjax.app.library import Library
from samjax.app.queue import DeviceQueue
from samjax.app.routes import UPLOAD_BYTES, Context, KeptWork, NothingKept, page_routes, photo_routes, segment_routes
from samjax.app.service import Service
from samjax.app.tiles import Tiles

_KEEP_ALIVE = 75  # seconds that a connection may be idle
_CLOSING = 5  # seconds that requests have to end after Ctrl-C

_log = logging.getLogger(__name__)


def build(
    library: Library,
    service: Service,
    queue: DeviceQueue,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str | None = None,
    objects: KeptWork | None = None,
) -> ASGIApp:
    """The application, guarded (`samjax.app.http.Guard`), with the routes of `objects` if anything is kept."""
    objects = objects or NothingKept()
    encoding = Encoding(library, service, queue)
    context = Context(library, service, queue, Tiles(library), encoding, objects, importlib.metadata.version("samjax"))
    routes = [*page_routes(), *photo_routes(context), *segment_routes(context), *objects.routes]
    handlers = {HTTPException: _answer_error}
    app = Starlette(routes=[answering(route) for route in routes], exception_handlers=handlers)
    files = {"/api/upload": UPLOAD_BYTES}
    return Guard(app, host=host, port=port, token=token, files=files)


async def _answer_error(request: Request, error: Exception) -> Response:
    return error_response(error)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ValueError if the port is taken or the address is not this machine's."""
    if not 0 <= port <= 65_535:
        raise ValueError(f"--port is a number from 0 to 65535, got {port}")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ValueError(f"--host {host} is no address ({error.strerror or error})") from None
    listener = socket.socket(family, kind)
    try:
        if os.name != "nt":  # where two programs could then listen at one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ValueError(
            f"cannot listen at {host}, port {port} ({error.strerror}): another program may use the port, another "
            f"samjax app for example; choose one with --port, 0 takes any that is free"
        ) from None
    return listener


def serve(app: ASGIApp, listener: socket.socket, before_end: Callable[[], object] = lambda: None) -> None:
    """Answers requests until the process is interrupted; then `before_end` is called, and what is being answered has a
    few seconds."""
    ending = Ending(app)
    config = uvicorn.Config(
        ending,
        http=PromptConnection,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_CLOSING,
        timeout_keep_alive=_KEEP_ALIVE,
        lifespan="off",
        h11_max_incomplete_event_size=64 * 1024,
    )
    EndingServer(config, ending, before_end).run(sockets=[listener])


def warm(service: Service, queue: DeviceQueue) -> None:
    """Compiles the programs of clicks when the device has nothing else to do, so that the first is no slower."""
    for work in service.warming():
        queue.submit("", lambda _, work=work: work(), kind="background")
