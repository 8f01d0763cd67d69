"""Who may ask, what may be sent, and what an error looks like."""

import errno
import json

import pytest
from example_app import id_of

JSON = {"content-type": "application/json"}
TOKEN = "abcdefghijklmnop-123"


def error_of(response) -> str:
    """The message of an error, which is JSON and no more."""
    assert response.headers["content-type"] == "application/json"
    assert "Traceback" not in response.text
    return response.json()["error"]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8765", "LOCALHOST:1", "127.0.0.1:8765", "[::1]:8765", "localhost.:80"]
)
def test_this_machine_s_names_are_answered(client, host):
    assert client.get("/api/session", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.com", "evil.com:8765", "localhost.evil.com", "127.0.0.1.evil.com", "[::2]", "0.0.0.0", ""],
)
def test_other_names_are_refused(client, host):
    response = client.get("/api/session", headers={"host": host})
    assert response.status_code == 403
    assert "is not called" in error_of(response)


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "http://evil.com",
            "https://localhost.evil.com:8765",
            "null",
            "http://localhost:9999",
            "http://127.0.0.1:8765",
        ),
        *("http://localhost:8765.evil.com", "file://", "chrome-extension://localhost:8765", ""),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_another_origin_are_refused(client, origin, method):
    response = client.request(method, "/api/session", headers={"origin": origin, **JSON})
    assert response.status_code == 403
    error_of(response)


def test_the_page_s_own_origin_is_answered(client):
    assert client.get("/api/session", headers={"origin": "http://localhost:8765"}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pictures_and_frames_of_other_pages_get_nothing(client, site):
    for mode in ("no-cors", "navigate"):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
        assert client.get(f"/api/photos/{id_of('a.png')}/thumbnail.jpg", headers=headers).status_code == 403
    assert client.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"}).status_code != 403


@pytest.mark.parametrize("path", ["/api/session", "/api/nothing", "/nothing", f"/api/photos/{id_of('broken.jpg')}"])
def test_every_answer_has_the_headers_that_keep_other_pages_out(client, path):
    headers = client.get(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_only_json_is_taken(client, kind):
    for path in ("/segment/embed", "/segment/predict", "/segment/everything"):
        response = client.post(path, content=b"{}", headers={"content-type": kind})
        assert response.status_code == 415
        assert "Content-Type is application/json" in error_of(response)
    response = client.post("/api/upload?name=a.png", content=b"{}", headers=JSON)
    assert response.status_code == 415
    assert client.options("/segment/predict").status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"1", b'{"a": NaN}', b"[" * 100_000, b"\xff\xfe", b'{"a": ' + b"9" * 5000 + b"}"),
        *(b'{"a": ' + b"9" * 400 + b"}", b'{"photo": ' + b"[" * 990 + b"]" * 990 + b"}"),
        *(b'{"\\ud800": 1}', b'{"photo": "\\udfff"}', b'{"photo": "\xed\xa0\x80"}'),
    ],
)
def test_what_is_no_json_object_is_refused(client, body):
    for path in ("/segment/predict", "/segment/embed"):
        response = client.post(path, content=body, headers=JSON)
        assert response.status_code == 400
        assert "the body is" in error_of(response)


def test_what_is_no_text_is_not_shown(client):
    response = client.post("/segment/embed", content=b'{"photo": [[[[1]]]]}', headers=JSON)
    assert (response.status_code, error_of(response)) == (400, "photo is a text, got a list")


def test_half_a_character_is_no_reason_for_an_answer_to_fail():
    from samjax.app.http import error_response
    from samjax.app.steps import BadRequest

    response = error_response(BadRequest("no \ud800 here"))
    assert json.loads(bytes(response.body)) == {"error": "no ? here"}


def test_a_value_error_that_is_no_fault_of_the_request_is_logged(client, monkeypatch, caplog):
    def fail(*_):
        raise ValueError("this model takes photos of one channel")

    monkeypatch.setattr(client.library, "facts", fail)
    response = client.get(f"/api/photos/{id_of('a.png')}")
    assert (response.status_code, error_of(response)) == (500, "this model takes photos of one channel")
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_nobody_reads_is_bounded_too(client, method):
    response = client.request(method, "/api/session", content=b"x" * 100_000)
    assert response.status_code == 413


def test_a_body_is_refused_while_it_arrives(client, monkeypatch):
    monkeypatch.setattr("samjax.app.http.MOST_JSON", 1000)
    sent = []

    def chunks():
        for _ in range(100):
            sent.append(1)
            yield b"x" * 100

    response = client.post("/segment/predict", content=chunks(), headers=JSON)
    assert response.status_code == 413
    assert "more than 1,000 bytes" in error_of(response)
    stated = client.post("/segment/predict", content=b"x", headers={**JSON, "content-length": "1" * 30})
    assert stated.status_code == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
def test_what_there_is_not_is_an_error_in_json(client, method):
    response = client.request(method, "/api/session", content=b"{}", headers=JSON)
    assert response.status_code == 405
    error_of(response)
    response = client.request(method, "/etc/passwd", content=b"{}", headers=JSON)
    assert response.status_code == 404
    error_of(response)


@pytest.mark.parametrize("path", ["/page/../server.py", "/page/%2e%2e/server.py", "/page/..%2fserver.py", "/page/%00"])
def test_no_file_but_the_page_s_is_served(client, path):
    assert client.get(path).status_code == 404


def test_an_unexpected_error_is_logged_and_not_told(client, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(client.library, "facts", fail)
    response = client.get(f"/api/photos/{id_of('a.png')}")
    assert response.status_code == 500
    assert "secret" not in error_of(response)
    assert "a secret" in caplog.text


def test_a_full_disk_is_told(client, monkeypatch, caplog):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(client.library, "receive", full)
    headers = {"content-type": "application/octet-stream"}
    response = client.post("/api/upload?name=a.png", content=b"x", headers=headers)
    assert response.status_code == 507
    assert "the disk is full" in error_of(response)


def test_more_requests_than_can_be_answered_are_refused_in_json(client, monkeypatch):
    monkeypatch.setattr(client.app, "_most", 0)
    response = client.get("/api/session")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert error_of(response).startswith("busy: ")
    monkeypatch.setattr(client.app, "_most", 1)
    assert client.get("/api/session").status_code == 200


def test_busy_says_when_to_come_back():
    from samjax.app.http import error_response
    from samjax.app.queue import Busy

    response = error_response(Busy("busy: come back", 2))
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")


def test_work_that_cannot_be_used_is_422():
    from samjax.app.http import error_response
    from samjax.workfile import BadWorkFile

    response = error_response(BadWorkFile("a.samjax.json is damaged"))
    assert (response.status_code, json.loads(bytes(response.body))) == (422, {"error": "a.samjax.json is damaged"})


class TestToken:
    @pytest.fixture
    def guarded(self, serving):
        return serving(host="0.0.0.0", token=TOKEN)

    @pytest.mark.parametrize("path", ["/", "/page/main.js", "/api/session", "/api/photos/0123/thumbnail.jpg"])
    def test_nothing_is_answered_without_it(self, guarded, path):
        response = guarded.get(path)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert "token" in error_of(response)

    @pytest.mark.parametrize(
        "given",
        ["Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer", "Bearer é"],
    )
    def test_another_one_is_refused(self, guarded, given):
        response = guarded.get("/api/session", headers={"authorization": given.encode("latin-1")})
        assert response.status_code == 401

    def test_programs_send_it(self, guarded):
        headers = {"authorization": f"Bearer {TOKEN}", "host": "any.name:1234"}
        assert guarded.get("/api/session", headers=headers).status_code == 200

    def test_the_address_that_has_it_sets_a_cookie_that_scripts_and_other_pages_lack(self, guarded):
        response = guarded.get(f"/?token={TOKEN}", follow_redirects=False)
        assert (response.status_code, response.headers["location"]) == (303, "/")
        cookie = response.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert guarded.get("/api/session").status_code == 200  # the client keeps cookies

    @pytest.mark.parametrize(
        "cookies", ['p={"a":1}; %s', '%s; p={"a":1}', "a b=c; %s", "x; %s", "é=1;%s", "=; ;; %s", 'q="a; %s']
    )
    def test_cookies_of_other_programs_do_no_harm(self, guarded, cookies):
        header = (cookies % f"samjax-8765={TOKEN}").encode("latin-1")
        assert guarded.get("/api/session", headers={"cookie": header}).status_code == 200
        wrong = (cookies % f"samjax-8765={TOKEN}x").encode("latin-1")
        assert guarded.get("/api/session", headers={"cookie": wrong}).status_code == 401

    def test_who_may_not_ask_keeps_no_connection(self, guarded):
        assert guarded.get("/api/session").headers["connection"] == "close"

    def test_a_wrong_one_sets_no_cookie(self, guarded):
        response = guarded.get("/?token=wrong", follow_redirects=False)
        assert response.status_code == 401
        assert "set-cookie" not in response.headers
        assert guarded.get("/api/session").status_code == 401

    def test_it_is_no_reason_to_let_other_pages_in(self, guarded):
        headers = {"authorization": f"Bearer {TOKEN}", "origin": "http://evil.com"}
        assert guarded.get("/api/session", headers=headers).status_code == 403

    def test_on_this_machine_it_is_asked_for_too(self, serving):
        client = serving(token=TOKEN)
        assert client.get("/api/session").status_code == 401
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/session", headers=headers).status_code == 200
        assert client.get("/api/session", headers={**headers, "host": "evil.com"}).status_code == 403

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", "127.0.0.1.nip.io", ""])
    def test_another_host_needs_one(self, host):
        from samjax.app.http import check_exposure

        with pytest.raises(ValueError, match=r"give a token too, this new one for example: --token [\w-]{32}$"):
            check_exposure(host, None)
        check_exposure(host, TOKEN)

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
    def test_this_machine_needs_none(self, host):
        from samjax.app.http import check_exposure

        check_exposure(host, None)

    @pytest.mark.parametrize("token", ["", "short", "a" * 15, "a space is in this one", "a;b=c, and more", "é" * 20])
    def test_it_is_long_and_fits_an_address(self, token):
        from samjax.app.http import check_exposure

        with pytest.raises(ValueError, match="--token is 16 or more"):
            check_exposure("127.0.0.1", token)
