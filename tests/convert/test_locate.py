"""The state dict is found wherever a training program puts it; what lies beside it is named, and never built."""

import time
import warnings

import numpy as np
import pytest
from example_models import SMALL
from example_pickles import Built, Name, Tensor, module, save
from example_refusals import refusal

from samjax import convert

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


def test_nothing_is_said_of_a_plain_state_dict(state, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert.read(save(tmp_path / "sam.pth", state))
    described = convert.describe(tmp_path / "sam.pth")
    assert (described.place, described.skipped, described.dropped, described.warnings) == ("", (), (), ())
