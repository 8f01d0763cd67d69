"""The routes by which photos are shown and segmented; `samjax.app.http` says what all of them share."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from samjax.app.encoding import Encoding
from samjax.app.http import HttpError, client_of, error_response, read_json
from samjax.app.library import KnownPhoto, Library, PhotoEntry, UnreadablePhoto, safe_name
from samjax.app.predicting import Predicting
from samjax.app.queue import DeviceQueue, Job
from samjax.app.searching import Search, Searching
from samjax.app.service import Service
from samjax.app.steps import BadRequest
from samjax.app.tiles import SIDE, Tiles, level_count
from samjax.app.waiting import result_of
from samjax.names import portable
from samjax.workfile import BadWorkFile

PAGE = Path(__file__).parent / "page"
UPLOAD_BYTES = 200_000_000
_TELL = 0.2  # seconds between lines of progress


@runtime_checkable
class KeptWork(Protocol):
    """The work that is kept, as the routes of photos ask for it, and its own routes."""

    @property
    def routes(self) -> list[Route]: ...

    def session(self) -> dict[str, Any]:
        """Fields of the session: classes, classes_revision, export, import."""
        ...

    def summary(self, entry: PhotoEntry) -> dict[str, Any]:
        """{objects: how many, done: bool} of a photo that may not have been read."""
        ...

    def photo_work(self, photo: str) -> dict[str, Any]:
        """The WORK of the photo with this id."""
        ...

    def resolved(self, photo: str, steps: Any) -> Any:
        """The JSON of steps with the masks of objects in the place of {"object": ID}. Raises BadRequest."""
        ...


class NothingKept:
    """Nothing is kept: photos can be looked at and segmented."""

    routes: list[Route] = []  # noqa: RUF012

    def session(self) -> dict[str, Any]:
        return {"classes": [], "classes_revision": 0, "export": [], "import": []}

    def summary(self, entry: PhotoEntry) -> dict[str, Any]:
        return {"objects": 0, "done": False}

    def photo_work(self, photo: str) -> dict[str, Any]:
        return {"revision": 0, "done": False, "objects": []}

    def resolved(self, photo: str, steps: Any) -> Any:
        return steps


@dataclasses.dataclass(frozen=True)
class Context:
    """The parts that routes put together."""

    library: Library
    service: Service
    queue: DeviceQueue
    tiles: Tiles
    encoding: Encoding
    objects: KeptWork
    version: str


def page_routes() -> list[Route]:
    """The page and its files."""

    async def page(request: Request) -> Response:
        name = request.path_params.get("file", "index.html")
        # Looked up among the names that there are: none from a request becomes a path.
        files = {path.name: path for path in PAGE.iterdir() if path.is_file()} if PAGE.is_dir() else {}
        if name not in files:
            raise HttpError(404, f"there is no file {name[:60]!r} of the page")
        return FileResponse(files[name], headers={"cache-control": "no-cache"})

    return [Route("/", page), Route("/page/{file}", page)]


def photo_routes(context: Context) -> list[Route]:
    """Session, list of photos, tiles, uploads."""
    library, service, objects = context.library, context.service, context.objects

    async def session(request: Request) -> Response:
        kept = await run_in_threadpool(objects.session)
        return JSONResponse(
            {
                "model": dataclasses.asdict(service.model),
                "version": context.version,
                "folder": portable(library.name),
                **kept,
                "limits": {"upload_bytes": UPLOAD_BYTES, "pixels": library.most_pixels},
                "tile": SIDE,
                "uploads": True,
            }
        )

    def listed() -> list[dict[str, Any]]:
        return [described(entry) for entry in library.photos()]

    def described(entry: PhotoEntry) -> dict[str, Any]:
        found = library.known(entry.id)
        facts = found if isinstance(found, KnownPhoto) else None
        return {
            "id": entry.id,
            "name": portable(entry.name),
            "width": facts.size[1] if facts else None,
            "height": facts.size[0] if facts else None,
            "error": portable(str(found)) if isinstance(found, UnreadablePhoto) else None,
            "embedded": facts is not None and service.is_embedded(facts.hash),
            **objects.summary(entry),
        }

    async def photos(request: Request) -> Response:
        return JSONResponse({"photos": await run_in_threadpool(listed)})

    def work_of(id: str) -> dict[str, Any]:
        try:
            return objects.photo_work(id)
        except (BadRequest, UnreadablePhoto, BadWorkFile):
            raise
        except ValueError as error:  # of annotations that cannot be used
            raise HttpError(422, str(error)) from error

    def opened(id: str) -> dict[str, Any]:
        facts = library.facts(id)
        return {
            "id": id,
            "name": portable(facts.name),
            "width": facts.size[1],
            "height": facts.size[0],
            "levels": level_count(facts.size),
            "hash": facts.hash,
            "work": work_of(id),
        }

    async def photo(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(opened, request.path_params["id"]))

    async def tile(request: Request) -> Response:
        given = request.path_params
        try:
            data, hash = await run_in_threadpool(
                context.tiles.tile, given["id"], given["level"], given["column"], given["row"]
            )
        except IndexError as error:
            raise HttpError(404, f"there is no such tile: {error}") from None
        return _picture(request, data, hash)

    async def thumbnail(request: Request) -> Response:
        return _picture(request, *await run_in_threadpool(context.tiles.thumbnail, request.path_params["id"]))

    async def upload(request: Request) -> Response:
        entry = await _uploaded(request, library, request.query_params.get("name", ""))
        await run_in_threadpool(library.facts, entry.id)
        return JSONResponse({"photo": await run_in_threadpool(described, entry)}, 201)

    return [
        Route("/api/session", session),
        Route("/api/photos", photos),
        Route("/api/photos/{id}", photo),
        Route("/api/photos/{id}/tiles/{level:int}/{column:int}/{row:int}.jpg", tile),
        Route("/api/photos/{id}/thumbnail.jpg", thumbnail),
        Route("/api/upload", upload, methods=["POST"]),
    ]


async def _uploaded(request: Request, library: Library, name: str) -> PhotoEntry:
    safe_name(name)  # before anything is written
    receiving = await run_in_threadpool(library.receive)
    try:
        async for chunk in request.stream():
            await run_in_threadpool(receiving.write, chunk)
        return await run_in_threadpool(library.add, name, receiving)
    finally:
        await asyncio.shield(run_in_threadpool(receiving.discard))


def _picture(request: Request, data: bytes, hash: str) -> Response:
    """A JPEG picture, which never changes under an address that names the photo's hash."""
    tag = f'"{hash[:32]}"'
    fixed = request.query_params.get("v", "")
    lasting = bool(fixed) and hash.startswith(fixed)
    headers = {
        "cache-control": "private, max-age=31536000, immutable" if lasting else "private, no-cache",
        "etag": tag,
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/jpeg", headers=headers)


def segment_routes(context: Context) -> list[Route]:
    """Embeddings, answers to prompts, everything in a photo."""
    library = context.library
    searching = Searching(library, context.service, context.queue)
    predicting = Predicting(library, context.service, context.queue, context.objects.resolved)

    async def embed(request: Request) -> Response:
        given = await read_json(request)
        facts = await run_in_threadpool(library.facts, _text(given, "photo"))
        state = context.encoding.start(client_of(request), facts)
        return JSONResponse(state, 200 if state["state"] == "ready" else 202)

    async def embedding(request: Request) -> Response:
        facts = await run_in_threadpool(library.facts, request.path_params["id"])
        return JSONResponse(context.encoding.state(facts))

    async def predict(request: Request) -> Response:
        asked = await run_in_threadpool(predicting.checked, await read_json(request))
        job = predicting.submit(client_of(request), asked)
        result = await result_of(job, request.is_disconnected)
        return await run_in_threadpool(lambda: JSONResponse(predicting.answer(asked, result, job)))

    async def everything(request: Request) -> Response:
        search = await run_in_threadpool(searching.checked, await read_json(request))
        report = Progress()
        job = searching.submit(client_of(request), search, report)
        if "application/x-ndjson" in request.headers.get("accept", ""):
            return StreamingResponse(_lines(searching, search, job, report), media_type="application/x-ndjson")
        found = await result_of(job, request.is_disconnected)

        def described() -> Response:
            masks = [searching.json(search, number, *mask) for number, mask in enumerate(found)]
            return JSONResponse({"masks": masks, "config": search.config_json})

        return await run_in_threadpool(described)

    return [
        Route("/segment/everything", everything, methods=["POST"]),
        Route("/segment/embed", embed, methods=["POST"]),
        Route("/segment/embed/{id}", embedding),
        Route("/segment/predict", predict, methods=["POST"]),
    ]


class Progress:
    """The share of a search that is done, told by one thread and read by another."""

    def __init__(self) -> None:
        self.share = 0.0

    def __call__(self, share: float) -> None:
        self.share = share


async def _lines(searching: Searching, search: Search, job: Job, progress: Progress) -> AsyncIterator[bytes]:
    """A search as lines of JSON: settings, progress, each mask, the end or an error. Given up if it is not read on."""
    waiting = asyncio.wrap_future(job.future)
    try:
        yield _line({"config": search.config_json})
        told = -1.0
        while not waiting.done():
            if progress.share != told:
                told = progress.share
                yield _line({"progress": round(told, 4)})
            await asyncio.wait({waiting}, timeout=_TELL)
        found = waiting.result()
        for number, (mask, stability) in enumerate(found):
            yield _line({"mask": await run_in_threadpool(searching.json, search, number, mask, stability)})
        yield _line({"done": True, "count": len(found), "config": search.config_json})
    except Exception as error:
        yield bytes(error_response(error).body) + b"\n"
    finally:
        waiting.cancel()
        job.cancel()


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise HttpError(400, f"{name} is a text, got a {type(value).__name__}")
    return value
