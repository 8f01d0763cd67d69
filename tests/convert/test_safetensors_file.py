"""Hostile headers of safetensors files are refused."""

import json
import struct

from example_refusals import refuse


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
