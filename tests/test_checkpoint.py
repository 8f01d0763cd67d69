"""The native checkpoint: exact, checked, placed where it is asked for, all or nothing."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_models import SMALL, random_params

from samjax import VARIANTS, checkpoint
from samjax.checkpoint import CheckpointError


def assert_identical(a, b):
    for (path, x), (other, y) in zip(jax.tree.leaves_with_path(a), jax.tree.leaves_with_path(b), strict=True):
        assert path == other
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def params():
    return random_params(SMALL)


@pytest.fixture(scope="module")
def pristine(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "sam"
    checkpoint.save(folder, SMALL, params, {"source": "a test"})
    return folder


@pytest.fixture
def saved(pristine, tmp_path):
    """A copy to damage."""
    import shutil

    return shutil.copytree(pristine, tmp_path / "sam")


def test_what_is_saved_is_restored_exactly_as_arrays_on_the_device(pristine, params):
    config, restored = checkpoint.restore(pristine)
    assert config == SMALL
    assert_identical(restored, params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


def test_jax_arrays_and_numpy_arrays_give_the_same_checksum(params, pristine, tmp_path):
    checksum = checkpoint.save(tmp_path / "jax", SMALL, jax.tree.map(jnp.asarray, params))
    assert checksum == checkpoint.describe(pristine).checksum


def test_orbax_itself_can_restore_the_arrays(pristine, params):
    import orbax.checkpoint as ocp

    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), params)
    with ocp.StandardCheckpointer() as checkpointer:
        assert_identical(checkpointer.restore(pristine / "arrays", abstract), params)


def test_a_description_needs_no_arrays(saved, params):
    import shutil

    shutil.rmtree(saved / "arrays")
    described = checkpoint.describe(saved)
    assert (described.format, described.config, described.variant) == ("native", SMALL, "custom")
    assert described.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert described.dtypes == ("float32",)
    assert described.provenance["source"] == "a test"
    assert {"date", "samjax_version"} <= described.provenance.keys()


def test_restoring_casts(pristine, params):
    _, restored = checkpoint.restore(pristine, dtype=jnp.bfloat16)
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    fourier = params["prompt_encoder"]["pe_layer"]
    expected["prompt_encoder"]["pe_layer"] = fourier  # coordinates need float32
    assert set(fourier) == {"positional_encoding_gaussian_matrix"}
    assert_identical(restored, expected)


def test_arrays_are_placed_on_the_shards_that_are_asked_for(pristine, params, run_python):
    """On four devices: one sharding for all, and one for each parameter."""
    output = run_python(
        f"""
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from samjax import checkpoint
mesh = jax.make_mesh((4,), ("x",))
_, replicated = checkpoint.restore({str(pristine)!r}, sharding=NamedSharding(mesh, P()))
def choose(name, leaf):
    assert name.startswith(("image_encoder/", "prompt_encoder/", "mask_decoder/"))
    rows = leaf.shape and leaf.shape[0] % 4 == 0
    return NamedSharding(mesh, P("x") if rows else P())
_, sharded = checkpoint.restore({str(pristine)!r}, sharding=choose)
for a, b in zip(jax.tree.leaves(replicated), jax.tree.leaves(sharded), strict=True):
    np.testing.assert_array_equal(a, b)
kernel = sharded["image_encoder"]["blocks"]["0"]["attn"]["qkv"]["kernel"]
print(kernel.shape, [shard.data.shape for shard in kernel.addressable_shards])
""",
        XLA_FLAGS="--xla_force_host_platform_device_count=4",
        JAX_PLATFORMS="cpu",
    )
    assert output.strip() == "(48, 144) [(12, 144), (12, 144), (12, 144), (12, 144)]"


def test_parameters_that_do_not_fit_the_configuration_are_not_saved(params, tmp_path):
    with pytest.raises(CheckpointError, match="misshaped"):
        checkpoint.save(tmp_path / "sam", VARIANTS["vit_tiny"], params)
    with pytest.raises(CheckpointError, match=r"missing \(\d+\):\n    mask_decoder"):
        checkpoint.save(tmp_path / "sam", SMALL, {name: params[name] for name in ("image_encoder", "prompt_encoder")})
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept_unless_overwriting_is_asked_for(saved, params):
    with pytest.raises(FileExistsError, match="exists already"):
        checkpoint.save(saved, SMALL, params)
    before = checkpoint.describe(saved).checksum
    checkpoint.save(saved, SMALL, jax.tree.map(lambda leaf: leaf + 1, params), overwrite=True)
    assert checkpoint.describe(saved).checksum != before
    assert [file.name for file in saved.parent.iterdir()] == ["sam"]


def test_a_failed_overwrite_keeps_the_old_checkpoint(saved, params):
    def fail():
        raise OSError("disk full")

    broken = jax.tree.map(lambda leaf: checkpoint.LazyArray(leaf.shape, leaf.dtype, fail), params)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(saved, SMALL, broken, overwrite=True)
    assert_identical(checkpoint.restore(saved)[1], params)
    assert [file.name for file in saved.parent.iterdir()] == ["sam"]


def test_a_folder_without_manifest_is_no_checkpoint(saved):
    (saved / "samjax.json").unlink()
    with pytest.raises(CheckpointError, match="no native checkpoint"):
        checkpoint.restore(saved)


def test_a_manifest_that_cannot_be_read_says_why(saved):
    (saved / "samjax.json").unlink()
    (saved / "samjax.json").mkdir()
    with pytest.raises(CheckpointError, match=r"samjax\.json cannot be read: Is a directory"):
        checkpoint.restore(saved)


NATIVE = ["samjax.json", "arrays/"]
HUGGING_FACE = ["config.json", "preprocessor_config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("names", "foreign"),
    [
        ([], []),
        (NATIVE, []),
        (HUGGING_FACE, []),
        (["config.json", "pytorch_model.bin"], []),
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"], []),
        ([*NATIVE, "thesis.txt"], ["thesis.txt"]),
        ([*HUGGING_FACE, "thesis.txt", ".git/"], [".git", "thesis.txt"]),
        ([*NATIVE, "config.json"], ["config.json"]),
        (["config.json"], ["config.json"]),  # of any program
        (["arrays/"], ["arrays"]),
        (["samjax.json", "arrays"], ["arrays"]),
        (["model.safetensors", "config.json/"], ["config.json"]),
        (["model.safetensors", "model_of_mine.safetensors"], ["model_of_mine.safetensors"]),
    ],
)
def test_a_checkpoint_folder_is_known_from_a_folder_of_other_things(names, foreign, tmp_path):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    assert sorted(checkpoint.foreign_to_checkpoints(tmp_path)) == foreign


def test_overwriting_spares_a_folder_that_is_no_checkpoint(saved, params):
    (saved / "thesis.txt").write_text("three years")
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        checkpoint.save(saved, SMALL, params, overwrite=True)
    assert (saved / "thesis.txt").read_text() == "three years"
    assert_identical(checkpoint.restore(saved)[1], params)


def edit(saved, **changes):
    manifest = json.loads((saved / "samjax.json").read_text())
    (saved / "samjax.json").write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"checksum": "0" * 64}, "checksum does not fit"),
        ({"parameters": {}}, "checksum does not fit"),
        ({"parameters": None}, "is damaged"),
        ({"config": {"image_encoder": {"wings": 2}}}, "no field 'wings'"),
        ({"config": {"image_encoder": {"width": 7}}}, "is damaged"),
        ({"config": []}, "is damaged"),
        ({"config": {}}, "do not fit a vit_b"),
    ],
)
def test_a_changed_manifest_is_refused(changes, problem, saved):
    edit(saved, **changes)
    with pytest.raises(CheckpointError, match=problem):
        checkpoint.restore(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(content, saved):
    (saved / "samjax.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.restore(saved)


def array_files(saved):
    files = [file for file in (saved / "arrays").rglob("*") if file.is_file() and file.stat().st_size]
    return sorted(files, key=lambda file: file.stat().st_size)


def test_missing_arrays_are_refused(saved):
    array_files(saved)[-1].unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.restore(saved)


def test_truncated_arrays_are_refused(saved):
    largest = array_files(saved)[-1]
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.restore(saved)


def test_one_flipped_bit_is_found(saved):
    largest = array_files(saved)[-1]
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged, its checksum differs"):
        checkpoint.restore(saved)


def test_younger_fields_are_in_the_manifest_only_where_they_say_something(pristine, tmp_path):
    """So that a samjax of before reads what it can compute, and what it wrote is read."""
    config = json.loads((pristine / "samjax.json").read_text())["config"]
    assert not {"adapter", "channels"} & set(config["image_encoder"])
    assert "hq" not in config["mask_decoder"]
    checkpoint.save(tmp_path / "hq", SMALL.with_hq(), random_params(SMALL.with_hq()))
    assert json.loads((tmp_path / "hq" / "samjax.json").read_text())["config"]["mask_decoder"]["hq"] is True
    assert checkpoint.restore(tmp_path / "hq")[0] == SMALL.with_hq()
