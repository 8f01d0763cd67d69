"""Provenance of parameters, as plain values for the native checkpoint's manifest."""

import hashlib
from pathlib import Path
from typing import Any

from samjax import checkpoint

from .matching import Matched


def provenance_of(source: Path, matched: Matched) -> dict[str, Any]:
    """Returns name, format and sha256 of the source; a native checkpoint keeps the provenance that it has."""
    if matched.convention == "native":
        return checkpoint.describe(source).provenance
    hashes = {}
    for file in matched.files:
        with file.open("rb") as stream:
            hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"source": source.name, "source_format": matched.convention, "source_sha256": hashes}
