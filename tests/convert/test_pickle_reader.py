"""Pickles give plain values, tensors and stand-ins; hostile ones give one clear error, quickly, and none runs code."""

import collections
import contextlib
import io
import pickle

import numpy as np
import pytest
from example_instructions import STORAGE, tensor, text, zipped
from example_pickles import Built, Name, Tensor, save
from example_refusals import refusal, refuse
from hypothesis import example, given
from hypothesis import strategies as st

from samjax import convert
from samjax.checkpoint import CheckpointError
from samjax.convert.locate import locate
from samjax.convert.pickle_reader import Global, Opaque, StorageReference, TensorReference, read_pickle
from samjax.convert.torch_file import TorchArchive


class Evil:
    """Pickles to a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["system", "eval", "exec", "open", "getattr", "import"])
def test_pickles_that_call_functions_are_refused_by_name(name, protocol, tmp_path, trap):
    import builtins
    import importlib
    import os

    code = f"open({str(trap)!r}, 'w')"
    evil = {
        "system": Evil(os.system, f"touch {trap}"),
        "eval": Evil(builtins.eval, code),
        "exec": Evil(builtins.exec, code),
        "open": Evil(open, str(trap), "w"),
        "getattr": Evil(getattr, os, "system") if protocol > 9 else Evil(getattr, "", "join"),
        "import": Evil(importlib.import_module, "antigravity"),
    }[name]
    data = pickle.dumps(collections.OrderedDict(weight=evil), protocol)
    refuse(zipped(tmp_path / "evil.pth", data), rf"holds no state dict: .* weight \(\w+\.\w*{name}\w*\)")


HOSTILE = {
    "a global that is never called": b"cos\nsystem\n.",
    "a global of samjax itself": b"csamjax.hub\ndownload\n(tR.",
    "a global from the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "a dotted global": b"\x80\x04\x8c\x05torch\x8c\x0aos.systems.x\x93.",
    "INST": b"(S'touch trap'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'x'\no.",
    "NEWOBJ of a known name": b"ccollections\nOrderedDict\n)\x81(K\x01K\x02u}b.",
    "NEWOBJ_EX": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
    "an extension code": b"\x82\x01.",
    "BUILD on a function": b"ctorch._utils\n_rebuild_tensor_v2\n}X\x04\x00\x00\x00nameX\x01\x00\x00\x00xsb.",
    "BUILD with __setstate__": b"}" + text("__setstate__") + b"cos\nsystem\nsb.",
    "BUILD on a list": b"]}b.",
    "calling a number": b"K\x01)R.",
    "calling a tensor": tensor() + b")R.",
    "calling a storage class": b"ctorch\nFloatStorage\n)R.",
    "arguments that are no tuple": b"ccollections\nOrderedDict\n]R.",
    "OrderedDict with arguments": b"ccollections\nOrderedDict\n]\x85R.",
    "a persistent id of text": b"Pstorage\n.",
    "a persistent id of another kind": b"(" + text("module") + b"ctorch\nFloatStorage\n" + text("0") * 2 + b"K\x04tQ.",
    "a storage without its class": b"(" + text("storage") * 4 + b"K\x04tQ.",
    "a storage of negative size": tensor(storage=STORAGE.replace(b"K\x04tQ", b"J\xff\xff\xff\xfftQ")) + b".",
    "a memo index of two billion": b"}r\xff\xff\xff\x7f.",
    "a memo that was never filled": b"h\x07.",
    "a stack that is empty": b"0.",
    "a tuple of an empty stack": b"\x87.",
    "no mark": b"K\x01t.",
    "a mark left over": b"(.",
    "two results": b"}}.",
    "nothing": b"",
    "no STOP": b"}",
    "an unknown opcode": b"\xff.",
    "text longer than the file": b"X\xff\xff\xff\x7fabc.",
    "bytes longer than any memory": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.",
    "a long of two gigabytes": b"\x8b\xff\xff\xff\x7f\x01.",
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "text that is no UTF-8": b"X\x02\x00\x00\x00\xff\xfe.",
    "nested lists": b"]" * 70_000 + b"a" * 69_999 + b".",
    "a list that contains itself": b"]q\x00h\x00a.",
    "a dictionary that contains itself": b"}q\x00" + text("model") + b"h\x00s.",
    "a tuple of tuples as a key": b"}" + b"K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"K\x01s.",
    "a billion shared lists": b"]q\x00" + b"]q\x01(" + b"h\x00" * 10 + b"eq\x00" + b".",
    "a list as a key": b"}]K\x01s.",
    "a tensor as a key": b"}" + tensor() + b"K\x01s.",
    "a million instructions": b"N" * 1_000_000 + b".",
    "a name with terminal codes": b"}" + text("\x1b[2J") + tensor() + b"s.",
    "a wrong number of values": b"}(K\x01u.",
    "appending to a number": b"K\x01K\x02a.",
    "setting items of a list": b"](K\x01K\x02u.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_give_one_error(name, tmp_path, trap, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse(zipped(tmp_path / "evil.pth", HOSTILE[name], others=[("archive/data/0", b"\0" * 16)]))


def test_an_unknown_class_is_named_and_the_way_out_told(tmp_path):
    data = pickle.dumps({"model": {}, "scaler": Evil(np.random.default_rng, 1)})
    error = refuse(zipped(tmp_path / "a.pth", data), "default_rng")
    assert "torch.save(model.state_dict(), ...)" in error


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.tuples(inner, inner, inner, inner) | st.dictionaries(st.text(), inner)
    ),
)


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
@example([float(i) for i in range(3000)] + list(range(3000)) + [None] * 3000, 2)
@example(tuple(range(-70_000, 70_000, 7)), 2)
@example([1.0, 2.0, 3.0, 4.0, 5, 6, 7, 8, 700, 800, 900, 1000, None, None, None, None, True, True, True, True], 4)
def test_plain_values_are_those_of_pickle_itself(value, protocol):
    data = pickle.dumps(value, protocol)
    read = read_pickle(b"before" + data + b"after", "file", 6)
    assert read.end == 6 + len(data)
    # Before protocol 3, bytes are texts to be encoded, or calls of `bytes` if they are empty.
    if protocol > 2 or (b"_codecs" not in data and b"__builtin__\nbytes" not in data):
        assert repr(read.value) == repr(value)


@given(st.binary(max_size=300))
def test_any_pickle_gives_a_value_or_the_one_error(data):
    with contextlib.suppress(CheckpointError):
        read_pickle(data, "fuzz")


OPCODES = [
    b"(",
    b")",
    b"]",
    b"}",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"R",
    b"b",
    b"s",
    b"u",
    b"a",
    b"e",
    b"Q",
    b"0",
    b"2",
]
OPCODES += [
    b"K\x01",
    b"N",
    b"q\x00",
    b"h\x00",
    b"q\x01",
    b"h\x01",
    text("a"),
    text("storage"),
    STORAGE,
    tensor(),
    b"\x81",
    b"o",
    b"d",
    b"\x8f",
    b"\x90",
    b"\x92",
    b"1",
    b"cnumpy\nndarray\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy\ndtype\n",
    text("_modules"),
    text("_parameters"),
]
OPCODES += [b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n", b"cos\nsystem\n", b"ctorch\nSize\n"]
OPCODES += [b"ctorch._utils\n_rebuild_parameter\n", b"cargparse\nNamespace\n", b"ctorch.nn.parameter\nParameter\n"]


@given(st.lists(st.sampled_from(OPCODES), max_size=40))
def test_any_sequence_of_instructions_gives_plain_data_or_the_one_error(instructions):
    try:
        value = read_pickle(b"".join([*instructions, b"."]), "fuzz").value
    except CheckpointError:
        return
    assert isinstance(
        value, int | str | list | dict | tuple | None | Opaque | StorageReference | TensorReference | Global
    )
    locate(value)


def test_ordinary_company_of_a_state_dict_does_no_harm(tmp_path):
    """argparse, numpy scalars, sets, devices: read as nothing, whatever protocol."""
    import argparse
    import pathlib

    beside = {
        "epoch": 3,
        "lr": 1e-4,
        "best": np.float64(0.5),
        "history": np.arange(3),
        "args": argparse.Namespace(width=3, folder=pathlib.PurePosixPath("a").name),
        "tags": {"a", "b"},
        "counts": collections.Counter("aab"),
        "loss": collections.defaultdict(list, a=[1.0, 2.0]),
        "param_groups": [{"betas": (0.9, 0.999)}],
        "none": None,
    }
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        stream = io.BytesIO()
        pickle.Pickler(stream, protocol).dump(beside)
        read = TorchArchive(zipped(tmp_path / f"{protocol}.pth", stream.getvalue())).content
        assert read["epoch"] == 3
        assert read["param_groups"] == [{"betas": (0.9, 0.999)}]


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
