"""Models by name: fetched once, checked, resumed; against a real HTTP server on this machine."""

import dataclasses
import hashlib
import http.server
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_params, random_photo

from samjax import Prompts, checkpoint, convert, download, hub
from samjax.checkpoint import CheckpointError
from samjax.download import DownloadError, RemoteFile, cache_dir

KEY = "small"


class Server(http.server.ThreadingHTTPServer):
    """Serves one file and remembers each request's range; can drop connections and ignore ranges."""

    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.drop_after = []  # bytes to send before hanging up, one entry per request
        self.ranges = []
        self.knows_ranges = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/sam_small.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        if self.path != "/sam_small.pth":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.knows_ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.drop_after.pop(0)] if server.drop_after else body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "sam.pth"
    convert.write(path, SMALL, random_params(SMALL))
    return path.read_bytes()


@pytest.fixture
def server(content):
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def files(server, content):
    return {KEY: RemoteFile(server.url, hashlib.sha256(content).hexdigest())}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names(folder):
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def test_a_name_is_fetched_once_into_the_cache(files, server, cache, capfd):
    sam = hub.load(KEY, files=files)
    assert sam.config == SMALL
    assert names(cache) == ["sam_small.pth"]
    assert "100%" in capfd.readouterr().err  # the progress bar
    hub.load(KEY, files=files)
    assert server.ranges == [None]


def test_without_network_the_cached_file_is_enough(files, server, cache):
    path = hub.locate(KEY, files=files)
    server.shutdown()
    assert hub.locate(KEY, files=files) == path


def test_a_dropped_connection_is_taken_up_where_it_broke(files, server, cache, content):
    server.drop_after = [70_000, 80_000]
    path = hub.locate(KEY, files=files)
    assert path.read_bytes() == content
    assert server.ranges == [None, "bytes=65536-", "bytes=131072-"]  # whole chunks of 64 kB
    assert names(cache) == ["sam_small.pth"]


def test_an_interrupted_download_goes_on_at_the_next_call(files, server, cache, content):
    server.drop_after = [70_000, 0]
    with pytest.raises(DownloadError, match="65536 bytes are kept, call again to resume"):
        hub.locate(KEY, files=files)
    assert names(cache) == ["sam_small.pth.part"]
    assert hub.locate(KEY, files=files).read_bytes() == content
    assert server.ranges == [None, "bytes=65536-", "bytes=65536-"]


def test_a_server_that_ignores_ranges_is_understood(files, server, cache, content):
    server.knows_ranges = False
    server.drop_after = [70_000]
    assert hub.locate(KEY, files=files).read_bytes() == content


def test_a_part_that_is_longer_than_the_file_starts_anew(files, server, cache, content):
    cache.mkdir()
    (cache / "sam_small.pth.part").write_bytes(content + b"more")
    assert hub.locate(KEY, files=files).read_bytes() == content


def test_a_part_of_another_file_is_found_by_the_checksum_and_dropped(files, server, cache, content):
    cache.mkdir()
    (cache / "sam_small.pth.part").write_bytes(b"x" * 1000)
    with pytest.raises(CheckpointError, match="another file than the official one"):
        hub.locate(KEY, files=files)
    assert names(cache) == []
    assert hub.locate(KEY, files=files).read_bytes() == content


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(files, cache):
    wrong = {KEY: dataclasses.replace(files[KEY], sha256="0" * 64)}
    with pytest.raises(CheckpointError, match="another file than the official one"):
        hub.load(KEY, files=wrong)
    assert names(cache) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(files, cache, content):
    cache.mkdir()
    (cache / "sam_small.pth").write_bytes(b"damaged")
    assert hub.locate(KEY, files=files).read_bytes() == content


def test_a_missing_file_on_the_server_says_what_to_put_where(files, cache):
    missing = {KEY: dataclasses.replace(files[KEY], url=files[KEY].url.replace("small", "gone"))}
    with pytest.raises(DownloadError, match="answers 404") as caught:
        hub.load(KEY, files=missing)
    assert str(cache / "sam_gone.pth") in str(caught.value)
    assert "SAMJAX_CACHE" in str(caught.value)
    assert names(cache) == []


def test_no_network_says_what_to_put_where(files, server, cache, content):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="ConnectionError") as caught:
        hub.load(KEY, files=files)
    assert str(cache / "sam_small.pth") in str(caught.value)
    assert files[KEY].url in str(caught.value)
    assert names(cache) == []
    (cache / "sam_small.pth").write_bytes(content)  # doing so helps
    assert hub.load(KEY, files=files).config == SMALL


def test_without_network_a_damaged_file_in_the_cache_is_named(files, server, cache, capfd):
    server.shutdown()
    server.server_close()
    cache.mkdir()
    (cache / "sam_small.pth").write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="could not be fetched") as caught:
        hub.load(KEY, files=files)
    found = hashlib.sha256(b"damaged").hexdigest()
    assert str(caught.value).startswith(
        f"{cache / 'sam_small.pth'} is there, but its sha256 is {found}, expected {files[KEY].sha256}: it is damaged"
    )
    assert names(cache) == ["sam_small.pth"]
    assert not capfd.readouterr().err  # no bar of a download that never began


def test_the_last_attempt_may_find_too_long_a_part(files, cache, content, monkeypatch):
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    cache.mkdir()
    (cache / "sam_small.pth.part").write_bytes(content + b"more")
    with pytest.raises(DownloadError, match="answers 416"):
        hub.locate(KEY, files=files)
    assert hub.locate(KEY, files=files).read_bytes() == content


def test_a_part_at_which_another_process_works_is_left_to_it(files, server, cache, content):
    fcntl = pytest.importorskip("fcntl")
    cache.mkdir()
    part = cache / "sam_small.pth.part"
    with part.open("ab") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        theirs.write(b"half")
        theirs.flush()
        server.drop_after = [70_000, 0]
        with pytest.raises(DownloadError):
            hub.locate(KEY, files=files)
        assert names(cache) == ["sam_small.pth.part"]
        server.drop_after = [70_000]
        assert hub.locate(KEY, files=files).read_bytes() == content
        assert part.read_bytes() == b"half"


def test_a_cache_that_cannot_be_made_is_named(files, cache):
    cache.write_text("a file")
    with pytest.raises(DownloadError, match="SAMJAX_CACHE"):
        hub.load(KEY, files=files)


def test_the_cache_folder_follows_the_environment(cache, monkeypatch):
    assert cache_dir() == cache
    monkeypatch.delenv("SAMJAX_CACHE")
    assert cache_dir().name == "samjax"


def test_the_official_files_are_metas():
    assert {name: file.url.rsplit("/", 1)[-1] for name, file in hub.OFFICIAL.items()} == {
        "vit_b": "sam_vit_b_01ec64.pth",
        "vit_l": "sam_vit_l_0b3195.pth",
        "vit_h": "sam_vit_h_4b8939.pth",
    }
    for file in hub.OFFICIAL.values():
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.url.startswith("https://dl.fbaipublicfiles.com/segment_anything/")


def test_a_file_of_another_variant_than_asked_for_is_refused(files):
    with pytest.raises(CheckpointError, match=r"vit_l was asked for, but .* holds a custom"):
        hub.load("vit_l", files={"vit_l": files[KEY]})


def test_a_name_that_a_file_has_too_is_asked_about(files, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no file or folder small; the known name is the string 'small'"):
        hub.locate(Path(KEY), files=files)
    Path(KEY).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"small is both a known name and .* say \./small"):
        hub.locate(KEY, files=files)
    for path in (Path(KEY), f"./{KEY}", str(tmp_path / KEY)):
        assert Path(hub.locate(path, files=files)).samefile(tmp_path / KEY)


def test_unknown_names_list_the_known_ones_and_the_nearest():
    with pytest.raises(CheckpointError, match=r"\(samjax-tiny, vit_b, vit_l, vit_h\); did you mean 'vit_h'\?"):
        hub.load("vit-h")
    with pytest.raises(CheckpointError, match=r"nowhere/sam\.pth' is neither a file or folder nor a known name"):
        hub.load("nowhere/sam.pth")


@pytest.mark.parametrize("name", ["sam.pth", "sam.safetensors", "native", "folder"])
def test_any_checkpoint_is_loaded_by_its_path(name, content, tmp_path):
    (tmp_path / "source.pth").write_bytes(content)
    convert.convert(tmp_path / "source.pth", tmp_path / name, "huggingface" if name == "folder" else None)
    sam = hub.load(tmp_path / name)
    assert sam.config == SMALL
    jax.tree.map(np.testing.assert_array_equal, sam.params, random_params(SMALL))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(sam.params))
    half = hub.load(str(tmp_path / name), dtype=jnp.bfloat16)
    matrix = half.params["prompt_encoder"].pop("pe_layer")["positional_encoding_gaussian_matrix"]
    assert matrix.dtype == jnp.float32
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half.params)} == {"bfloat16"}


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_parameters_predict(dtype, compute, content, tmp_path):
    (tmp_path / "sam.pth").write_bytes(content)
    photo = random_photo(60, 90)
    prompts = Prompts.of(points=[[(30, 20)], [(50, 40)]])
    answers = []
    for sam in (hub.load(tmp_path / "sam.pth"), hub.load(tmp_path / "sam.pth", dtype=dtype).with_dtype(compute)):
        answers.append(np.asarray(sam.predict(sam.encode(photo), prompts).logits, np.float32))
    exact, rounded = answers
    assert 0 < np.abs(rounded - exact).max() < 0.2 * np.abs(exact).max()


@pytest.mark.parametrize("dtype", ["int8", "float64", np.float64, "half a byte", object(), bool])
def test_other_dtypes_of_parameters_are_refused(dtype, cache):
    with pytest.raises(ValueError, match="must be one of float32, bfloat16, float16, or None"):
        hub.load(KEY, dtype=dtype)


def test_loading_places_every_parameter_by_the_sharding_that_is_asked_for(content, tmp_path):
    (tmp_path / "sam.pth").write_bytes(content)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    asked = []

    def choose(name, leaf):
        asked.append((name, leaf.shape))
        return device

    sam = hub.load(tmp_path / "sam.pth", sharding=choose)
    assert len(asked) == len(jax.tree.leaves(sam.params))
    assert ("image_encoder/pos_embed", (1, 8, 8, 48)) in asked


def test_loading_resamples_to_another_image_size(content, tmp_path):
    (tmp_path / "sam.pth").write_bytes(content)
    sam = hub.load(tmp_path / "sam.pth", image_size=(96, 128))
    assert hub.load(tmp_path / "sam.pth", image_size=[96, 128]).config == sam.config
    assert sam.config == SMALL.with_image_size((96, 128))
    checkpoint.check_names(
        sam.config,
        {"/".join(key.key for key in path): leaf.shape for path, leaf in jax.tree.leaves_with_path(sam.params)},
    )


def test_importing_the_hub_costs_no_heavy_import(run_python):
    loaded = run_python("import samjax.hub, sys; print(*sorted(sys.modules))").split()
    assert not {"orbax", "pooch", "requests", "safetensors", "tensorstore", "torch"} & set(loaded)
