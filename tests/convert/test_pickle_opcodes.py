"""Long histories, texts and bytes beside the state dict cost little, and the cost of a pickle is bounded."""

import zipfile

import pytest
from example_pickles import save
from example_refusals import refusal, refuse

from samjax import convert


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


def test_a_huge_pickle_is_refused_at_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive, archive.open("archive/data.pkl", "w") as entry:
        for _ in range(65):
            entry.write(b"N" * (1 << 20))
    refuse(tmp_path / "a.pth", "takes more than 1 GB of memory")
