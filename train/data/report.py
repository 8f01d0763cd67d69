"""What of a data set could not be used: a report that is appended to, and the decision to stop."""

import json
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from samjax.data.record import BadRecord, Record, Source
from samjax.names import portable

_FEW = 2  # bad records that never stop a run, unless there are no others


class TooManyBadRecords(ValueError):
    """More of the data set is bad than the configuration allows; the message names the report."""


class BadRecords:
    """Reads records of one source, reports what is wrong with them, and stops a run whose data are bad.

    The report has one line of JSON for each bad record, {"record": name, "bad": reason}, and one for each record of
    which annotations were left out, {"record": name, "left_out": [reasons]}. A line is one write to a file opened for
    appending, so threads, worker processes and later runs may share it, and what a killed process wrote stays.
    A record is reported once. Where a record is good that an earlier run reported as bad, {"record": name, "good":
    true} takes that back.

    A run stops with `TooManyBadRecords` as soon as it is certain or evident that more than `max_share` is bad, or where
    all records are. Certain: the report names more than that share of the whole source, and more than two, since a few
    unreadable photos are no reason to stop. Evident: of the records this process has seen, three standard deviations
    and three records more are bad than that share; then five bad ones in a row suffice, and a few early ones in a large
    source do not.
    """

    def __init__(self, path: str | os.PathLike[str], max_share: float = 0.01) -> None:
        """`path` is the report, a local file; `max_share` is `DataConfig.max_bad_share`.

        Raises OSError where the report cannot be written.
        """
        self.path = Path(path).absolute()
        self.max_share = max_share
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.open("ab").close()
        self._start()

    def load(self, source: Source, index: int) -> Record:
        """`source[index]`, reported where it or something in it is bad.

        Raises `BadRecord`, after reporting it, or `TooManyBadRecords`. Other errors (a network that is down) are not
        the record's fault and pass.
        """
        try:
            record = source[index]
        except BadRecord as error:
            self.add(source, index, str(error))
            raise
        with self._lock:
            self._see(index)
            self._read_others()
            name = portable(record.name)
            if name in self._bad:
                self._append({"record": name, "good": True})
            if record.problems and name not in self._left_out:
                self._append({"record": name, "left_out": list(record.problems)})
        return record

    def load_good(self, source: Source, index: int) -> tuple[int, Record]:
        """A record and its index: the one asked for or, where that is bad, the next good one, round the end.

        Which one depends on the source alone. Raises `TooManyBadRecords`, at the latest when all are bad.
        """
        for candidate in _round(index, len(source)):
            try:
                return candidate, self.load(source, candidate)
            except BadRecord:
                continue
        raise self._all_bad(len(source))

    def add(self, source: Source, index: int, reason: str) -> None:
        """Reports a record as bad. Raises `TooManyBadRecords`."""
        name, total = portable(source.name(index)), len(source)
        with self._lock:
            self._see(index)
            self._bad_here.add(index)
            self._read_others()
            if name not in self._bad:
                self._append({"record": name, "bad": reason})
            seen, here, known = self._seen_count, len(self._bad_here), len(self._bad)
        if here == total:
            raise self._all_bad(total)
        likely = self.max_share * seen
        evident = here > likely + 3 * math.sqrt(likely * (1 - self.max_share)) + 3
        if known > max(_FEW, self.max_share * total) or evident:
            bad, among = (here, f"the {seen} records that were read") if evident else (known, f"all {total} records")
            raise TooManyBadRecords(
                f"of {among} {bad} are bad, more than the {self.max_share:.2%} that data.max_bad_share allows. "
                f"{self.path} names them; the last was {name}: {reason}. Mend or remove them, or raise the limit"
            )

    def _all_bad(self, total: int) -> TooManyBadRecords:
        return TooManyBadRecords(f"all {total} records of the data are bad; {self.path} says why")

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._seen = bytearray()  # a bit for each record that was read here
        self._seen_count = 0
        self._bad_here: set[int] = set()
        self._bad: set[str] = set()  # in the report, whoever wrote it
        self._left_out: set[str] = set()
        self._read_until = 0  # bytes of the report
        self._cut_short = False  # whether its last line has no end

    def _see(self, index: int) -> None:
        byte, bit = index // 8, 1 << index % 8
        self._seen.extend(bytes(max(byte + 1 - len(self._seen), 0)))
        self._seen_count += not self._seen[byte] & bit
        self._seen[byte] |= bit

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        if self._cut_short:
            line = b"\n" + line
        # The system puts one write at the file's end as a whole; buffered writing might split it.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
        self._take(line)

    def _read_others(self) -> None:
        """Takes in what has been appended since, by whomever."""
        try:
            if self.path.stat().st_size <= self._read_until:
                return
            with self.path.open("rb") as file:
                file.seek(self._read_until)
                lines = file.read()
        except FileNotFoundError:
            return
        whole = lines[: lines.rfind(b"\n") + 1]
        self._cut_short = len(whole) < len(lines)  # by a full disk
        self._read_until += len(whole)
        for line in whole.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            name = entry["record"]
        except (ValueError, KeyError, TypeError):
            return
        if "bad" in entry:
            self._bad.add(name)
        elif "good" in entry:
            self._bad.discard(name)
        elif "left_out" in entry:
            self._left_out.add(name)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "max_share": self.max_share}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _round(index: int, count: int) -> Iterator[int]:
    yield from range(index, count)
    yield from range(index)
