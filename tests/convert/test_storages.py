"""Tensors are compared with the storage that they claim to lie in."""

import pytest
from example_instructions import STORAGE, tensor, text, zipped
from example_refusals import refuse

from samjax.convert.state_dict import open_state_dict

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
    path = zipped(tmp_path / "a.pth", b"}" + text("a") + tensor() + b"s.", others=[("archive/data/0", b"\0" * 16)])
    assert open_state_dict(path).tensors["a"].read().shape == (4,)  # the fixture itself is sound
    path = zipped(tmp_path / "b.pth", b"}" + text("a") + MISFITS[name] + b"s.", others=[("archive/data/0", b"\0" * 16)])
    refuse(path, "impossible shape|beyond its storage|larger than|missing|has 16 bytes|damaged")
