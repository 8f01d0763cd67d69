"""Objects are kept with the masks that the model gives, while others are answered."""

import asyncio
import contextlib
import threading

import httpx2
import pytest
from example_app import id_of
from PIL import Image

ALL = {"points_per_side": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
POINT = {"points": [[30, 20, 1]]}


@pytest.fixture
def keeping(folder, service, tmp_path):
    """An application that keeps objects, and its queue."""
    from samjax.app.http import current_client
    from samjax.app.library import Library
    from samjax.app.masks import ExactMasks
    from samjax.app.objects import Objects
    from samjax.app.queue import DeviceQueue
    from samjax.app.server import build
    from samjax.app.work import WorkFolder

    library, queue = Library(str(folder), tmp_path / "out"), DeviceQueue()
    works = WorkFolder(tmp_path / "out", {"name": "small", "checksum": "c0ffee", "dtype": "float32", "image_size": []})
    objects = Objects(works, library, ExactMasks(library, service, queue, current_client))
    yield build(library, service, queue, objects=objects), queue
    queue.close()


def talk(app, conversation):
    """Runs a conversation with an application."""

    async def run():
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8765") as client:
            return await asyncio.wait_for(conversation(client), 60)

    return asyncio.run(run())


def commit(client, tab, *objects, photo="a.png"):
    body = {"revision": 0, "objects": list(objects)}
    path = f"/api/photos/{id_of(photo)}/objects"
    return client.post(path, json=body, headers={"x-samjax-client": tab}, timeout=60)


def test_an_object_has_the_mask_that_the_model_gives(keeping, service, photo):
    app, _ = keeping

    async def conversation(client):
        answer = await commit(client, "tab", {"steps": [POINT]}, {"everything": {"config": ALL, "index": 0}})
        asked = {"photo": id_of("a.png"), "steps": [POINT]}
        return answer.json(), (await client.post("/segment/predict", json=asked)).json()

    made, predicted = talk(app, conversation)
    assert [one["source"] for one in made["objects"]] == ["prompts", "everything"]
    first = predicted["objects"][0]["answers"][0]
    assert [made["objects"][0][name] for name in ("area", "box")] == [first["area"], first["box"]]


def test_however_many_wait_for_the_device_others_are_answered(keeping):
    """They wait for a search each; when their clients go, so do their jobs."""
    app, queue = keeping

    async def conversation(client):
        await client.get(f"/api/photos/{id_of('a.png')}")
        entered, leave = threading.Event(), threading.Event()
        queue.submit("gate", lambda _: (entered.set(), leave.wait(30)))
        assert entered.wait(5)
        try:
            waiting = [
                asyncio.ensure_future(commit(client, f"tab {number % 5}", {"everything": {"config": ALL, "index": 0}}))
                for number in range(50)
            ]
            while sum(map(len, queue._waiting.values())) < 50:
                await asyncio.sleep(0.05)
            session = await asyncio.wait_for(client.get("/api/session"), 5)
            for one in waiting:
                one.cancel()
            for one in waiting:
                with contextlib.suppress(asyncio.CancelledError):
                    await one
            return session.status_code, sum(map(len, queue._waiting.values()))
        finally:
            leave.set()

    assert talk(app, conversation) == (200, 0)


def test_a_photo_that_changes_meanwhile_gets_no_object_of_other_pixels(keeping, folder, photo):
    app, queue = keeping

    async def conversation(client):
        opened = (await client.get(f"/api/photos/{id_of('a.png')}")).json()
        entered, leave = threading.Event(), threading.Event()
        queue.submit("gate", lambda _: (entered.set(), leave.wait(30)))
        assert entered.wait(5)
        kept = asyncio.ensure_future(commit(client, "tab", {"steps": [POINT]}))
        while not queue._waiting:
            await asyncio.sleep(0.01)
        Image.fromarray(255 - photo).save(folder / "a.png")
        leave.set()
        answer = await kept
        Image.fromarray(photo).save(folder / "a.png")
        again = (await client.get(f"/api/photos/{id_of('a.png')}")).json()
        return answer, opened["work"], again["work"]

    answer, before, after = talk(app, conversation)
    assert (answer.status_code, "has changed" in answer.json()["error"]) == (409, True)
    assert before == after
