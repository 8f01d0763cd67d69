"""Damaged and hostile files: each gives one clear error, quickly, and none runs code."""

import collections
import contextlib
import io
import json
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
from example_models import SMALL, random_params
from hypothesis import example, given, settings
from hypothesis import strategies as st

from samjax import convert
from samjax.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of a sound checkpoint in each of the two file formats."""
    folder = tmp_path_factory.mktemp("sound")
    for name in ("sam.pth", "sam.safetensors"):
        convert.write(folder / name, SMALL, random_params(SMALL))
    return {file.suffix: file.read_bytes() for file in folder.iterdir()}


def refuse(path, match=None):
    """Reading fails with the one kind of error, within a second of computing."""
    start = time.process_time()
    with pytest.raises(CheckpointError, match=match) as caught:
        convert.read(path)
    assert time.process_time() - start < 1.5  # a second, and the runtime checks of the tests
    assert len(str(caught.value)) < 20_000
    return caught.value


def zipped(path, data, *, name="archive/data.pkl", others=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, data)
        for other, content in others:
            archive.writestr(other, content)
    return path


class Evil:
    """Pickles to a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.fixture
def trap(tmp_path):
    """A file that any of the hostile pickles would make if it ran."""
    yield tmp_path / "trap"
    assert not (tmp_path / "trap").exists()


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


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"


def tensor(shape=b"K\x04\x85", strides=b"K\x01\x85", offset=b"K\x00", storage=STORAGE):
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + strides + b"\x89}tR"


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


MISFITS = {
    "beyond the storage": tensor(shape=b"K\x05\x85"),
    "an offset beyond the storage": tensor(offset=b"K\x01"),
    "a negative offset": tensor(offset=b"J\xff\xff\xff\xff"),
    "a negative size": tensor(shape=b"J\xff\xff\xff\xff\x85"),
    "a negative stride": tensor(strides=b"J\xff\xff\xff\xff\x85"),
    "a stride beyond the storage": tensor(shape=b"K\x02\x85", strides=b"K\x04\x85"),
    "fewer strides than sizes": tensor(shape=b"K\x02K\x02\x86"),
    "a terabyte by strides of zero": tensor(shape=b"\x8a\x05\0\0\0\0\x10\x85", strides=b"K\x00\x85"),
    "a size beyond 64 bits": tensor(shape=b"\x8a\x09" + b"\0" * 8 + b"\x01\x85", strides=b"K\x00\x85"),
    "sizes whose product overflows": tensor(shape=b"\x8a\x05\0\0\0\0\x01" * 2 + b"\x86", strides=b"K\x00K\x00\x86"),
    "a size that is no number": tensor(shape=text("4") + b"\x85"),
    "a size that is a truth value": tensor(shape=b"\x88\x85"),
    "a shape that is a dictionary": tensor(shape=b"}"),
    "a hundred axes": tensor(shape=b"(" + b"K\x01" * 100 + b"t", strides=b"(" + b"K\x01" * 100 + b"t"),
    "a storage that is no storage": tensor(storage=b"}"),
    "a storage that is missing": tensor(storage=STORAGE.replace(text("0"), text("1"))),
    "a storage by a path": tensor(storage=STORAGE.replace(text("0"), text("../data.pkl"))),
    "more numbers than the storage has": tensor(storage=STORAGE.replace(b"K\x04tQ", b"K\x05tQ"), shape=b"K\x05\x85"),
    "fewer numbers than the storage has": tensor(storage=STORAGE.replace(b"K\x04tQ", b"K\x03tQ"), shape=b"K\x03\x85"),
    "a wider type than was stored": tensor(storage=STORAGE.replace(b"FloatStorage", b"DoubleStorage")),
}


@pytest.mark.parametrize("name", MISFITS)
def test_tensors_that_do_not_fit_their_storage_are_refused(name, tmp_path):
    from samjax.convert.state_dict import open_state_dict

    path = zipped(tmp_path / "a.pth", b"}" + text("a") + tensor() + b"s.", others=[("archive/data/0", b"\0" * 16)])
    assert open_state_dict(path).tensors["a"].read().shape == (4,)  # the fixture itself is sound
    path = zipped(tmp_path / "b.pth", b"}" + text("a") + MISFITS[name] + b"s.", others=[("archive/data/0", b"\0" * 16)])
    refuse(path, "impossible shape|beyond its storage|larger than|missing|has 16 bytes|damaged")


def test_an_unknown_class_is_named_and_the_way_out_told(tmp_path):
    data = pickle.dumps({"model": {}, "scaler": Evil(np.random.default_rng, 1)})
    error = refuse(zipped(tmp_path / "a.pth", data), "default_rng")
    assert "torch.save(model.state_dict(), ...)" in str(error)


def test_compressed_entries_are_refused_before_they_are_unpacked(tmp_path):
    bomb = zipped(tmp_path / "bomb.pth", b"\0" * (200 << 20), compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 20
    refuse(bomb, "compressed or encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_listed_twice_is_refused(tmp_path):
    refuse(zipped(tmp_path / "a.pth", b"}.", others=[("archive/data.pkl", b"}.")]), "lists a file twice")


def test_a_huge_pickle_is_refused_at_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive, archive.open("archive/data.pkl", "w") as entry:
        for _ in range(65):
            entry.write(b"N" * (1 << 20))
    refuse(tmp_path / "a.pth", "takes more than 1 GB of memory")


def test_an_archive_of_something_else_is_named(tmp_path):
    refuse(zipped(tmp_path / "a.pth", b"hello", name="word/document.xml"), "not one by torch.save")
    script = zipped(tmp_path / "b.pth", b"}.", others=[("archive/constants.pkl", b")."), ("archive/code/a.py", b"")])
    refuse(script, "TorchScript")


FOREIGN = {
    "is empty": b"",
    "its pickle is damaged": pickle.dumps(0x1950A86A20F9469CFC6C, 2),  # the beginning of PyTorch's before 1.6
    "single NumPy array": b"\x93NUMPY\x01\x00",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "web page": b"\n<!DOCTYPE html><html>not found</html>",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "no known format": b"something else entirely",
}


@pytest.mark.parametrize("problem", FOREIGN)
def test_a_file_of_another_format_is_named(problem, tmp_path):
    (tmp_path / "sam.pth").write_bytes(FOREIGN[problem])
    refuse(tmp_path / "sam.pth", problem)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    refuse(tmp_path / "nowhere.pth", "does not exist")
    refuse(tmp_path, "holds no checkpoint")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999, 0.999999])
def test_a_truncated_file_is_refused(suffix, share, sound, tmp_path):
    path = tmp_path / f"sam{suffix}"
    path.write_bytes(sound[suffix][: int(share * len(sound[suffix]))])
    refuse(path)


def read_or_refuse(path):
    """Damage may miss everything that matters, but whatever is read is a whole model, and nothing else is raised."""
    start = time.process_time()
    try:
        config, params = convert.read(path)
    except CheckpointError:
        config, params = None, None
    assert time.process_time() - start < 2  # a second, and the runtime checks of the tests
    return config, params


@given(st.data())
def test_flipped_bits_of_a_pth_are_found(sound, tmp_path_factory, data):
    """Every byte of a zip archive that carries meaning is covered by a checksum or compared with another."""
    content = bytearray(sound[".pth"])
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("flipped") / "sam.pth"
    path.write_bytes(content)
    config, params = read_or_refuse(path)
    if config is not None:
        convert.write(path, config, params, overwrite=True)
        assert path.read_bytes() == sound[".pth"]


@settings(max_examples=20)  # each writes and reads four files
@given(st.integers(0, 15_000), st.binary(min_size=1, max_size=40))
@example(0, b"PK\x05\x06")
def test_overwritten_bytes_never_raise_anything_else(sound, tmp_path_factory, position, patch):
    for suffix, content in sound.items():
        path = tmp_path_factory.mktemp("patched") / f"sam{suffix}"
        path.write_bytes(content[:position] + patch + content[position + len(patch) :])
        read_or_refuse(path)
        # The same among the last bytes, where a zip archive keeps its directory.
        at = len(content) - position
        path.write_bytes(content[:at] + patch + content[at + len(patch) :])
        read_or_refuse(path)


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
    from samjax.convert.pickle_reader import read_pickle

    data = pickle.dumps(value, protocol)
    read = read_pickle(b"before" + data + b"after", "file", 6)
    assert read.end == 6 + len(data)
    if protocol > 2 or b"_codecs" not in data:  # bytes are texts to be encoded before
        assert repr(read.value) == repr(value)


@given(st.binary(max_size=300))
def test_any_pickle_gives_a_value_or_the_one_error(data):
    from samjax.convert.pickle_reader import read_pickle

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
    from samjax.convert.locate import locate
    from samjax.convert.pickle_reader import Global, Opaque, StorageReference, TensorReference, read_pickle

    try:
        value = read_pickle(b"".join([*instructions, b"."]), "fuzz").value
    except CheckpointError:
        return
    assert isinstance(
        value, int | str | list | dict | tuple | None | Opaque | StorageReference | TensorReference | Global
    )
    locate(value)


def test_a_hostile_safetensors_header_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for header in (
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}},
        {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}},
        {"a": "text"},
    ):
        content = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(content)) + content + b"\0" * 16)
        refuse(path)
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{" + b"\0" * 100)
    refuse(path)
    path.write_bytes(struct.pack("<Q", 200_000) + b'{"a":' * 40_000)
    refuse(path)


def test_ordinary_company_of_a_state_dict_does_no_harm(tmp_path):
    """argparse, numpy scalars, sets, devices: read as nothing, whatever protocol."""
    import argparse
    import pathlib

    from samjax.convert.torch_file import TorchArchive

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
