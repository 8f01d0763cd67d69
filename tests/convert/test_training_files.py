"""Files as training programs save them: what lies beside the state dict is passed over by name, and never built."""

import pickle
import time
import warnings

import ml_dtypes
import numpy as np
import pytest
from example_models import SMALL, random_params
from example_pickles import Built, Name, Tensor, module, save, save_as_before_1_6
from flax.traverse_util import flatten_dict

from samjax import convert, hub
from samjax.checkpoint import CheckpointError, lazy
from samjax.convert.mapping import to_torch
from samjax.convert.matching import expected_entries


@pytest.fixture(scope="module")
def arrays():
    """The parameters under Meta's names and in PyTorch's layout."""
    table = expected_entries(SMALL)
    leaves = flatten_dict(random_params(SMALL), sep="/")
    return {table[name].meta: to_torch(lazy(leaf), table[name].axes).read() for name, leaf in leaves.items()}


@pytest.fixture(scope="module")
def state(arrays):
    """A state dict of tensors."""
    return {name: Tensor(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def checksum(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "sam"
    convert.write(path, SMALL, random_params(SMALL))
    return convert.describe(path).checksum


def refusal(path, **options):
    with pytest.raises(CheckpointError) as caught:
        convert.read(path, **options)
    return str(caught.value)


OBJECTS = {
    "a configuration": (Built("my_pkg.Config", state={"lr": 0.1, "nested": [1, 2]}), "my_pkg.Config"),
    "a loss": (module("my_pkg.Loss", {"weight": Tensor(np.ones(3, np.float32))}), "my_pkg.Loss"),
    "an enumeration": (Built("my_pkg.Mode", 2), "my_pkg.Mode"),
    "a member by its name": (Built("builtins.getattr", Name("my_pkg.Mode"), "FAST"), "my_pkg.Mode"),
    "parsed arguments": (Built("argparse.Namespace", state={"out": Built("pathlib.PosixPath", "a", "b")}), "argparse"),
    "a date": (Built("datetime.datetime", b"\x07\xe8\x01\x01\0\0\0\0\0\0"), "datetime.datetime"),
    "a function": (Name("my_pkg.warmup"), "my_pkg.warmup"),
    "a partial function": (
        Built("functools.partial", Name("my_pkg.f"), state=(Name("my_pkg.f"), (1,), {}, None)),
        "functools.partial",
    ),
    "slots": (Built("my_pkg.Slots", state=(None, {"a": 1})), "my_pkg.Slots"),
    "a subclass of dict": (Built("addict.Dict", items={"a": 1}.items()), "addict.Dict"),
    "a subclass of list": (Built("my_pkg.History", elements=[1.0, 2.0]), "my_pkg.History"),
    "a named tuple": (Built("my_pkg.Pair", 1, 2), "my_pkg.Pair"),
    "what a function gave": (Built("my_pkg.restore", {"a": (1, 2)}, state=7), "my_pkg.restore"),
    "objects in a list": (
        [Built("my_pkg.EarlyStopping"), Built("my_pkg.EarlyStopping")],
        "list of my_pkg.EarlyStopping",
    ),
    "odd keys": ({(1, 2): 3, Name("my_pkg.Mode"): 4, None: 5, 6: 7, b"x": 8}, "dict"),
    "a set": ({"a", "b"}, "set"),
    "a complex number": (3 + 4j, "complex"),
    "an array of objects": (np.array([None, "a"], object), "_reconstruct"),
    "a state of a generator": (np.random.RandomState(0).get_state(), "tuple"),
    "a complex tensor": (
        Built("torch._utils._rebuild_sparse_tensor", Name("torch.sparse_coo"), ()),
        "torch._utils._rebuild_sparse_tensor",
    ),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_beside_the_state_dict_are_skipped_and_named(protocol, state, checksum, tmp_path):
    """Before it, after it, with references to objects that were there already."""
    before = {f"before {name}": value for name, (value, _) in OBJECTS.items()}
    after = {f"after {name}": value for name, (value, _) in OBJECTS.items()}
    for number, beside in enumerate((before, after)):
        content = {**before, "model": state} if beside is before else {"model": state, **before, **after}
        described = convert.describe(save(tmp_path / f"{number}.pth", content, protocol))
        assert described.checksum == checksum
        assert described.place == "model"
        for (name, value), skipped in zip(OBJECTS.items(), described.skipped, strict=False):
            assert skipped.startswith(f"before {name} (")
            assert value[1] in skipped
    assert described.skipped[len(OBJECTS) :] == (f"and {len(OBJECTS)} more",)


PLACES = {
    "": lambda state, other: state,
    "state_dict": lambda state, other: {"meta": other, "state_dict": state},
    "ema": lambda state, other: {"ema": state, "step": 3},
    "a.b.c.d": lambda state, other: {"a": {"b": {"c": {"d": state, "e": other}}}},
    "[1]": lambda state, other: (other, state),
    "[0].[0]": lambda state, other: [[state]],
    "trainer.model": lambda state, other: {"trainer": Built("my_pkg.Trainer", state={"model": state, "loss": other})},
    "model.data": lambda state, other: {"model": Built("collections.UserDict", state={"data": state})},
    "weights": lambda state, other: {"weights": Built("my_pkg.Weights", items=state.items())},
    "saved.[1].net": lambda state, other: {"saved": Built("my_pkg.restore", other, {"net": state})},
}


@pytest.mark.parametrize("place", PLACES)
def test_the_state_dict_is_found_wherever_it_lies(place, state, checksum, tmp_path):
    other = Built("my_pkg.Other", state={"module": {"weight": Tensor(np.ones(3, np.float32))}})
    described = convert.describe(save(tmp_path / "sam.pth", PLACES[place](state, other)))
    assert described.checksum == checksum
    assert described.place == place


def test_numbers_and_objects_among_the_tensors_are_skipped_and_named(state, checksum, tmp_path):
    content = {
        "epoch": 3,
        **state,
        "loss": Built("my_pkg.Loss"),
        "x": None,
    }
    described = convert.describe(save(tmp_path / "sam.pth", content))
    assert described.checksum == checksum
    assert described.skipped == ("epoch (int)", "loss (my_pkg.Loss)", "x (NoneType)")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.model."])
def test_an_object_in_the_place_of_a_tensor_is_named(prefix, state, tmp_path):
    content = {prefix + name: tensor for name, tensor in state.items()}
    content[f"{prefix}image_encoder.pos_embed"] = Built("my_pkg.Quantised", b"123")
    message = refusal(save(tmp_path / "sam.pth", {"model": content}))
    assert "image_encoder.pos_embed is a my_pkg.Quantised, expected a tensor of numbers" in message


def test_of_several_state_dicts_the_model_is_read_and_the_others_are_named(state, arrays, checksum, tmp_path):
    average = {f"module.{name}": Tensor(array + 1) for name, array in arrays.items()} | {
        "n_averaged": Tensor(np.ones(1))
    }
    content = {"ema": average, "head": {"mask_decoder.x": Tensor(np.ones(2))}, "model": state, "same": dict(state)}
    path = save(tmp_path / "sam.pth", content)
    with pytest.warns(UserWarning, match="several state dicts are there: model is read, ema not"):
        config, _ = convert.read(path)
    assert config == SMALL
    described = convert.describe(path)
    assert described.checksum == checksum
    assert described.warnings == ("several state dicts are there: model is read, ema not",)
    assert described.skipped == ("ema (dict)", "head (dict)", "same (dict)")
    path = save(tmp_path / "deep.pth", {"ema": {"model": average}, "run": {"now": state}})
    assert convert.describe(path).place == "run.now"


def test_the_parts_of_a_sam_may_be_state_dicts_of_their_own(arrays, checksum, tmp_path):
    parts = {}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = Tensor(array)
    described = convert.describe(save(tmp_path / "sam.pth", {"epoch": 3, **parts}))
    assert described.checksum == checksum
    assert described.skipped == ("epoch (int)",)


def whole(arrays, mean=(123.675, 116.28, 103.53)):
    """Meta's model, pickled whole: objects within objects."""
    tree = {}
    for name, array in arrays.items():
        *path, leaf = name.split(".")
        inner = tree
        for part in path:
            inner = inner.setdefault(part, {})
        inner[leaf] = array

    def build(inner):
        parameters = {name: value for name, value in inner.items() if not isinstance(value, dict)}
        wrapped = {
            name: Built("torch._utils._rebuild_parameter", Tensor(a), True, {}) for name, a in parameters.items()
        }
        children = {name: build(value) for name, value in inner.items() if isinstance(value, dict)}
        return module("some.Layer", wrapped | {"missing": None}, {}, children)

    children = {name: build(inner) for name, inner in tree.items()} | {"dropout": None}
    buffers = {
        "pixel_mean": Tensor(np.float32(mean).reshape(3, 1, 1)),
        "pixel_std": Tensor(np.float32([58.395, 57.12, 57.375]).reshape(3, 1, 1)),
        "scratch": Tensor(np.ones(3, np.float32)),
    }
    return module("my_pkg.Sam", {}, buffers, children, transient=buffers)


def test_a_model_that_was_pickled_whole_gives_its_parameters(arrays, checksum, tmp_path):
    path = save(tmp_path / "sam.pth", whole(arrays))
    described = convert.describe(path)
    assert described.checksum == checksum
    assert described.place == "the parameters of a my_pkg.Sam"
    assert described.dropped == ("pixel_mean (Meta's own values)", "pixel_std (Meta's own values)")
    content = {"config": Built("my_pkg.Config"), "model": module("DataParallel.x", modules={"module": whole(arrays)})}
    described = convert.describe(save(tmp_path / "wrapped.pth", content))
    assert described.checksum == checksum
    assert described.place == "model (the parameters of a DataParallel.x)"
    assert described.skipped == ("config (my_pkg.Config)",)
    assert "pixel_mean [0.5, 0.5, 0.5]" in refusal(save(tmp_path / "other.pth", whole(arrays, mean=(0.5, 0.5, 0.5))))


def test_modules_that_share_modules_without_end_are_left(tmp_path):
    shared = module("my_pkg.Leaf", {"weight": Tensor(np.ones(3, np.float32))})
    for _ in range(40):
        shared = module("my_pkg.Pair", modules={"a": shared, "b": shared})
    path = save(tmp_path / "sam.pth", [module("my_pkg.Root", modules={"inner": shared}) for _ in range(50)])
    start = time.process_time()
    assert "is no SAM checkpoint" in refusal(path)
    assert time.process_time() - start < 5


def test_parameters_subclasses_and_old_functions_are_tensors(arrays, checksum, tmp_path):
    def wrap(number, array):
        tensor = Tensor(array)
        strides = tuple(stride // 4 for stride in np.ascontiguousarray(array).strides)
        arguments = (tensor.storage(), 0, array.shape, strides)
        hooks = Built("collections.OrderedDict")
        return [
            Built("torch._utils._rebuild_parameter", tensor, True, hooks),
            Built("torch._utils._rebuild_parameter_with_state", tensor, True, hooks, {"tag": 1}),
            Built("torch._utils._rebuild_tensor", *arguments),
            Built(
                "torch._tensor._rebuild_from_type_v2",
                Name("torch._utils._rebuild_tensor_v2"),
                Name("fastai.TensorImage"),
                (*arguments, False, hooks),
                {"tag": 1},
            ),
        ][number % 4]

    content = {name: wrap(number, array) for number, (name, array) in enumerate(arrays.items())}
    assert convert.describe(save(tmp_path / "sam.pth", content)).checksum == checksum


def test_a_tensor_that_is_to_be_negated_is_no_tensor_as_it_stands(state, arrays, tmp_path):
    array = arrays["mask_decoder.iou_token.weight"]
    lazily = Built(
        "torch._utils._rebuild_tensor_v2",
        *(Tensor(array).storage(), 0, array.shape, (array.shape[1], 1), False, Built("collections.OrderedDict")),
        {"neg": True},
    )
    message = refusal(save(tmp_path / "sam.pth", state | {"mask_decoder.iou_token.weight": lazily}))
    assert "mask_decoder.iou_token.weight is a tensor that is to be negated" in message


def test_an_ordered_dict_of_python_2_is_a_list_of_pairs(state, checksum, tmp_path):
    pairs = [[name, tensor] for name, tensor in state.items()]
    content = Built("collections.OrderedDict", pairs, state={"_metadata": {"": {"version": 1}}})
    assert convert.describe(save(tmp_path / "sam.pth", content)).checksum == checksum


def test_objects_that_contain_themselves_are_passed_over(state, checksum, tmp_path):
    listed, named = [], {}
    listed += [listed, named]
    named |= {"self": named, "list": listed, "model": {"again": named}}
    described = convert.describe(save(tmp_path / "sam.pth", {"loop": named, "other": listed, "model": state}))
    assert described.checksum == checksum
    assert described.skipped == ("loop (dict)", "other (list)")


def test_a_file_without_a_state_dict_says_what_it_holds(tmp_path):
    message = refusal(save(tmp_path / "a.pth", {"config": Built("my_pkg.Config"), "epoch": 3}))
    assert "holds no state dict" in message
    assert "found a dict of my_pkg.Config with config (my_pkg.Config), epoch (int)" in message
    assert "torch.save(model.state_dict(), ...)" in message
    message = refusal(save(tmp_path / "b.pth", Built("my_pkg.Model", state={"inner": Built("my_pkg.Handle")})))
    assert "found a my_pkg.Model with inner (my_pkg.Handle)" in message


def test_files_of_pytorch_before_1_6_are_read(state, checksum, tmp_path):
    path = save_as_before_1_6(tmp_path / "sam.pth", {"loss": Built("my_pkg.Loss"), "model": state})
    described = convert.describe(path)
    assert described.checksum == checksum
    assert described.skipped == ("loss (my_pkg.Loss)",)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert "truncated" in refusal(path)
    path.write_bytes(content.replace(b"little_endian", b"LITTLE_ENDIAN"))
    assert "big-endian" in refusal(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["torch.save", "pickle"])
def test_arrays_of_numpy_are_read_like_tensors(kind, protocol, arrays, checksum, tmp_path):
    forms = [
        lambda array: array,
        np.asfortranarray,
        lambda array: array.astype(">f4"),
        lambda array: np.concatenate([array, array])[: len(array)],
    ]
    content = {"model": {name: forms[i % 4](array) for i, (name, array) in enumerate(arrays.items())}}
    path = tmp_path / "sam.pkl"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        save(path, content, protocol)
    assert convert.describe(path).checksum == checksum
    # Where NumPy 1 wrote it, its modules had other names.
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
    if kind == "pickle" and protocol < 4:  # no lengths of names and frames, no checksum
        assert convert.describe(path).checksum == checksum


def test_half_precision_arrays_keep_their_type(arrays, tmp_path):
    for dtype in (np.float16, ml_dtypes.bfloat16):
        (tmp_path / "sam.pkl").write_bytes(pickle.dumps({name: a.astype(dtype) for name, a in arrays.items()}))
        _, params = convert.read(tmp_path / "sam.pkl")
        found, expected = flatten_dict(params), flatten_dict(random_params(SMALL))
        assert all(np.array_equal(leaf, expected[name].astype(dtype)) for name, leaf in found.items())
        assert {leaf.dtype for leaf in found.values()} == {np.dtype(dtype)}


def test_an_npz_is_read(arrays, checksum, tmp_path):
    np.savez(tmp_path / "sam.npz", **arrays)
    assert convert.describe(tmp_path / "sam.npz").checksum == checksum
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    assert "numpy.savez, not savez_compressed" in refusal(tmp_path / "small.npz")
    np.savez(tmp_path / "evil.npz", a=np.array([Name("x.y")], object))
    assert "an array of objects" in refusal(tmp_path / "evil.npz")


def test_float64_is_rounded_with_a_word(arrays, checksum, tmp_path):
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}
    between = {name: np.nextafter(array, np.inf) for name, array in exact.items()}
    for content in (exact, between):
        path = save(tmp_path / "sam.pth", {name: Tensor(array) for name, array in content.items()})
        with pytest.warns(UserWarning, match=rf"{len(arrays)} of {len(arrays)} parameters are float64 and are rounded"):
            convert.convert(path, tmp_path / "out.pth", overwrite=True)
        described = convert.describe(tmp_path / "out.pth")
        assert described.dtypes == ("float32",)
        assert described.checksum == checksum
        assert not described.warnings
    exact["image_encoder.pos_embed"][0, 0, 0, 0] = 1e300
    path = save(tmp_path / "large.pth", {name: Tensor(array) for name, array in exact.items()})
    with pytest.warns(UserWarning, match="rounded"):
        message = refusal(path)
    assert "image_encoder.pos_embed holds numbers that are too large for float32" in message


EXTRA = {
    "criterion.weight": np.ones(3, np.float32),
    "teacher.image_encoder.pos_embed": np.ones((1, 8, 8, 48), np.float32),
    "bn.num_batches_tracked": np.array(3),
    "logit_scale": np.ones((), np.float32),
}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.sam."])
def test_extra_tensors_are_refused_with_the_way_to_drop_them(prefix, arrays, checksum, tmp_path):
    content = {prefix + name: Tensor(array) for name, array in (arrays | EXTRA).items()}
    path = save(tmp_path / "sam.pth", content)
    message = refusal(path)
    assert "holds a complete custom at (64, 64), and other tensors" in message
    assert "extra (4):\n    criterion.weight (3,)" in message
    assert "--drop 'criterion.*' --drop 'teacher.*' --drop 'bn.*' --drop 'logit_scale'" in message
    assert "drop=['criterion.*', 'teacher.*', 'bn.*', 'logit_scale']" in message
    drop = ["criterion.*", f"{prefix}teacher.*", "bn.num_*", "logit_?cale"]
    described = convert.convert(path, tmp_path / "out", drop=drop)
    assert described.checksum == checksum
    assert sorted(name.removeprefix(prefix) for name in described.dropped) == sorted(EXTRA)
    assert hub.load(path, drop=drop).config == SMALL


def test_extra_tensors_of_any_type_are_dropped_from_safetensors(arrays, checksum, tmp_path):
    from safetensors.numpy import save_file

    save_file(
        arrays | {"loss.seen": np.array([True]), "loss.count": np.ones(2, np.uint8)}, tmp_path / "sam.safetensors"
    )
    path = tmp_path / "sam.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'"BOOL"', b'"F8_E5M2"')  # which NumPy does not know
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    assert "extra (2)" in refusal(path)
    assert convert.describe(path, drop=["loss.*"]).checksum == checksum


def test_a_teacher_of_the_same_names_is_dropped_or_read_instead(arrays, checksum, tmp_path):
    content = {f"teacher.{name}": Tensor(array + 1) for name, array in arrays.items()}
    content |= {f"student.{name}": Tensor(array) for name, array in arrays.items()}
    path = save(tmp_path / "sam.pth", content)
    assert "complete" in refusal(path)
    assert convert.describe(path, drop="teacher.*").checksum == checksum
    assert convert.describe(path, drop="student.*").checksum != checksum


def test_dropping_what_the_model_needs_is_refused_and_a_pattern_for_nothing_is_named(state, checksum, tmp_path):
    path = save(tmp_path / "sam.pth", state)
    message = refusal(path, drop=["mask_decoder.iou_token.*"])
    assert "It needs mask_decoder.iou_token.weight, which was to be dropped." in message
    with pytest.warns(UserWarning, match="no tensor has a name like 'los.*', which was to be dropped"):
        convert.read(path, drop=["los.*"])
    convert.convert(path, tmp_path / "native")
    with pytest.raises(CheckpointError, match="there is nothing to drop"):
        hub.load(tmp_path / "native", drop=["loss.*"])


MEAN, DEVIATION = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("scale", [1, 255])
def test_metas_own_constants_are_dropped(scale, dtype, state, checksum, tmp_path):
    constants = {"pixel_mean": (MEAN / scale).reshape(3, 1, 1), "pixel_std": (DEVIATION / scale).reshape(1, 3, 1, 1)}
    content = state | {name: Tensor(array.astype(dtype)) for name, array in constants.items()}
    described = convert.describe(save(tmp_path / "sam.pth", {f"module.{name}": t for name, t in content.items()}))
    assert described.checksum == checksum
    assert described.dropped == ("pixel_mean (Meta's own values)", "pixel_std (Meta's own values)")


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [
        (MEAN * 1.001, DEVIATION),
        (MEAN[::-1], DEVIATION),
        (MEAN / 255, DEVIATION),
        (np.zeros(3), np.ones(3)),
        (MEAN, DEVIATION[:1]),
    ],
    ids=["nearly", "BGR", "of two scales", "none", "one channel"],
)
def test_other_constants_are_refused_as_the_masks_would_be_wrong(mean, deviation, state, checksum, tmp_path):
    constants = {"pixel_mean": Tensor(np.float32(mean)), "pixel_std": Tensor(np.float32(deviation))}
    path = save(tmp_path / "sam.pth", state | constants)
    message = refusal(path)
    assert "samjax normalises photos as Meta does, with pixel_mean [123.675, 116.28, 103.53]" in message
    assert "--drop 'pixel_mean' --drop 'pixel_std'" in message
    assert convert.describe(path, drop=["pixel_*"]).checksum == checksum


def test_wrappers_within_names_are_taken_out(state, checksum, tmp_path):
    content = {
        name.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module.").replace(
            "image_encoder.", "image_encoder._orig_mod."
        ): tensor
        for name, tensor in state.items()
    }
    content = {f"module._forward_module.model.{name}": tensor for name, tensor in content.items()}
    assert convert.describe(save(tmp_path / "sam.pth", {"state_dict": content})).checksum == checksum


def test_a_long_history_is_passed_over(state, checksum, tmp_path):
    history = {"losses": [float(i) for i in range(300_000)], "steps": list(range(100_000)), "none": [None] * 100_000}
    described = convert.describe(save(tmp_path / "sam.pth", {"history": history, "model": state}))
    assert described.checksum == checksum
    assert described.skipped == ("history (dict)",)


@pytest.mark.parametrize(
    ("where", "limit", "value", "problem"),
    [
        ("pickle_opcodes", "MAX_BYTES", 1 << 16, "more than 0 MB or 20,000,000 instructions"),
        ("pickle_opcodes", "MAX_INSTRUCTIONS", 5000, "more than 64 MB or 5,000 instructions"),
        ("pickle_reader", "MAX_MEMORY", 1 << 20, "takes more than 0 GB of memory"),
    ],
)
def test_what_a_pickle_may_cost_is_bounded(where, limit, value, problem, state, tmp_path, monkeypatch):
    path = save(tmp_path / "sam.pth", {"history": [{"loss": float(i)} for i in range(5000)], "model": state})
    convert.read(path)
    monkeypatch.setattr(f"samjax.convert.{where}.{limit}", value)
    assert problem in refusal(path)


def test_long_texts_and_bytes_cost_nothing(state, tmp_path, monkeypatch):
    path = save(tmp_path / "sam.pth", {"log": "x" * 3_000_000, "blob": b"x" * 3_000_000, "model": state}, 4)
    monkeypatch.setattr("samjax.convert.pickle_opcodes.MAX_BYTES", 1 << 20)
    monkeypatch.setattr("samjax.convert.pickle_reader.MAX_MEMORY", 1 << 20)
    assert convert.describe(path).skipped == ("log (str)", "blob (bytes)")


def test_nothing_is_said_of_a_plain_state_dict(state, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert.read(save(tmp_path / "sam.pth", state))
    described = convert.describe(tmp_path / "sam.pth")
    assert (described.place, described.skipped, described.dropped, described.warnings) == ("", (), (), ())
