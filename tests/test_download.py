"""Files are fetched once, checked and resumed; against a real HTTP server on this machine."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from example_server import NAME, serving

import samjax.download
from samjax.download import ChecksumMismatch, DownloadError, RemoteFile, cache_dir, download

CHUNK = 65536  # what has arrived is kept in whole chunks
PART = f"{NAME}.part"


@pytest.fixture(scope="module")
def content() -> bytes:
    """Six chunks and some more, which no compression makes smaller."""
    return np.random.default_rng(0).bytes(400_000)


@pytest.fixture
def server(content):
    with serving(content) as server:
        yield server


@pytest.fixture
def file(server) -> RemoteFile:
    return server.file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


# Once


def test_a_file_is_fetched_once_under_the_last_part_of_its_url(file, server, cache, content):
    assert download(file) == download(file) == cache / NAME
    assert (cache / NAME).read_bytes() == content
    assert names(cache) == [NAME]
    assert server.ranges == [None]


def test_the_bar_of_a_download_is_shown_unless_it_is_not_wanted(file, cache, capfd):
    download(file, progress=False)
    assert not capfd.readouterr().err
    (cache / NAME).unlink()
    download(file)
    assert "100%" in capfd.readouterr().err


def test_without_network_the_cached_file_is_enough(file, server, cache):
    path = download(file)
    server.shutdown()
    server.server_close()
    assert download(file) == path


def test_the_cache_folder_follows_the_environment(cache, monkeypatch):
    assert cache_dir() == cache
    monkeypatch.delenv("SAMJAX_CACHE")
    assert cache_dir().name == "samjax"


def test_the_cache_folder_may_be_below_the_home_folder(monkeypatch):
    monkeypatch.setenv("SAMJAX_CACHE", "~/models")
    assert cache_dir() == Path.home() / "models"


# Resumed


def test_a_dropped_connection_is_taken_up_where_it_broke(file, server, cache, content):
    server.drop_after = [70_000, 80_000]
    assert download(file).read_bytes() == content
    assert server.ranges == [None, f"bytes={CHUNK}-", f"bytes={2 * CHUNK}-"]
    assert names(cache) == [NAME]


def test_an_interrupted_download_goes_on_at_the_next_call(file, server, cache, content):
    server.drop_after = [70_000, 0]
    with pytest.raises(DownloadError, match=f"{CHUNK} bytes are kept, call again to resume"):
        download(file)
    assert names(cache) == [PART]
    assert download(file).read_bytes() == content
    assert server.ranges == [None, f"bytes={CHUNK}-", f"bytes={CHUNK}-"]


def test_after_five_dropped_connections_a_call_gives_up_and_keeps_what_came(file, server, cache, content):
    server.drop_after = [70_000] * 5
    with pytest.raises(DownloadError, match=f"{5 * CHUNK} bytes are kept"):
        download(file)
    assert (cache / PART).read_bytes() == content[: 5 * CHUNK]
    assert download(file).read_bytes() == content
    assert server.ranges[5:] == [f"bytes={5 * CHUNK}-"]


def test_ranges_count_the_bytes_of_the_file_and_not_of_a_compression(file, server):
    server.drop_after = [70_000]
    download(file)
    assert server.encodings == ["identity", "identity"]


def test_a_server_that_ignores_ranges_is_understood(file, server, content):
    server.knows_ranges = False
    server.drop_after = [70_000]
    assert download(file).read_bytes() == content


@pytest.mark.parametrize("more", [b"", b"more"], ids=["as long", "longer"])
def test_a_part_that_is_not_shorter_than_the_file_starts_anew(file, cache, content, more):
    cache.mkdir()
    (cache / PART).write_bytes(content + more)
    assert download(file).read_bytes() == content


def test_the_last_attempt_may_find_too_long_a_part(file, cache, content, monkeypatch):
    monkeypatch.setattr(samjax.download, "_ATTEMPTS", 1)
    cache.mkdir()
    (cache / PART).write_bytes(content + b"more")
    with pytest.raises(DownloadError, match="answers 416"):
        download(file)
    assert download(file).read_bytes() == content


# Compared with the checksum


def test_a_part_of_another_file_is_found_by_the_checksum_and_dropped(file, cache, content):
    cache.mkdir()
    (cache / PART).write_bytes(b"x" * 1000)
    with pytest.raises(ChecksumMismatch, match="another file than the official one"):
        download(file)
    assert names(cache) == []
    assert download(file).read_bytes() == content


def test_a_damaged_file_in_the_cache_is_fetched_again(file, cache, content):
    cache.mkdir()
    (cache / NAME).write_bytes(b"damaged")
    assert download(file).read_bytes() == content


# Refused


def test_a_missing_file_on_the_server_says_what_to_put_where(file, cache):
    missing = dataclasses.replace(file, url=file.url.replace("small", "gone"))
    with pytest.raises(DownloadError, match="answers 404") as caught:
        download(missing)
    assert str(cache / "sam_gone.pth") in str(caught.value)
    assert "SAMJAX_CACHE" in str(caught.value)
    assert names(cache) == []


def test_no_network_says_what_to_put_where(file, server, cache, content):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="ConnectionError") as caught:
        download(file)
    assert str(cache / NAME) in str(caught.value)
    assert file.url in str(caught.value)
    assert names(cache) == []
    (cache / NAME).write_bytes(content)  # doing so helps
    assert download(file) == cache / NAME


def test_without_network_a_damaged_file_in_the_cache_is_named(file, server, cache, capfd):
    server.shutdown()
    server.server_close()
    cache.mkdir()
    (cache / NAME).write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="could not be fetched") as caught:
        download(file)
    found = hashlib.sha256(b"damaged").hexdigest()
    assert str(caught.value).startswith(
        f"{cache / NAME} is there, but its sha256 is {found}, expected {file.sha256}: it is damaged"
    )
    assert names(cache) == [NAME]
    assert not capfd.readouterr().err  # no bar of a download that never began


def test_a_cache_that_cannot_be_made_is_named(file, cache):
    cache.write_text("a file")
    with pytest.raises(DownloadError, match="SAMJAX_CACHE"):
        download(file)


# Beside other processes


def test_a_part_at_which_another_process_works_is_left_to_it(file, server, cache, content):
    fcntl = pytest.importorskip("fcntl")
    cache.mkdir()
    part = cache / PART
    with part.open("ab") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        theirs.write(b"half")
        theirs.flush()
        server.drop_after = [70_000, 0]
        with pytest.raises(DownloadError):
            download(file)
        assert names(cache) == [PART]
        server.drop_after = [70_000]
        assert download(file).read_bytes() == content
        assert part.read_bytes() == b"half"


def test_a_part_that_another_process_has_just_finished_is_not_written_to(file, cache, content, monkeypatch):
    """Between opening and locking it."""
    fcntl = pytest.importorskip("fcntl")
    theirs = cache / "theirs"
    monkeypatch.setattr(fcntl, "flock", lambda *_: (cache / PART).rename(theirs))
    assert download(file).read_bytes() == content
    assert theirs.read_bytes() == b""
    assert names(cache) == [NAME, "theirs"]


def test_a_file_system_without_locks_is_good_enough(file, server, cache, content, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    server.drop_after = [70_000, 0]
    with pytest.raises(DownloadError, match=f"{CHUNK} bytes are kept"):
        download(file)
    assert download(file).read_bytes() == content
