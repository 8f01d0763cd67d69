"""The routes, from a client's side."""

import io
import json
import threading

import numpy as np
import pytest
from example_app import id_of, predict
from example_models import random_photo
from PIL import Image

POINT = {"points": [[30, 20, 1]]}


def post(client, path: str, status: int, **body) -> dict:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


def test_the_session_says_what_model_this_is(client, sam):
    from samjax.embeddings import model_hash

    session = client.get("/api/session").json()
    assert session["model"] == {
        "name": "small",
        "checksum": model_hash(sam),
        "dtype": "float32",
        "image_size": [64, 64],
        "masks": 3,
    }
    assert session["folder"] == "photos"
    assert session["limits"] == {"upload_bytes": 200_000_000, "pixels": 120_000_000}
    assert session["tile"] == 512


def test_one_unreadable_photo_says_why_and_the_others_go_on(client):
    listed = client.get("/api/photos").json()["photos"]
    assert [photo["name"] for photo in listed] == ["a.png", "broken.jpg", "more/b.png"]
    assert {photo["width"] for photo in listed} == {None}
    response = client.get(f"/api/photos/{id_of('broken.jpg')}")
    assert response.status_code == 422
    assert response.json()["error"].startswith("broken.jpg: the file cannot be read as an image")
    for path in ("/segment/predict", "/segment/everything", "/segment/embed"):
        steps = {"steps": [POINT]} if path == "/segment/predict" else {}
        post(client, path, 422, photo=id_of("broken.jpg"), **steps)
    assert client.get(f"/api/photos/{id_of('broken.jpg')}/thumbnail.jpg").status_code == 422
    photo = client.get(f"/api/photos/{id_of('a.png')}").json()
    assert (photo["width"], photo["height"], photo["levels"]) == (90, 60, 1)
    listed = {photo["name"]: photo for photo in client.get("/api/photos").json()["photos"]}
    assert listed["broken.jpg"]["error"].startswith("broken.jpg: ")
    assert (listed["a.png"]["width"], listed["a.png"]["error"], listed["more/b.png"]["width"]) == (90, None, None)


@pytest.mark.parametrize("path", ["/api/photos/{}", "/api/photos/{}/thumbnail.jpg", "/segment/embed/{}"])
def test_there_is_no_photo_of_another_id(client, path):
    for id in ("0" * 16, "..", "%2e%2e%2fa.png", "a.png", "%00"):
        assert client.get(path.format(id)).status_code == 404


def test_tiles_last_under_an_address_that_names_the_photo_s_hash(client, photo):
    id = id_of("a.png")
    hash = client.get(f"/api/photos/{id}").json()["hash"]
    response = client.get(f"/api/photos/{id}/tiles/0/0/0.jpg?v={hash[:16]}")
    assert "immutable" in response.headers["cache-control"]
    assert np.asarray(Image.open(io.BytesIO(response.content))).shape == photo.shape
    other = client.get(f"/api/photos/{id}/tiles/0/0/0.jpg?v=0123")
    assert "no-cache" in other.headers["cache-control"]
    same = client.get(f"/api/photos/{id}/tiles/0/0/0.jpg", headers={"if-none-match": other.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert client.get(f"/api/photos/{id}/tiles/1/0/0.jpg").status_code == 404
    assert client.get(f"/api/photos/{id}/tiles/0/0/x.jpg").status_code == 404


class TestPredict:
    def test_masks_are_the_library_s(self, client, sam, photo):
        from samjax import Prompts
        from samjax.ops.rle import encode_rle

        answers = predict(client, "a.png", POINT)
        embedding = sam.encode(photo)
        prediction = sam.predict(embedding, Prompts.of([[(30, 20)]]))
        masks = sam.masks(prediction, embedding)[0]
        assert [answer["rle"] for answer in answers] == [encode_rle(mask) for mask in masks]
        assert [answer["iou"] for answer in answers] == pytest.approx(prediction.iou[0].tolist(), abs=1e-6)
        for answer, mask in zip(answers, masks, strict=True):
            y, x = np.nonzero(mask)
            assert answer["area"] == len(y)
            assert answer["box"] == [x.min(), y.min(), x.max() + 1, y.max() + 1]

    def test_several_objects_are_answered_together(self, client):
        single = [predict(client, "a.png", POINT), predict(client, "a.png", {"box": [5, 5, 40, 40]}, POINT)]
        both = post(
            client, "/segment/predict", 200, photo=id_of("a.png"), objects=[[POINT], [{"box": [5, 5, 40, 40]}, POINT]]
        )
        assert [one["answers"] for one in both["objects"]] == single
        assert set(both["seconds"]) == {"queued", "decode", "masks"}

    @pytest.mark.parametrize("tolerance", [0, 2.5])
    def test_outlines_are_those_of_files(self, client, tolerance):
        from samjax.writers.outlines import outline

        exact = predict(client, "a.png", POINT)
        outlined = predict(client, "a.png", POINT, format="polygons", tolerance=tolerance)
        for one, other in zip(exact, outlined, strict=True):
            expected = [
                [np.asarray(ring.coords)[:-1].round(2).tolist() for ring in (part.exterior, *part.interiors)]
                for part in outline(one["rle"], float(tolerance))
            ]
            assert other["polygons"] == expected
            assert {**other, "rle": one["rle"]} == {**one, "polygons": expected}

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({}, "give steps"),
            ({"steps": [POINT], "objects": [[POINT]]}, "give steps"),
            ({"steps": []}, "1 to 1000"),
            ({"steps": [{}]}, "needs points, a box or a mask"),
            ({"steps": [{**POINT, "refine": True}]}, "first step cannot refine"),
            ({"steps": [{"points": [[1000, 20, 1]]}]}, "outside the photo"),
            ({"steps": [{"points": [["a", 20, 1]]}]}, "not a finite number"),
            ({"steps": [{**POINT, "chosen": 5}]}, "there are 3 answer"),
            ({"steps": [POINT], "format": "png"}, "format is rle or polygons"),
            ({"steps": [POINT], "max_side": 10}, "max_side"),
            ({"steps": [POINT], "max_side": True}, "max_side"),
            ({"steps": [POINT], "tolerance": -1}, "tolerance"),
            ({"steps": [POINT], "tolerance": 10**38}, "tolerance"),
            ({"steps": [{"points": [[10**38, 20, 1]]}]}, "no number of pixels"),
            ({"steps": [POINT], "tolerance": 10**400}, "at most 40 digits"),
            ({"steps": [{"points": [[-(10**400), 20, 1]]}]}, "at most 40 digits"),
            ({"steps": [POINT], "preview": 1}, "preview"),
            ({"steps": [POINT], "more": 1}, "there is no more here"),
            ({"objects": []}, "1 to 64"),
            ({"objects": [[POINT] * 1000] * 3}, "at most 2,000 steps together"),
            ({"objects": [[POINT]] * 65}, "1 to 64"),
            ({"steps": [{"mask": {"rle": {"size": [60, 90], "counts": "zzz"}}}]}, "cannot be used"),
            ({"steps": [{"mask": {"rle": {"size": [9, 9], "counts": "a"}}}]}, "has the size"),
        ],
    )
    def test_bad_requests_say_what_is_wanted(self, client, body, message):
        assert message in post(client, "/segment/predict", 400, photo=id_of("a.png"), **body)["error"]
        assert len(predict(client, "a.png", POINT)) == 3  # and the next one is answered

    def test_a_superseded_preview_is_told_so(self, client, service, monkeypatch):
        answering, entered, leave = service.answering, threading.Event(), threading.Event()

        def held(*given):
            entered.set()
            assert leave.wait(5)
            return answering(*given)

        monkeypatch.setattr(service, "answering", held)
        responses = {}

        def ask(name):
            body = {"photo": id_of("a.png"), "steps": [POINT], "preview": True}
            responses[name] = client.post("/segment/predict", json=body, headers={"x-samjax-client": "tab"})

        threads = [threading.Thread(target=ask, args=(name,)) for name in ("running", "old", "new")]
        threads[0].start()
        assert entered.wait(5)
        for thread in threads[1:]:
            before = client.queue._changed
            with before:
                waiting = list(client.queue._waiting.get("page tab", ()))
            thread.start()
            for _ in range(500):
                with before:
                    if list(client.queue._waiting.get("page tab", ())) != waiting:
                        break
                threading.Event().wait(0.01)
        leave.set()
        for thread in threads:
            thread.join(10)
        assert [responses[name].status_code for name in ("running", "old", "new")] == [200, 409, 200]
        assert responses["old"].json()["superseded"] is True

    def test_another_client_s_click_comes_between_the_steps_of_many_objects(self, client, service, monkeypatch):
        answering, entered = service.answering, threading.Event()

        def slow(*given):
            for _ in range(3):
                entered.set()
                threading.Event().wait(0.15)
                yield
            return (yield from answering(*given))

        monkeypatch.setattr(service, "answering", slow)
        order = []

        def ask(name, count):
            body = {"photo": id_of("a.png"), "objects": [[POINT]] * count}
            assert client.post("/segment/predict", json=body, headers={"x-samjax-client": name}).status_code == 200
            order.append(name)

        many = threading.Thread(target=ask, args=("many", 10))
        many.start()
        assert entered.wait(5)
        ask("one", 1)
        many.join(20)
        assert order == ["one", "many"]

    def test_masks_are_drawn_before_the_device_is_asked(self, client, monkeypatch):
        from samjax.app import service

        drawn_mask, threads = service.drawn_mask, []

        def noted(*given):
            threads.append(threading.current_thread())
            return drawn_mask(*given)

        monkeypatch.setattr(service, "drawn_mask", noted)
        step = {"mask": {"outlines": [[[5, 5], [40, 5], [40, 40]]]}}
        assert len(predict(client, "a.png", step)) == 3
        assert [thread.name == "device" for thread in threads] == [False]

    def test_a_full_queue_is_a_clear_503(self, serving):
        from samjax.app.queue import DeviceQueue

        client = serving(queue=DeviceQueue(most=0))
        response = client.post("/segment/predict", json={"photo": id_of("a.png"), "steps": [POINT]})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "2"
        assert response.json()["error"].startswith("busy: ")


class TestAPhotoThatChangesWhileItWaits:
    """Nothing that is computed of other pixels is kept as the photo's."""

    def wait(self, client):
        """A job that holds the device until the event is set."""
        entered, leave = threading.Event(), threading.Event()
        client.queue.submit("gate", lambda _: (entered.set(), leave.wait(5)))
        assert entered.wait(5)
        return leave

    def test_its_embedding_fails(self, client, service, folder, photo):
        leave = self.wait(client)
        hash = client.get(f"/api/photos/{id_of('a.png')}").json()["hash"]
        post(client, "/segment/embed", 202, photo=id_of("a.png"))
        Image.fromarray(255 - photo).save(folder / "a.png")
        leave.set()
        client.queue.submit("", lambda _: None).future.result(5)
        assert not service.is_embedded(hash)
        Image.fromarray(photo).save(folder / "a.png")
        state = client.get(f"/segment/embed/{id_of('a.png')}").json()
        assert (state["state"], "has changed" in state["error"]) == ("failed", True)

    def test_a_search_in_it_is_a_conflict(self, client, folder, photo):
        leave = self.wait(client)
        client.get(f"/api/photos/{id_of('a.png')}")
        submit = client.queue.submit

        def changed(*given, **more):
            Image.fromarray(255 - photo).save(folder / "a.png")
            leave.set()
            return submit(*given, **more)

        client.queue.submit = changed
        assert "has changed" in post(client, "/segment/everything", 409, photo=id_of("a.png"), config=ALL)["error"]


class TestEmbed:
    def test_a_photo_becomes_ready(self, client):
        id = id_of("a.png")
        assert client.get(f"/segment/embed/{id}").json()["state"] == "absent"
        response = client.post("/segment/embed", json={"photo": id})
        assert response.status_code in (200, 202)
        for _ in range(200):
            state = client.get(f"/segment/embed/{id}").json()
            if state["state"] == "ready":
                break
            assert state["state"] in ("queued", "encoding")
            threading.Event().wait(0.05)
        assert state["error"] is None
        assert client.post("/segment/embed", json={"photo": id}).status_code == 200
        listed = {photo["name"]: photo["embedded"] for photo in client.get("/api/photos").json()["photos"]}
        assert listed == {"a.png": True, "broken.jpg": False, "more/b.png": False}

    def test_asked_by_two_it_is_queued_once(self, client, service, monkeypatch):
        embed, calls, leave = service.embed, [], threading.Event()

        def held(*given):
            calls.append(1)
            assert leave.wait(5)
            return embed(*given)

        monkeypatch.setattr(service, "embed", held)
        for tab in ("one", "two"):
            client.post("/segment/embed", json={"photo": id_of("a.png")}, headers={"x-samjax-client": tab})
        leave.set()
        predict(client, "a.png", POINT)
        assert len(calls) == 2  # the photo's, and the prediction's, which finds it

    def test_a_failure_is_told_and_can_be_repeated(self, client, service, monkeypatch):
        def fail(*_):
            raise ValueError("the device has no memory left")

        with monkeypatch.context() as patch:
            patch.setattr(service, "embed", fail)
            client.post("/segment/embed", json={"photo": id_of("a.png")})
            client.queue.submit("", lambda _: None).future.result(5)
            state = client.get(f"/segment/embed/{id_of('a.png')}").json()
        assert (state["state"], state["error"]) == ("failed", "the device has no memory left")
        assert client.post("/segment/embed", json={"photo": id_of("a.png")}).json()["state"] != "failed"


ALL = {"points_per_side": 4, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}


class TestEverything:
    def expected(self, sam, photo):
        from samjax.amg.config import GenerationConfig
        from samjax.amg.generator import MaskGenerator

        return MaskGenerator(sam, GenerationConfig(**ALL)).generate(photo)

    def test_it_is_the_generator_s(self, client, sam, photo):
        found = post(client, "/segment/everything", 200, photo=id_of("a.png"), config=ALL)
        expected = self.expected(sam, photo)
        assert [mask["rle"] for mask in found["masks"]] == [record["segmentation"] for record in expected]
        assert [mask["area"] for mask in found["masks"]] == [record["area"] for record in expected]
        assert [mask["index"] for mask in found["masks"]] == list(range(len(expected)))
        assert found["config"]["points_per_side"] == 4
        again = post(client, "/segment/everything", 200, photo=id_of("a.png"), config=found["config"])
        assert again == found  # its settings are settings

    def test_as_lines_it_is_the_same(self, client):
        whole = post(client, "/segment/everything", 200, photo=id_of("a.png"), config=ALL)
        for photo in ("a.png", "more/b.png"):
            response = client.post(
                "/segment/everything",
                json={"photo": id_of(photo), "config": ALL},
                headers={"accept": "application/x-ndjson"},
            )
            lines = [json.loads(line) for line in response.text.splitlines()]
            first, *progress, end = [line for line in lines if "mask" not in line]
            assert first == {"config": whole["config"]}, "a mask may be kept by it before the last has come"
            masks = [line["mask"] for line in lines if "mask" in line]
            assert end == {"done": True, "count": len(masks), "config": whole["config"]}
            shares = [line["progress"] for line in progress]
            assert shares == sorted(shares)
            if photo == "a.png":
                assert masks == whole["masks"]

    def test_an_error_within_is_a_line(self, client, service, monkeypatch):
        def fail(*_):
            raise ValueError("it cannot be")

        monkeypatch.setattr(service, "everything", fail)
        response = client.post(
            "/segment/everything", json={"photo": id_of("a.png")}, headers={"accept": "application/x-ndjson"}
        )
        assert json.loads(response.text.splitlines()[-1]) == {"error": "it cannot be"}

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ([], "config is a JSON object"),
            ({"points": 3}, "config has no points; its fields are"),
            ({"points_per_side": "4"}, "points_per_side is a whole number"),
            ({"points_per_side": 1000}, "from 0 to 128"),
            ({"points_per_side": 0}, "at least one point a side"),
            ({"pred_iou_thresh": "high"}, "pred_iou_thresh is a number"),
            ({"nms": "none"}, "nms is box or mask"),
            ({"nms": []}, "nms is box or mask"),
            ({"crop_n_layers": 9}, "from 0 to 3"),
            ({"tile": 1}, "tile is a number of pixels from 64"),
            ({"tile": 64, "crop_n_layers": 1}, "two ways"),
            ({"min_mask_region_area": -1}, "min_mask_region_area"),
        ],
    )
    def test_bad_settings_say_what_is_wanted(self, client, config, message):
        assert message in post(client, "/segment/everything", 400, photo=id_of("a.png"), config=config)["error"]


OCTETS = {"content-type": "application/octet-stream"}


class TestUpload:
    def upload(self, client, name: str, data) -> tuple[int, dict]:
        response = client.post("/api/upload", params={"name": name}, content=data, headers=OCTETS)
        return response.status_code, response.json()

    def png(self, photo: np.ndarray) -> bytes:
        data = io.BytesIO()
        Image.fromarray(photo).save(data, "PNG")
        return data.getvalue()

    def test_an_upload_can_be_segmented(self, client):
        status, answer = self.upload(client, "../my dog.png", self.png(random_photo(40, 30)))
        assert status == 201
        assert answer["photo"]["name"] == "uploads/my dog.png"
        assert (answer["photo"]["width"], answer["photo"]["height"]) == (30, 40)
        assert len(predict(client, "uploads/my dog.png", {"points": [[3, 4, 1]]})) == 3
        assert "uploads/my dog.png" in [photo["name"] for photo in client.get("/api/photos").json()["photos"]]

    def test_hostile_ones_are_refused_and_nothing_stays(self, client):
        whole = self.png(random_photo(200, 200))
        assert self.upload(client, "x.png", whole[: len(whole) // 2])[0] == 422
        assert self.upload(client, "x.png", b"<html>")[0] == 422
        assert self.upload(client, "x.png", b"")[0] == 422
        assert self.upload(client, "x.sh", whole)[0] == 400
        assert self.upload(client, "", whole)[0] == 400
        assert not [file.name for file in client.library.uploads.glob("*")]
        assert not [file.name for file in client.library.uploads.glob(".*")]

    def test_too_many_bytes_are_refused_while_they_arrive(self, serving, monkeypatch):
        monkeypatch.setattr("samjax.app.server.UPLOAD_BYTES", 10_000)
        client = serving()
        status, answer = self.upload(client, "x.png", (b"x" * 1000 for _ in range(100)))
        assert status == 413
        assert "10,000 bytes" in answer["error"]
        assert not list(client.library.uploads.glob(".*"))

    def test_too_many_pixels_are_refused(self, serving):
        client = serving(bounds={"most_pixels": 1000})
        status, answer = self.upload(client, "x.png", self.png(random_photo(40, 30)))
        assert status == 422
        assert "it has 30 x 40 pixels; at most 0.001 megapixels" in answer["error"]


class TestWithoutAFolder:
    def test_there_are_uploads_alone(self, serving):
        client = serving(source=None)
        assert client.get("/api/photos").json() == {"photos": []}
        assert client.get("/api/session").json()["folder"] == "uploads"
