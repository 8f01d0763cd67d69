"""What PyTorch, segment_anything, transformers and safetensors write we read, and what we write they take."""

import argparse
import collections
import dataclasses
import datetime
import enum
import functools
import pathlib
import sys

import jax
import numpy as np
import pytest
from example_models import SMALL, random_params

from samjax import VARIANTS, convert
from samjax.checkpoint import CheckpointError
from samjax.convert.state_dict import open_state_dict
from samjax.convert.torch_writer import write_torch

pytestmark = pytest.mark.parity

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module", params=[SMALL, VARIANTS["vit_tiny"]], ids=["small", "vit_tiny"])
def config(request):
    return request.param


@pytest.fixture(scope="module")
def reference(config):
    from parity.reference import build_reference

    return build_reference(config)


@pytest.fixture
def hugging_face(monkeypatch):
    """transformers' `SamModel`, imported out of sight of the stand-ins for torchvision, which it would try to use."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    from transformers import SamModel

    return SamModel


def as_torch(tensor):
    array = tensor.read()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def assert_equal_states(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


def saved(folder, content, **options):
    torch.save(content, folder / "saved.pth", **options)
    return folder / "saved.pth"


@pytest.mark.parametrize("file", ["sam.pth", "sam.safetensors"])
def test_meta_takes_what_we_write_strictly_and_bit_for_bit(file, config, reference, tmp_path):
    from parity.reference import build_reference
    from safetensors.torch import load_file

    path = saved(tmp_path, reference.state_dict())
    convert.convert(path, tmp_path / file)
    state = torch.load(tmp_path / file, weights_only=True) if file == "sam.pth" else load_file(tmp_path / file)
    assert_equal_states(dict(state), dict(reference.state_dict()))
    other = build_reference(config, seed=1)
    other.load_state_dict(state, strict=True)


def test_the_inferred_configuration_is_the_one_that_was_built(config, reference, tmp_path):
    assert convert.read(saved(tmp_path, reference.state_dict()))[0] == config


def test_names_and_layouts_are_those_of_independent_rules(reference, tmp_path):
    """A round trip would not see an axis swapped on the way in and swapped back on the way out."""
    from parity.reference import params_from_reference

    _, params = convert.read(saved(tmp_path, reference.state_dict()))
    expected = params_from_reference(reference)
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_torch_maps_our_file_into_memory(tmp_path):
    convert.write(tmp_path / "sam.pth", SMALL, random_params(SMALL))
    mapped = torch.load(tmp_path / "sam.pth", weights_only=True, mmap=True)
    assert_equal_states(dict(mapped), dict(torch.load(tmp_path / "sam.pth", weights_only=True)))


@pytest.mark.filterwarnings("ignore")
def test_transformers_takes_what_we_write_and_writes_what_we_take(config, reference, hugging_face, tmp_path):
    path = saved(tmp_path, reference.state_dict())
    convert.convert(path, tmp_path / "folder", "huggingface")
    model, info = hugging_face.from_pretrained(tmp_path / "folder", output_loading_info=True)
    assert not any(info.values()), info
    model.save_pretrained(tmp_path / "theirs")
    convert.convert(tmp_path / "theirs", tmp_path / "back.pth")
    state = torch.load(tmp_path / "back.pth", weights_only=True)
    assert_equal_states(dict(state), dict(reference.state_dict()))
    assert convert.read(tmp_path / "theirs")[0] == config

    from safetensors.numpy import load_file

    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("folder", "theirs"))
    assert {name: array.tobytes() for name, array in ours.items()} == {
        n: array.tobytes() for n, array in theirs.items()
    }


@pytest.mark.filterwarnings("ignore")
def test_pytorch_model_bin_with_both_tied_names_is_read(reference, hugging_face, tmp_path):
    convert.convert(saved(tmp_path, reference.state_dict()), tmp_path / "folder", "huggingface")
    state = hugging_face.from_pretrained(tmp_path / "folder").state_dict()
    assert "prompt_encoder.shared_embedding.positional_embedding" in state
    (tmp_path / "folder" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "folder" / "pytorch_model.bin")
    convert.convert(tmp_path / "folder", tmp_path / "back.pth")
    assert_equal_states(dict(torch.load(tmp_path / "back.pth", weights_only=True)), dict(reference.state_dict()))


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_computes_what_meta_computes(reference, hugging_face, tmp_path):
    """The epsilon that we write into config.json matters: transformers' default is not Meta's."""
    convert.convert(saved(tmp_path, reference.state_dict()), tmp_path / "folder", "huggingface")
    model = hugging_face.from_pretrained(tmp_path / "folder").eval()
    side = reference.image_encoder.img_size
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, side, side)
    points = torch.tensor([[[side / 2, side / 3]]])
    with torch.no_grad():
        features = reference.image_encoder(pixels)
        sparse, dense = reference.prompt_encoder(points=(points, torch.ones(1, 1)), boxes=None, masks=None)
        masks, iou = reference.mask_decoder(
            features, reference.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True
        )
        theirs = model(
            pixel_values=pixels, input_points=points[None], input_labels=torch.ones(1, 1, 1, dtype=torch.int)
        )
    for ours, expected in ((theirs.pred_masks[0, 0], masks[0]), (theirs.iou_scores[0, 0], iou[0])):
        assert torch.linalg.norm(ours - expected) / torch.linalg.norm(expected) < 2e-6


WRAPPERS = {
    "a training checkpoint": lambda state, model: {
        "model": state,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-4).state_dict(),
        "epoch": 7,
        "best": 0.9,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "size": torch.Size([3, 4]),
    },
    "state_dict": lambda state, model: {"state_dict": state, "epoch": 7},
    "model_state": lambda state, model: {"model_state": state},
    "two levels": lambda state, model: {"checkpoint": {"model": state}},
    "an average beside the model": lambda state, model: {
        "ema": {name: tensor * 0 for name, tensor in state.items()},
        "model": state,
    },
    "DataParallel": lambda state, model: {f"module.{name}": tensor for name, tensor in state.items()},
    "sam.": lambda state, model: {"model": {f"sam.{name}": tensor for name, tensor in state.items()}},
    "parameters": lambda state, model: {name: torch.nn.Parameter(tensor) for name, tensor in state.items()},
    "a plain dict": lambda state, model: dict(state),
}


@pytest.mark.filterwarnings("ignore:.*several state dicts are there")
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_state_dicts_are_found(wrapper, reference, config, tmp_path):
    path = saved(tmp_path, WRAPPERS[wrapper](reference.state_dict(), reference))
    convert.convert(path, tmp_path / "back.pth")
    assert_equal_states(dict(torch.load(tmp_path / "back.pth", weights_only=True)), dict(reference.state_dict()))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_and_shared_storages_of_every_type_are_read_exactly(protocol, tmp_path):
    base = torch.arange(60, dtype=torch.float32).reshape(5, 12)
    shared = torch.randn(1000)
    state = collections.OrderedDict(
        base=base,
        transposed=base.t(),
        strided=base[1:4, ::3],
        flipped_axes=base.reshape(5, 3, 4).permute(2, 0, 1),
        expanded=torch.randn(1, 7).expand(5, 7),
        tail=shared[900:],
        middle=shared[10:20],
        scalar=torch.tensor(3.0),
        empty=torch.zeros(0, 4),
        half=torch.randn(3, 4).half(),
        brain=torch.randn(3, 4).bfloat16().t(),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
        whole=torch.arange(5),
        truth=torch.tensor([True, False]),
        not_a_number=torch.tensor([float("nan"), float("inf"), -0.0]),
    )
    read = open_state_dict(saved(tmp_path, state, pickle_protocol=protocol)).tensors
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        theirs, ours = tensor.detach().contiguous(), as_torch(read[name])
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
        bits = [each.reshape(-1).view(torch.uint8) for each in (ours, theirs)]
        assert torch.equal(*bits), name
    write_torch(tmp_path / "ours.pth", read)
    again = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert list(again) == list(state)
    assert all(torch.equal(again[name], state[name]) for name in state if name != "not_a_number")


def test_a_flipped_bit_in_a_large_shared_storage_is_found(tmp_path):
    storage = torch.randn(100_000)
    path = saved(tmp_path, {"a": storage[:10], "b": storage[50:60]})
    content = bytearray(path.read_bytes())
    content[200_000] ^= 4
    path.write_bytes(content)
    read = open_state_dict(path).tensors
    for name in "ab":
        with pytest.raises(CheckpointError, match="checksum"):
            read[name].read()


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path, {"a": torch.arange(5.0)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert open_state_dict(path).tensors["a"].read().tolist() == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def small():
    from parity.reference import build_reference

    return build_reference(SMALL)


def test_old_files_and_whole_models_are_read(small, tmp_path):
    convert.convert(saved(tmp_path, small.state_dict()), tmp_path / "plain")
    checksum = convert.describe(tmp_path / "plain").checksum
    old = {"_use_new_zipfile_serialization": False}
    for content, options, place in (
        (small.state_dict(), old, ""),
        ({"model": small.state_dict(), "loss": torch.nn.MSELoss()}, old, "model"),
        (small, old, "the parameters of a segment_anything.modeling.sam.Sam"),
        (small, {}, "the parameters of a segment_anything.modeling.sam.Sam"),
        (torch.nn.DataParallel(small), {}, "the parameters of a torch.nn.parallel.data_parallel.DataParallel"),
    ):
        described = convert.describe(saved(tmp_path, content, **options))
        assert described.checksum == checksum
        assert described.place == place


def test_tensors_that_are_not_plain_are_named(small, tmp_path):
    state = dict(small.state_dict())
    name = "mask_decoder.iou_token.weight"
    for tensor, kind in (
        (state[name].to_sparse(), "_rebuild_sparse_tensor"),
        (state[name].to(torch.complex64), "tensor in a torch.ComplexFloatStorage"),
        (state[name].to(torch.complex64).conj().imag, "tensor that is to be negated"),
        (state[name].to(torch.float8_e4m3fn), "tensor of torch.float8_e4m3fn"),
        (state[name].to("meta"), "_rebuild_meta_tensor_no_storage"),
    ):
        with pytest.raises(CheckpointError, match=rf"{name} is a \S*{kind}, expected a tensor of numbers"):
            convert.read(saved(tmp_path, state | {name: tensor}))
        convert.read(saved(tmp_path, state | {"other": tensor}))  # where it is no part of the model, it is skipped


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Settings:
    rate: float = 0.1
    folder: pathlib.Path = pathlib.Path("runs")


def of_a_training_run(model):
    """What training programs keep beside the weights."""
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    cycle = {}
    cycle["self"] = cycle
    return {
        "arguments": argparse.Namespace(colour=Colour.RED),
        "settings": Settings(),
        "colour": Colour.RED,
        "date": datetime.datetime.now(datetime.UTC),
        "random": [np.random.RandomState(0).get_state(), np.random.default_rng(0), torch.get_rng_state()],
        "scalar": np.float32(3),
        "partial": functools.partial(max, 1),
        "function": of_a_training_run,
        "optimizer": optimizer.state_dict(),
        "whole optimizer": optimizer,
        "schedule": torch.optim.lr_scheduler.ConstantLR(optimizer),
        "loss": torch.nn.CrossEntropyLoss(weight=torch.ones(3)),
        "containers": [collections.Counter("ab"), collections.defaultdict(list, a=[1]), {1, 2}, {(1, 2): Colour.RED}],
        "types": [torch.float16, torch.device("cpu"), torch.Size([1, 2]), Settings, slice(1, 2), 3 + 4j],
        "tensors": [torch.eye(3).to_sparse(), torch.ones(1).expand(10_000_000), torch.ones(2).untyped_storage()],
        "cycle": cycle,
    }


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_a_training_run_keeps_is_skipped_and_named(protocol, small, tmp_path):
    beside = of_a_training_run(small)
    path = saved(tmp_path, {**beside, "model": small.state_dict()}, pickle_protocol=protocol)
    described = convert.describe(path)
    convert.convert(path, tmp_path / "out.pth")
    assert_equal_states(dict(torch.load(tmp_path / "out.pth", weights_only=True)), dict(small.state_dict()))
    assert [skipped.partition(" (")[0] for skipped in described.skipped] == list(beside)
    assert f"settings ({__name__}.Settings)" in described.skipped
    assert "loss (torch.nn.modules.loss.CrossEntropyLoss)" in described.skipped


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("target", ["sam.pth", "sam.safetensors", "native"])
def test_half_precision_survives_every_format(dtype, target, reference, tmp_path):
    state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in reference.state_dict().items()}
    described = convert.convert(saved(tmp_path, state), tmp_path / target)
    assert described.dtypes == (dtype,)
    convert.convert(tmp_path / target, tmp_path / "back.pth")
    assert_equal_states(dict(torch.load(tmp_path / "back.pth", weights_only=True)), state)


def test_safetensors_files_of_the_library_are_read(reference, tmp_path):
    from safetensors.torch import save_file

    save_file(reference.state_dict(), tmp_path / "theirs.safetensors")
    convert.convert(tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors")
    convert.convert(tmp_path / "ours.safetensors", tmp_path / "back.pth")
    assert_equal_states(dict(torch.load(tmp_path / "back.pth", weights_only=True)), dict(reference.state_dict()))
