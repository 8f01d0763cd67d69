"""Requests and answers: bodies that are bounded while they arrive, errors as JSON, and who may ask at all.

Knows nothing of photos and models.
"""

import contextvars
import errno
import hmac
import ipaddress
import json
import logging
import secrets
from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from samjax.app.library import PhotoChanged, UnknownPhoto, UnreadablePhoto
from samjax.app.queue import Busy, GivenUp, Superseded
from samjax.app.steps import BadRequest
from samjax.workfile import BadWorkFile

MOST_JSON = 16_000_000  # bytes of a body
_MOST_OF_GET = 10_000  # bytes of a body that nobody reads
_MOST_DEPTH, _MOST_DIGITS = 32, 40  # of JSON and its whole numbers
MOST_REQUESTS = 256  # at a time
LEAST_TOKEN = 16  # characters
_LOCAL = ("localhost", "127.0.0.1", "::1")
_TOKEN_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

_LAST = {"connection": "close"}  # who may not ask keeps no connection either

_log = logging.getLogger(__name__)


class HttpError(Exception):
    """An answer with an error status; `more` stands beside the message in its JSON."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status, self.headers, self.more = status, headers, more


def error_response(error: BaseException) -> JSONResponse:
    """The answer that tells of an error; one that nobody expected is logged, and not told."""
    match error:
        case HttpError():
            return _error(error.status, str(error), error.headers, **error.more)
        case Busy():
            return _error(503, str(error), {"retry-after": str(error.retry_after)})
        case Superseded():
            return _error(409, str(error), superseded=True)
        case PhotoChanged():
            return _error(409, str(error))
        case UnknownPhoto():
            return _error(404, error.args[0])
        case UnreadablePhoto() | BadWorkFile():
            return _error(422, str(error))
        case HTTPException():
            return _error(error.status_code, str(error.detail), error.headers)
        case GivenUp():
            return _error(499, str(error))  # nginx's number for it; nobody reads this
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _log.error("the disk is full: %s", error)
            return _error(507, "the disk is full, and nothing was changed: make room and try again")
        case BadRequest():
            return _error(400, str(error))
        case ValueError():  # of the library, whose messages are made for people
            _log.error("an unexpected error", exc_info=error)
            return _error(500, str(error))
    _log.error("an unexpected error", exc_info=error)
    return _error(500, f"an unexpected {type(error).__name__} in the server; its log has more")


def _error(status: int, message: str, headers: Mapping[str, str] | None = None, **more: Any) -> JSONResponse:
    shown = message.encode(errors="replace").decode()  # half a character cannot be sent
    return JSONResponse({"error": shown, **more}, status, headers)


async def read_json(request: Request) -> dict[str, Any]:
    """A body that is a JSON object of numbers and texts that can be answered with. Raises HttpError 400 for another."""
    return await run_in_threadpool(_json_of, await request.body())


def _json_of(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body, parse_constant=_no_constant, parse_int=_whole)
        _check_depth_and_texts(given)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body is no JSON ({type(error).__name__}: {str(error)[:100]})") from None
    if not isinstance(given, dict):
        raise HttpError(400, "the body is a JSON object, got something else")
    return given


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a whole number has at most {_MOST_DIGITS} digits here")
    return int(digits)


def _check_depth_and_texts(given: Any) -> None:
    """Raises ValueError for what errors could not show: nesting without an end, and halves of characters."""
    level = [given] if isinstance(given, str | list | dict) else []
    for _ in range(_MOST_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                if not value.isascii():
                    value.encode()
            else:
                inner = [*value, *value.values()] if isinstance(value, dict) else value
                below += [part for part in inner if isinstance(part, str | list | dict)]
        if not below:
            return
        level = below
    raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")


def bounded(receive: Receive, headers: Headers, most: int) -> Receive:
    """The body as it arrives. Raises HttpError 413 as soon as there are more than `most` bytes, or there will be."""
    refusal = HttpError(413, f"the body has more than {most:,} bytes, which are taken at most", {"connection": "close"})
    stated = headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and (len(stated) > 15 or int(stated) > most):
        raise refusal
    total = 0

    async def receive_bounded() -> Message:
        nonlocal total
        message = await receive()
        if message["type"] == "http.request":
            total += len(message.get("body", b""))
            if total > most:
                raise refusal
        return message

    return receive_bounded


def check_type(headers: Headers, wanted: str) -> None:
    """Raises HttpError 415 for another Content-Type: pages elsewhere cannot send these without being asked first."""
    given = headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != wanted:
        raise HttpError(415, f"Content-Type is {wanted} here, got {given[:60]!r}")


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def is_loopback(host: str) -> bool:
    """True for names and addresses that this machine alone can reach."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(host: str, token: str | None) -> None:
    """Raises ValueError for a host beyond this machine without a token, and for a token that is weak or that no
    address can hold."""
    if token is None:
        if not is_loopback(host):
            raise ValueError(
                f"--host {host} lets in other machines, and whoever reaches the port could see and change everything: "
                f"give a token too, this new one for example: --token {secrets.token_urlsafe(24)}"
            )
        return
    if len(token) < LEAST_TOKEN or not set(token) <= _TOKEN_CHARACTERS:
        raise ValueError(
            f"--token is {LEAST_TOKEN} or more letters, digits, - . _ ~ that nobody can guess, for example "
            f"{secrets.token_urlsafe(24)}"
        )


class Guard:
    """Lets in who may ask, and makes an answer of every error. The outermost layer.

    Args:
        app: the routes.
        host: the address that is listened at.
        port: its port, which tells cookies of several servers apart.
        token: what must come with every request, if there is one.
        files: paths that take files, with the most bytes of each; all others take JSON.
        most: requests that are answered at a time; others get 503.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        token: str | None,
        files: Mapping[str, int] | None = None,
        most: int = MOST_REQUESTS,
    ) -> None:
        self._app, self._token, self._files = app, token, files or {}
        self._most, self._answering = most, 0
        self._cookie = f"samjax-{port}"
        # With a token, which no other page has, the name under which this machine is reached need not be known.
        self._hosts = None if token is not None and not is_loopback(host) else {*_LOCAL, host.strip("[]")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        self._answering += 1
        try:
            response = self._redirect_of_allowed(scope)
            if self._answering > self._most:
                raise HttpError(503, f"busy: {self._most} requests are being answered", {"retry-after": "1"})
            await (response or self._app)(scope, self._checked_body(scope, receive), send_guarded)
        except ClientDisconnect:
            pass
        except Exception as error:
            if started:  # the client sees that the answer breaks off
                raise
            await error_response(error)(scope, receive, send_guarded)
        finally:
            self._answering -= 1

    def _checked_body(self, scope: Scope, receive: Receive) -> Receive:
        """The body, of the right type and bounded. Raises HttpError."""
        headers, most = Headers(scope=scope), self._files.get(scope["path"])
        if scope["method"] in ("GET", "HEAD"):
            return bounded(receive, headers, _MOST_OF_GET)
        check_type(headers, "application/json" if most is None else "application/octet-stream")
        return bounded(receive, headers, MOST_JSON if most is None else most)

    def _redirect_of_allowed(self, scope: Scope) -> Response | None:
        """An answer in place of the routes' where an address has the token. Raises HttpError for who may not ask."""
        headers = Headers(scope=scope)
        self._check_host(headers)
        self._check_origin(scope, headers)
        if self._token is None:
            return None
        request = Request(scope)
        if scope["path"] == "/" and scope["method"] == "GET" and (given := request.query_params.get("token")):
            if not self._is_token(given):
                raise HttpError(401, "the token in the address is not this server's", _LAST)
            response = RedirectResponse("/", 303)
            response.set_cookie(self._cookie, given, max_age=30 * 86_400, httponly=True, samesite="strict", path="/")
            return response
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if self._is_token(credentials.strip()):
                return None
        elif self._is_token(self._of_cookie(headers)):
            return None
        raise HttpError(
            401,
            "this server asks for its token: open the address that it printed, which ends with ?token=, or send "
            "Authorization: Bearer TOKEN",
            {"www-authenticate": "Bearer", **_LAST},
        )

    def _is_token(self, given: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token.encode())

    def _of_cookie(self, headers: Headers) -> str:
        """The token in the cookies, among which there may be any of other programs on this machine: SimpleCookie would
        drop all for the sake of one that it does not know how to read."""
        for cookie in "; ".join(headers.getlist("cookie")).split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == self._cookie:
                return value.strip('"')
        return ""

    def _check_host(self, headers: Headers) -> None:
        """A page elsewhere whose name is made to point here (DNS rebinding) names itself in Host."""
        given = headers.getlist("host")
        if len(given) != 1:
            raise HttpError(400, "a request has one Host")
        if self._hosts is not None and host_name(given[0]) not in self._hosts:
            raise HttpError(403, f"this server is not called {given[0][:100]!r}; open it as localhost")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        for origin in headers.getlist("origin"):
            scheme, _, place = origin.partition("://")
            if scheme not in ("http", "https") or place.lower() != headers["host"].lower():
                raise HttpError(403, f"pages of {origin[:100]!r} may not use this server")
        is_visit = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_visit:
            raise HttpError(403, "other pages may not use this server")


def host_name(host: str) -> str:
    """The name in a Host header, without its port and an IPv6 address's brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


_client: contextvars.ContextVar[str] = contextvars.ContextVar("client", default="")


def client_of(request: Request) -> str:
    """A name for who asks: a tab's random one or, without it, the address that the request comes from."""
    name = request.headers.get("x-samjax-client", "")
    return f"page {name[:64]}" if name else f"address {request.client.host if request.client else ''}"


def current_client() -> str:
    """`client_of` the request that is being answered, on any thread that was started for it."""
    return _client.get()


def answering(route: Route) -> Route:
    """The route, with errors of its endpoint answered."""
    endpoint = route.endpoint

    async def answer(request: Request) -> Response:
        _client.set(client_of(request))
        try:
            return await endpoint(request)
        except ClientDisconnect:
            raise
        except Exception as error:
            return error_response(error)

    return Route(route.path, answer, methods=sorted(route.methods or ()), name=route.name)
