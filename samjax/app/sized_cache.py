"""A cache bounded in bytes that forgets what was not used for longest."""

import collections
import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class SizedCache(Generic[Value]):
    """Values by key, whose sizes add up to `budget` bytes at most; the newest stays whatever its size. Any number of
    threads may share one."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._entries: collections.OrderedDict[Hashable, tuple[Value, int]] = collections.OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """The value, which is then the one used last; None if there is none."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keeps a value of so many bytes, in place of any before it."""
        with self._lock:
            if key in self._entries:
                self._total -= self._entries.pop(key)[1]
            self._entries[key] = value, size
            self._total += size
            while self._total > self.budget and len(self._entries) > 1:
                _, (_, freed) = self._entries.popitem(last=False)
                self._total -= freed

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._entries

    @property
    def total(self) -> int:
        """Bytes that are kept."""
        return self._total
