"""Files near and far."""

import os

import pytest

from samjax.readers import files


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(files, "_FIRST_PAUSE", 0.001)


def test_ranges_are_the_bytes_asked_for(tmp_path, serve):
    data = os.urandom(5000)
    (tmp_path / "file.bin").write_bytes(data)
    for root in (str(tmp_path), serve(tmp_path).url):
        path = files.join(root, "file.bin")
        assert files.read(path) == data
        assert files.read_range(path, 17, 1000) == data[17:1017]
        assert files.read_range(path, 4999, 1) == data[4999:]
        assert files.read_range(path, 5, 0) == b""
        assert files.state(path)[0] == 5000
        assert files.state(path)[1]
        with pytest.raises(EOFError, match="ends at byte 5000"):
            files.read_range(path, 4000, 2000)
        with pytest.raises(FileNotFoundError):
            files.read(files.join(root, "nothing.bin"))


def test_a_changed_file_has_another_state(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"abc")
    before = files.state(str(path))
    path.write_bytes(b"abd")
    os.utime(path, ns=(1, 1))
    assert files.state(str(path)) != before


def test_servers_that_send_whole_files_are_refused(tmp_path, serve):
    (tmp_path / "file.bin").write_bytes(bytes(100_000))
    url = serve(tmp_path, ranges=False).url
    for attempt in (lambda: files.read_range(f"{url}/file.bin", 5, 5), lambda: files.open_seekable(f"{url}/file.bin")):
        with pytest.raises(ValueError, match="does not send parts"):
            attempt()


def test_a_network_that_fails_now_and_then_is_asked_again(tmp_path, serve, impatient):
    (tmp_path / "file.bin").write_bytes(b"abcdef")
    server = serve(tmp_path)
    server.failures = 3
    assert files.read_range(f"{server.url}/file.bin", 2, 2) == b"cd"
    server.failures = 100
    with pytest.raises(files.Unreachable, match="tried 5 times"):
        files.read(f"{server.url}/file.bin")


def test_what_a_server_forbids_is_not_asked_again(tmp_path, serve):
    server = serve(tmp_path)
    server.failures, server.status = 100, 403
    with pytest.raises(PermissionError, match="403"):
        files.read(f"{server.url}/file.bin")
    assert server.failures == 99


def test_folders_are_listed_with_their_sub_folders(tmp_path, write, serve):
    names = ["b.png", "a.jpg", "sub/c.JPG", "sub/deep/d.jpg", "note.txt", ".hidden.jpg", ".folder/e.jpg"]
    write(tmp_path, dict.fromkeys(names, b"x"))
    expected = ["a.jpg", "b.png", "sub/c.JPG", "sub/deep/d.jpg"]
    assert files.names_in(str(tmp_path), files.PICTURES) == expected
    assert files.names_in(serve(tmp_path).url, files.PICTURES) == expected
    assert files.names_in(str(tmp_path), {".txt"}) == ["note.txt"]


def test_links_are_followed_but_not_in_circles(tmp_path, write):
    write(tmp_path, {"real/a.jpg": b"x", "root/b.jpg": b"x"})
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "root" / "circle").symlink_to(tmp_path / "root")
    assert files.names_in(str(tmp_path / "root"), {".jpg"}) == ["b.jpg", "linked/a.jpg"]


def test_other_file_systems_are_fsspecs(monkeypatch):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/bucket/set/a.jpg": b"abc", "/bucket/set/sub/b.jpg": b"def"})
    try:
        assert files.names_in("memory://bucket/set", {".jpg"}) == ["a.jpg", "sub/b.jpg"]
        assert files.read("memory://bucket/set/sub/b.jpg") == b"def"
        assert files.read_range("memory://bucket/set/a.jpg", 1, 1) == b"b"
        assert files.state("memory://bucket/set/a.jpg")[0] == 3
        with files.open_seekable("memory://bucket/set/a.jpg") as file:
            file.seek(2)
            assert file.read() == b"c"
    finally:
        memory.rm("/bucket", recursive=True)


def test_endings_are_those_of_the_path():
    assert files.ending("a/b.JPG") == ".jpg"
    assert files.ending("https://host/a.tar?signature=x.y") == ".tar"
    assert files.ending("https://host/folder") == ""
