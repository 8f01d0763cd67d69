"""The routes of the work on a photo: its objects, whether it is done, and the classes.

Coordinates are (x, y) in pixels of the ORIGINAL photo. An answer to a change is given when the change is on disk.
"""

import functools
import os
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from samjax import writers
from samjax.app import exports
from samjax.app.classes import StaleClasses
from samjax.app.http import HttpError, error_response, read_json
from samjax.app.polygons import polygons
from samjax.app.protocols import Entry, Library, Masks, Photo
from samjax.app.steps import BadRequest, steps_from_json, steps_to_json
from samjax.app.waiting import IsGone
from samjax.app.work import (
    FULL,
    KEPT,
    NewObject,
    NotSaved,
    Original,
    StaleRevision,
    Work,
    WorkFolder,
    checked_fields,
    not_saved,
)
from samjax.errors import first_line
from samjax.names import portable
from samjax.ops.rle import inclusive_box, rle_area
from samjax.readers import sources
from samjax.workfile import BadWorkFile, WorkObject

MOST_CHANGES = 10_000  # of a request
_ID = re.compile("[a-z]{8,32}")  # of the sender's choice; the work's own have numbers
TOLERANCE = 0.5  # pixels by which a polygon may leave its mask


class Objects:
    """The work on a library's photos, and the routes to it.

    What is stored of an object is what its steps give: masks never come from a request.

    Args:
        works: where it is kept.
        library: the photos.
        masks: the model.
    """

    def __init__(self, works: WorkFolder, library: Library, masks: Masks) -> None:
        self.works, self._library, self._masks = works, library, masks
        self._exporting = threading.Lock()

    @property
    def routes(self) -> list[Route]:
        """For an application that knows the library's own errors and limits requests."""
        return [
            Route("/api/photos/{photo}", _answering(self._patch_photo), methods=["PATCH"]),
            Route("/api/photos/{photo}/objects", _answering(self._post), methods=["POST"]),
            Route("/api/photos/{photo}/objects", _answering(self._patch), methods=["PATCH"]),
            Route("/api/photos/{photo}/objects/{id}", _answering(self._get), methods=["GET"]),
            Route("/api/classes", _answering(self._put_classes), methods=["PUT"]),
            Route("/api/export", _answering(self._export), methods=["POST"]),
            Route("/api/export/{format}.zip", _answering(self._archive), methods=["GET"]),
        ]

    def session(self) -> dict[str, Any]:
        """The fields of a session that the work on photos has."""
        classes = self.works.classes
        return {
            "classes": classes.listed,
            "classes_revision": classes.revision,
            "export": list(writers.FORMATS),
            "import": list(sources.FORMATS),
        }

    def summary(self, entry: Entry) -> dict[str, Any]:
        """The number of objects of a photo that may not have been read, and whether it is done."""
        try:
            objects, done = self.works.counts(entry.name)
        except (BadWorkFile, OSError):  # which is told when the photo is opened
            objects, done = 0, False
        return {"objects": objects, "done": done}

    def photo_work(self, photo: str) -> dict[str, Any]:
        """The work on a photo as the page gets it; raises like `work`."""
        return work_json(self.work(photo))

    def work(self, photo: str) -> Work:
        """The work on a photo. Raises BadWorkFile, OSError, and the library's errors."""
        return self._work_on(self._library.facts(photo))

    def _work_on(self, facts: Photo) -> Work:
        id = facts.id
        original = Original(lambda: exports.record_file(self._library, id), lambda: self._library.read(id).rgb)
        of = None if facts.path is not None else original
        return self.works.open(id, facts.name, facts.hash, facts.size, facts.path, of)

    def resolved(self, photo: str, steps: Any) -> Any:
        """Steps as they were sent, with the mask of an object in the place of {"object": ID}.

        What is no list of steps is given back as it is. Raises BadRequest for an object that there is not.
        """
        if not isinstance(steps, list):
            return steps
        return [self._resolved_step(photo, step) for step in steps]

    def _resolved_step(self, photo: str, step: Any) -> Any:
        mask = step.get("mask") if isinstance(step, dict) else None
        if not isinstance(mask, dict) or "object" not in mask:
            return step
        if set(mask) != {"object"} or not isinstance(mask["object"], str):
            raise BadRequest('a mask that is an object is {"object": ID} and nothing else')
        found = self.work(photo).state.find(mask["object"])
        if found is None:
            raise BadRequest(f"there is no object {mask['object'][:40]!r}")
        return {**step, "mask": {"rle": found.rle}}

    async def _post(self, request: Request, given: dict[str, Any]) -> Any:
        sent = _some(given, "objects")

        def look_up() -> tuple[Photo, Work, int, list[WorkObject | None]]:
            photo = self._library.facts(request.path_params["photo"])
            work, revision = self._work_on(photo), _revision(given)
            stored = [self._stored(work, photo.id, entry) for entry in sent]
            if None in stored:
                work.check(revision)
            return photo, work, revision, stored

        photo, work, revision, stored = await run_in_threadpool(look_up)
        new = [
            await self._new(photo, entry, request.is_disconnected)
            for entry, kept in zip(sent, stored, strict=True)
            if kept is None
        ]

        def add() -> Any:
            again = [kept for kept in stored if kept is not None]
            if not new:
                return _added(work.revision_after_resending(again, revision), again)
            made = iter(work.add(new, revision))
            self.works.classes.include(one.class_ for one in new)
            return _added(work.state.revision, [kept or next(made) for kept in stored])

        return await run_in_threadpool(add)

    async def _patch(self, request: Request, given: dict[str, Any]) -> Any:
        sent = _some(given, "changes")

        photo, work, revision = await run_in_threadpool(self._opened, request, given)
        changes: dict[str, dict[str, Any]] = {}
        for entry in sent:
            id = entry.get("id")
            if not isinstance(id, str) or work.state.find(id) is None:
                raise BadRequest(f"there is no object {str(id)[:40]!r}")
            _check_known(entry, ("id", "name", "class", "colour", "hidden", "deleted", "steps"))
            fields = checked_fields(entry)
            if "steps" in entry:
                new = await self._segmented(photo, entry["steps"], request.is_disconnected)
                fields |= {"steps": list(new.steps), "rle": new.rle, "score": new.score}
                fields |= {"source": "prompts", "everything": None}
            changes[id] = {**changes.get(id, {}), **fields}

        def change() -> Any:
            changed = work.change(changes, revision)
            self.works.classes.include(known.class_ for known in changed)
            return {"work": {"revision": work.state.revision}, "objects": list(map(object_json, changed))}

        return await run_in_threadpool(change)

    def _opened(self, request: Request, given: Mapping[str, Any]) -> tuple[Photo, Work, int]:
        """The photo of a request as it is now, and the work on it, whose revision the change is for."""
        photo = self._library.facts(request.path_params["photo"])
        work, revision = self._work_on(photo), _revision(given)
        work.check(revision)
        return photo, work, revision

    async def _patch_photo(self, request: Request, given: dict[str, Any]) -> Any:
        if not isinstance(given.get("done"), bool):
            raise BadRequest("done is true or false")

        def change() -> Any:
            work = self.work(request.path_params["photo"])
            work.set_done(given["done"], _revision(given))
            return {"work": {"revision": work.state.revision, "done": work.state.done}}

        return await run_in_threadpool(change)

    async def _get(self, request: Request, given: dict[str, Any]) -> Any:
        def find() -> Any:
            work = self.work(request.path_params["photo"])
            found = work.state.find(request.path_params["id"])
            if found is None:
                return JSONResponse({"error": f"there is no object {request.path_params['id'][:40]!r}"}, 404)
            return {**object_json(found), "steps": list(found.steps), "rle": found.rle}

        return await run_in_threadpool(find)

    async def _put_classes(self, request: Request, given: dict[str, Any]) -> Any:
        classes = self.works.classes
        try:
            await run_in_threadpool(classes.replace, given.get("classes"), _revision(given))
        except OSError as error:
            raise not_saved(self.works.folder, error) from error
        return {"classes": classes.listed, "classes_revision": classes.revision}

    async def _export(self, request: Request, given: dict[str, Any]) -> Any:
        format, chosen = given.get("format"), given.get("photos")
        if format not in writers.FORMATS:
            raise BadRequest(f"format is one of {', '.join(writers.FORMATS)}, got {str(format)[:40]!r}")
        if chosen is not None and not (isinstance(chosen, list) and all(isinstance(id, str) for id in chosen)):
            raise BadRequest("photos is a list of ids, or is left out for all photos")

        def write() -> Any:
            with self._exporting:
                works, failed = self._to_export(chosen)
                listed = [entry["name"] for entry in self.works.classes.listed]
                classes = exports.class_names(listed, [work.state for work in works.values()])
                options = exports.options_of(given.get("options"), classes)
                exported = exports.export(self._library, works, format, self.works.folder, options)
            exported.failed.update(failed)
            if exported.failed and not exported.count:
                name, why = next(iter(exported.failed.items()))
                raise BadRequest(portable(f"nothing could be exported; {name}: {why}"))
            return exports.json_of(exported)

        return await run_in_threadpool(write)

    def _to_export(self, chosen: Sequence[str] | None) -> tuple[dict[str, Work], dict[str, str]]:
        """The works by photo, and why some have none."""
        works, failed = {}, {}
        for entry in self._library.photos():
            if chosen is not None and entry.id not in chosen:
                continue
            if chosen is None and not self.works.has_imports and not any(self.summary(entry).values()):
                continue
            try:
                work = self.work(entry.id)
            except (ValueError, LookupError) as error:
                failed[entry.name] = first_line(error)
                continue
            if exports.is_exported(work.state):
                works[entry.id] = work
        return works, failed

    async def _archive(self, request: Request, given: dict[str, Any]) -> Any:
        format = request.path_params["format"]
        if format not in writers.FORMATS:
            return JSONResponse({"error": f"there is no format {format[:40]!r}"}, 404)

        def pack() -> BinaryIO:
            with self._exporting:
                photos = [entry.path for entry in self._library.photos() if entry.path is not None]
                photos += (self.works.folder / KEPT).rglob("*.png")
                return exports.archive(self.works.folder / "export" / format, photos)

        packed = await run_in_threadpool(pack)
        headers = {
            "content-length": str(os.fstat(packed.fileno()).st_size),
            "content-disposition": f'attachment; filename="{format}.zip"',
        }
        return _OfFile(packed, media_type="application/zip", headers=headers)

    def _stored(self, work: Work, photo: str, entry: Mapping[str, Any]) -> WorkObject | None:
        """The object that was sent before, with the same id. Raises BadRequest if it was another."""
        id = entry.get("id")
        stored = work.state.find(id) if isinstance(id, str) and _ID.fullmatch(id) else None
        if stored is None:
            return None
        sent = {name: entry.get(name) for name in ("class", "colour", "everything")} | {"name": entry.get("name", "")}
        steps = steps_to_json(steps_from_json(self.resolved(photo, entry["steps"]))) if "steps" in entry else []
        if list(stored.steps) != steps or any(stored.to_json()[name] != value for name, value in sent.items()):
            raise BadRequest(
                f"there is an object {id} already, of other steps or with another name, class or colour: an id stands "
                "for one object; choose another, or change that object"
            )
        return stored

    async def _new(self, photo: Photo, entry: Any, is_gone: IsGone) -> NewObject:
        """An object as it was sent, with its mask."""
        _check_known(entry, ("id", "name", "class", "colour", "steps", "everything"))
        if ("steps" in entry) == ("everything" in entry):
            raise BadRequest("an object has steps or everything: one of the two")
        fields = checked_fields(entry)
        given = {"name": fields.get("name", ""), "class_": fields.get("class"), "colour": fields.get("colour")}
        if (id := entry.get("id")) is not None:
            if not isinstance(id, str) or not _ID.fullmatch(id):
                raise BadRequest(f"the id of a new object is 8 to 32 letters a to z, got {str(id)[:40]!r}")
            given["id"] = id
        if "steps" in entry:
            new = await self._segmented(photo, entry["steps"], is_gone)
            return NewObject(new.rle, "prompts", steps=new.steps, score=new.score, **given)
        asked = entry["everything"]
        config, index = (asked.get("config"), asked.get("index")) if isinstance(asked, dict) else (None, None)
        if not isinstance(config, dict) or isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise BadRequest("everything is {config: {...}, index: NUMBER}, as the search for everything gives them")
        rle, score = await self._masks.everything_mask(photo, config, index, is_gone)
        return NewObject(rle, "everything", everything={"config": config, "index": index}, score=score, **given)

    async def _segmented(self, photo: Photo, sent: Any, is_gone: IsGone) -> NewObject:
        steps = await run_in_threadpool(lambda: steps_from_json(self.resolved(photo.id, sent)))
        rle, score = await self._masks.mask_of(photo, steps, is_gone)
        if not rle_area(rle):
            raise BadRequest("the mask of these steps is empty: there is nothing to keep")
        return NewObject(rle, "prompts", steps=tuple(steps_to_json(steps)), score=score)


def _added(revision: int, objects: Sequence[WorkObject]) -> dict[str, Any]:
    """The answer to objects that were sent."""
    return {"work": {"revision": revision}, "objects": list(map(object_json, objects))}


def work_json(work: Work) -> dict[str, Any]:
    """The work on a photo as the page gets it."""
    state = work.state
    objects = list(map(object_json, state.objects))
    return {"revision": state.revision, "done": state.done, "objects": objects, "notes": list(work.notes)}


def object_json(kept: WorkObject) -> dict[str, Any]:
    """An object as the page gets it: without its steps and run lengths."""
    x0, y0, x1, y1 = inclusive_box(kept.rle)
    area = rle_area(kept.rle)
    names = ("id", "name", "class", "colour", "hidden", "deleted", "source", "score")
    given = kept.to_json()
    return {
        **{name: given[name] for name in names},
        "area": area,
        "box": [x0, y0, x1 + 1, y1 + 1] if area else [0, 0, 0, 0],
        "polygons": polygons(kept.rle, TOLERANCE),
        "clicks": max((len(step.get("points", ())) for step in kept.steps), default=0),
    }


class _OfFile(StreamingResponse):
    """An open file, which is closed when the answer has been given or the client is gone."""

    def __init__(self, file: BinaryIO, **more: Any) -> None:
        super().__init__(iter(functools.partial(file.read, 1 << 20), b""), **more)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


_Handler = Callable[[Request, dict[str, Any]], Awaitable[Any]]


def _answering(handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
    """JSON in and out, and the errors of work; others are the application's."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            found = await handler(request, {} if request.method in ("GET", "HEAD") else await read_json(request))
        except StaleRevision as error:
            work = await run_in_threadpool(work_json, error.work)
            return JSONResponse({"error": str(error), "work": work}, 409)
        except StaleClasses as error:
            return JSONResponse({"error": str(error)}, 409)
        except BadRequest as error:
            return JSONResponse({"error": str(error)}, 400)
        except HttpError as error:
            return error_response(error)
        except BadWorkFile as error:
            return JSONResponse({"error": str(error)}, 422)
        except NotSaved as error:
            return JSONResponse({"error": str(error)}, 507)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return JSONResponse({"error": "the disk is full: make room and try again; what was saved is kept"}, 507)
        return found if isinstance(found, Response) else JSONResponse(found)

    return answer


def _revision(given: Mapping[str, Any]) -> int:
    revision = given.get("revision")
    if isinstance(revision, bool) or not isinstance(revision, int):
        raise BadRequest("revision is the number of the work that the change is for")
    return revision


def _some(given: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    entries = given.get(name)
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_CHANGES:
        raise BadRequest(f"{name} is a list of 1 to {MOST_CHANGES:,}")
    if not all(isinstance(entry, dict) for entry in entries):
        raise BadRequest(f"{name} is a list of JSON objects")
    return entries


def _check_known(entry: Mapping[str, Any], names: Sequence[str]) -> None:
    if unknown := sorted(set(entry) - set(names)):
        raise BadRequest(f"an object has no {', '.join(unknown)[:100]}; its fields are {', '.join(names)}")
