"""Every format to every other: the same configuration, the same bytes."""

import dataclasses
import itertools
import json

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from example_models import SMALL, random_params
from flax.traverse_util import flatten_dict, unflatten_dict

from samjax import VARIANTS, checkpoint, convert, hub
from samjax.checkpoint import CheckpointError
from samjax.config import MaskThresholds

FORMATS = {"pth": "sam.pth", "safetensors": "sam.safetensors", "huggingface": "folder", "native": "native"}


def target(name):
    return name if name in ("huggingface", "native") else "meta"


def assert_identical(a, b):
    a, b = flatten_dict(a, sep="/"), flatten_dict(b, sep="/")
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].shape, a[name].dtype) == (b[name].shape, b[name].dtype), name
        assert np.asarray(a[name]).tobytes() == np.asarray(b[name]).tobytes(), name


@pytest.fixture(scope="module")
def params():
    """One parameter in each of the three dtypes' turn, so that no format may assume one for all."""
    leaves = flatten_dict(random_params(SMALL), sep="/")
    dtypes = itertools.cycle([np.float32, np.float16, ml_dtypes.bfloat16])
    return unflatten_dict({name: leaf.astype(next(dtypes)) for name, leaf in leaves.items()}, sep="/")


@pytest.fixture(scope="module")
def written(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    for name, file in FORMATS.items():
        convert.write(folder / file, SMALL, params, to=target(name))
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read_back_bit_for_bit(name, written, params):
    config, read = convert.read(written / FORMATS[name])
    assert config == SMALL
    assert_identical(read, params)


@pytest.mark.parametrize(("source", "destination"), list(itertools.permutations(FORMATS, 2)))
def test_every_conversion_keeps_every_bit(source, destination, written, params, tmp_path):
    described = convert.convert(written / FORMATS[source], tmp_path / FORMATS[destination], target(destination))
    config, read = convert.read(tmp_path / FORMATS[destination])
    assert config == SMALL == described.config
    assert_identical(read, params)


def test_the_same_parameters_have_the_same_checksum_in_every_format(written):
    assert len({convert.describe(written / file).checksum for file in FORMATS.values()}) == 1


def test_a_changed_bit_changes_the_checksum(written, params, tmp_path):
    changed = jax.tree.map(np.copy, params)
    changed["mask_decoder"]["iou_token"]["embedding"].view(np.uint8)[0, 0] ^= 1
    convert.write(tmp_path / "sam.pth", SMALL, changed)
    assert convert.describe(tmp_path / "sam.pth").checksum != convert.describe(written / "sam.pth").checksum


def test_a_description_says_what_is_inside(written):
    described = convert.describe(written / "sam.pth")
    assert described.format == "meta"
    assert described.variant == "custom"
    assert described.dtypes == ("bfloat16", "float16", "float32")
    assert described.parameters == sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(random_params(SMALL)))
    assert described.provenance["source"] == "sam.pth"


def test_a_native_checkpoint_remembers_its_source(written, tmp_path):
    convert.convert(written / "sam.pth", tmp_path / "first")
    convert.convert(tmp_path / "first", tmp_path / "second")
    provenance = convert.describe(tmp_path / "second").provenance
    assert provenance["source"] == "sam.pth"
    assert provenance["source_sha256"] == convert.describe(written / "sam.pth").provenance["source_sha256"]


def test_parameters_can_be_placed_one_by_one(written, params):
    _, shapes = convert.read(written / "sam.pth", place=lambda name, array: (name, array.shape))
    assert shapes["image_encoder"]["pos_embed"] == ("image_encoder/pos_embed", (1, 8, 8, 48))


def test_nothing_is_written_where_parameters_do_not_fit(params, tmp_path):
    for name in FORMATS:
        with pytest.raises(CheckpointError, match="misshaped"):
            convert.write(tmp_path / FORMATS[name], VARIANTS["vit_tiny"], params, to=target(name))
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept_unless_overwriting_is_asked_for(params, tmp_path):
    (tmp_path / "sam.pth").write_text("precious")
    with pytest.raises(FileExistsError, match="exists already"):
        convert.write(tmp_path / "sam.pth", SMALL, params)
    assert (tmp_path / "sam.pth").read_text() == "precious"
    convert.write(tmp_path / "sam.pth", SMALL, params, overwrite=True)
    assert convert.read(tmp_path / "sam.pth")[0] == SMALL
    assert [file.name for file in tmp_path.iterdir()] == ["sam.pth"]


@pytest.mark.parametrize("to", ["native", "huggingface"])
def test_a_folder_of_other_things_is_never_overwritten(to, params, tmp_path):
    convert.write(tmp_path / "sam.pth", SMALL, params)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("three years")
    with pytest.raises(FileExistsError, match=r"other things .*\(thesis\.txt\)"):
        convert.convert(tmp_path / "sam.pth", tmp_path / "precious", to, overwrite=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "three years"


def test_a_conversion_never_overwrites_its_source(params, tmp_path):
    folder = tmp_path / "folder"
    convert.write(folder, SMALL, params, to="huggingface")
    (tmp_path / "link.safetensors").symlink_to(folder / "model.safetensors")
    for source, destination, problem in (
        (folder, folder, "is the source itself"),
        (folder, tmp_path / "." / "folder", "is the source itself"),
        (folder / "model.safetensors", folder, "holds the source"),
        (tmp_path / "link.safetensors", folder, "holds the source"),
        (folder / "model.safetensors", tmp_path / "link.safetensors", "is the source itself"),
    ):
        with pytest.raises(FileExistsError, match=problem):
            convert.convert(source, destination, overwrite=True)
    assert_identical(convert.read(folder)[1], params)
    convert.convert(folder, tmp_path / "other", "huggingface")
    convert.convert(folder, tmp_path / "other", overwrite=True)  # one checkpoint folder for another
    assert_identical(convert.read(tmp_path / "other")[1], params)


def test_a_failure_while_writing_leaves_nothing_behind(params, tmp_path):
    def fail():
        raise OSError("disk full")

    broken = jax.tree.map(lambda leaf: checkpoint.LazyArray(leaf.shape, leaf.dtype, fail), params)
    for name in FORMATS:
        with pytest.raises(OSError, match="disk full"):
            convert.write(tmp_path / FORMATS[name], SMALL, broken, to=target(name))
    assert not list(tmp_path.iterdir())


def test_an_unknown_ending_asks_for_the_format(params, tmp_path):
    with pytest.raises(CheckpointError, match=r"no format has the ending '\.npz'"):
        convert.write(tmp_path / "sam.npz", SMALL, params)


def test_hugging_face_takes_square_images_only(tmp_path):
    config = SMALL.with_image_size((64, 96))
    with pytest.raises(CheckpointError, match="square images only"):
        convert.write(tmp_path / "folder", config, random_params(config), to="huggingface")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folder(params, tmp_path):
    convert.write(tmp_path / "folder", SMALL, params, to="huggingface")
    return tmp_path / "folder"


def test_a_single_file_of_a_hugging_face_folder_is_enough(folder, params, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "alone.safetensors")
    assert_identical(convert.read(tmp_path / "alone.safetensors")[1], params)


def test_sharded_hugging_face_folders_are_read(folder, params):
    from samjax.convert.safetensors_file import read_safetensors, write_safetensors

    tensors = read_safetensors(folder / "model.safetensors")
    parts = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for name, shard in zip(tensors, itertools.cycle(parts), strict=False):
        parts[shard][name] = tensors[name]
    for shard, inside in parts.items():
        write_safetensors(folder / shard, inside, {})
    (folder / "model.safetensors").unlink()
    index = {name: shard for shard, inside in parts.items() for name in inside}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    config, read = convert.read(folder)
    assert config == SMALL
    assert_identical(read, params)

    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="not beside it"):
        convert.read(folder)


def test_decoder_heads_come_from_the_hugging_face_config(folder):
    content = json.loads((folder / "config.json").read_text())
    content["mask_decoder_config"]["num_attention_heads"] = 4
    (folder / "config.json").write_text(json.dumps(content))
    assert convert.read(folder)[0].mask_decoder.heads == 4


def test_a_hugging_face_config_that_contradicts_the_shapes_is_refused(folder):
    content = json.loads((folder / "config.json").read_text())
    content["vision_config"]["hidden_act"] = "relu"
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"vision_config\.hidden_act = relu, the parameters gelu"):
        convert.read(folder)


def test_both_names_of_the_tied_fourier_matrix_must_agree(folder, tmp_path):
    from samjax.checkpoint import lazy
    from samjax.convert.mapping import FOURIER, TIED
    from samjax.convert.safetensors_file import read_safetensors, write_safetensors

    tensors = read_safetensors(folder / "model.safetensors")
    matrix = tensors[FOURIER].read()
    for number, (pair, fits) in enumerate(
        [
            ({FOURIER: matrix, TIED: matrix}, True),
            ({TIED: matrix}, True),
            ({FOURIER: matrix, TIED: matrix * 2}, False),
        ]
    ):
        others = {name: tensor for name, tensor in tensors.items() if name != FOURIER}
        file = tmp_path / f"{number}.safetensors"
        write_safetensors(file, others | {name: lazy(array) for name, array in pair.items()}, {})
        if fits:
            assert convert.read(file)[0] == SMALL
        else:
            with pytest.raises(CheckpointError, match="one parameter"):
                convert.read(file)


def test_the_files_are_the_same_whenever_they_are_written(params, tmp_path):
    for file in ("sam.pth", "sam.safetensors"):
        convert.write(tmp_path / f"first-{file}", SMALL, params)
        convert.write(tmp_path / f"second-{file}", SMALL, params)
        assert (tmp_path / f"first-{file}").read_bytes() == (tmp_path / f"second-{file}").read_bytes()


SUITED = MaskThresholds(0.3, 0.7, 0.25)


@pytest.mark.parametrize("destination", ["native", "folder", "sam.safetensors"])
def test_thresholds_of_mask_generation_travel_with_a_checkpoint(tmp_path, destination):
    """Through every format that has a place for them, and back; they are no part of the checksum."""
    config, params = SMALL, random_params(SMALL)
    convert.write(tmp_path / "first", config, params, thresholds=SUITED)
    to = {"folder": "huggingface"}.get(destination)
    convert.convert(tmp_path / "first", tmp_path / destination, to)
    described = convert.convert(tmp_path / destination, tmp_path / "last")
    assert described.thresholds == SUITED
    assert described.checksum == convert.describe(tmp_path / "first").checksum
    assert hub.load(tmp_path / destination).thresholds == SUITED
    assert (
        hub.load(tmp_path / destination).with_image_size(SMALL.image_size).with_dtype("bfloat16").thresholds == SUITED
    )
    assert hub.everything_thresholds(tmp_path / destination) == dataclasses.asdict(SUITED)


@pytest.mark.parametrize("destination", ["native", "sam.safetensors", "sam.pth"])
def test_a_checkpoint_without_thresholds_has_meta_s(tmp_path, destination):
    convert.write(tmp_path / destination, SMALL, random_params(SMALL))
    assert hub.load(tmp_path / destination).thresholds == MaskThresholds(0.88, 0.95, 1.0)
    assert convert.describe(tmp_path / destination).thresholds == MaskThresholds()


@pytest.mark.parametrize(
    "damage", ['{"pred_iou_thresh": "high"}', '{"pred_iou_thresh": NaN}', '{"iou": 0.3}', "[0.3]", "0.3", "{"]
)
def test_damaged_thresholds_are_one_clear_error(tmp_path, damage):
    path = tmp_path / "sam.safetensors"
    convert.write(path, SMALL, random_params(SMALL), thresholds=SUITED)
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, {"samjax_thresholds": damage})
    with pytest.raises(CheckpointError, match=r"sam\.safetensors"):
        hub.load(path)
