"""Embeddings on disk that take no more than a budget of bytes."""

import contextlib
import logging
import os
import re
from pathlib import Path

from samjax.embeddings import EmbeddingStore
from samjax.sam import Sam
from samjax.types import Embedding

BUDGET = 4_000_000_000  # bytes; an embedding of ViT-H has 4 million
_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}\.safetensors")  # `EmbeddingStore.path`

_log = logging.getLogger(__name__)


class BoundedStore:
    """An `EmbeddingStore` that makes room for the new by deleting what was not used for longest, of any model.

    A disk that is full or a file that is damaged costs a computation, not an answer.
    """

    def __init__(self, folder: Path, sam: Sam, budget: int = BUDGET) -> None:
        self._store, self._budget = EmbeddingStore(folder, sam), budget
        self.model_hash = self._store.model_hash

    def has(self, hash: str) -> bool:
        """True if the embedding of the photo with this hash is there."""
        return self._store.path_of(hash).is_file()

    def get(self, hash: str) -> Embedding | None:
        """The embedding of the photo with this hash; None if it is not there or cannot be read."""
        path = self._store.path_of(hash)
        try:
            embedding = self._store.get_of(hash)
        except (ValueError, OSError) as error:
            _log.warning("an embedding is made again: %s", error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        if embedding is not None:
            with contextlib.suppress(OSError):
                os.utime(path)
        return embedding

    def put(self, hash: str, embedding: Embedding) -> None:
        """Keeps an embedding, if the disk lets it."""
        try:
            path = self._store.put_of(hash, embedding)
            self._make_room(path)
        except OSError as error:
            _log.warning("embeddings are not kept on disk: %s", error)

    def _make_room(self, newest: Path) -> None:
        found = []
        for entry in os.scandir(self._store.folder):
            if _NAME.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.stat().st_mtime_ns, entry.stat().st_size, Path(entry.path)))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._budget:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size
