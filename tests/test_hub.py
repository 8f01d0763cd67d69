"""Models by name and by path."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_compiling import compiled_programs
from example_models import SMALL, random_params, random_photo
from example_server import NAME, serving

from samjax import Prompts, checkpoint, convert, hub
from samjax.checkpoint import CheckpointError
from samjax.model import jitted_encode

KEY = "small"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "sam.pth"
    convert.write(path, SMALL, random_params(SMALL))
    return path.read_bytes()


@pytest.fixture
def server(content):
    with serving(content) as server:
        yield server


@pytest.fixture
def files(server):
    return {KEY: server.file}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names(folder):
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def test_a_name_is_fetched_once_into_the_cache(files, server, cache, capfd):
    sam = hub.load(KEY, files=files)
    assert sam.config == SMALL
    assert names(cache) == [NAME]
    assert "100%" in capfd.readouterr().err  # the progress bar
    hub.load(KEY, files=files)
    assert server.ranges == [None]


def test_loading_a_model_compiles_nothing():
    """A program for each shape would take longer than reading the file."""
    loaded = []
    assert compiled_programs(lambda: loaded.append(hub.load())) == []
    photo = random_photo(60, 90)
    jitted_encode.clear_cache()  # of what other tests have compiled
    assert compiled_programs(lambda: loaded[0].encode(photo)) == ["encode"]


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(files, cache):
    wrong = {KEY: dataclasses.replace(files[KEY], sha256="0" * 64)}
    with pytest.raises(CheckpointError, match="another file than the official one"):
        hub.load(KEY, files=wrong)
    assert names(cache) == []


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
