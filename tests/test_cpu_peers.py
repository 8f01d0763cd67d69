"""`benchmarks/cpu_peers.py` on the smallest model, with the peers that are installed."""

import importlib.util
import json

import pytest


@pytest.fixture
def cpu_peers(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "benchmarks")
    import cpu_peers

    return cpu_peers


def test_samjax_runs_alone_where_nothing_else_is_installed(cpu_peers, tmp_path, capsys):
    cpu_peers.main(["--variant", "vit_tiny", "--rounds", "2", "--peers", "samjax", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "cpu_peers.json").read_text())
    (record,) = result["records"]
    assert (record["peer"], record["precision"], len(record["runs"])) == ("samjax", "float32", 2)
    assert record["first"] > record["seconds"] > 0
    assert record["peak_start"] > 1e8
    assert result["machine"]["cores"] >= 1
    assert "| 1.00x as fast |" in (tmp_path / "cpu_peers.md").read_text()
    assert (tmp_path / "cpu_peers.md").read_text() in capsys.readouterr().out


@pytest.mark.parity
def test_peers_take_turns_and_give_the_features_of_metas_code(cpu_peers, tmp_path):
    for package in ("torch", "segment_anything", "onnx", "onnxscript", "onnxruntime", "openvino"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; benchmarks/cpu_peers_requirements.txt")
    peers = ("samjax", "eager", "onnxruntime", "openvino")
    cpu_peers.main(["--variant", "vit_tiny", "--rounds", "1", "--peers", *peers, "--out", str(tmp_path)])
    records = json.loads((tmp_path / "cpu_peers.json").read_text())["records"]
    assert len(records) == len(peers)
    for record in records:
        assert record["difference"] <= 1e-4


def test_a_peer_that_stops_says_why_and_the_others_go_on(cpu_peers, tmp_path, monkeypatch):
    """The second one finds no checkpoint."""
    worker = cpu_peers.Worker
    monkeypatch.setattr(
        cpu_peers, "Worker", lambda entrant, folder: worker(entrant, folder / entrant.peer.partition("samjax")[2])
    )
    cpu_peers.prepare("vit_tiny", (), tmp_path)
    field = [cpu_peers.Entrant(peer, cpu_peers.sys.executable) for peer in ("samjax", "samjax-bfloat16")]
    good, bad = cpu_peers.contest(field, 1, tmp_path)
    assert good["seconds"] > 0
    assert "FileNotFoundError" in bad["failed"] or "CheckpointError" in bad["failed"]
    assert f"| failed: {bad['failed']} |" in cpu_peers.table([good, bad])


def test_ratios_are_to_the_fastest_samjax_in_the_same_precision(cpu_peers):
    def record(peer, precision, seconds):
        return {"peer": peer, "precision": precision, "seconds": seconds, "first": 1, "peak_warm": 1, "peak_start": 1}

    ours = [("float32", 3.5), ("bfloat16", 6.0), ("bfloat16", 4.0), ("bfloat16", 5.0)]
    told = cpu_peers.table([record("OpenVINO", "bfloat16", 3.0), *(record("samjax", *of) for of in ours)])
    assert "| bfloat16 | 3.00 | 0.75x as fast |" in told


def test_peers_in_bfloat16_are_left_out_where_the_cpu_does_not_multiply_in_it(cpu_peers, monkeypatch):
    monkeypatch.setattr(cpu_peers, "machine", lambda: {"bfloat16": None})
    monkeypatch.setattr(cpu_peers, "missing", lambda entrant: [])
    field, reasons = cpu_peers.entrants((), None)
    assert {entrant.peer for entrant in field} == {"samjax", "eager", "compile", "onnxruntime", "openvino"}
    assert reasons["samjax-bfloat16"] == "this CPU does not multiply in bfloat16"
