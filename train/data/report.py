"""Report of the records that could not be used, which is appended to, and the decision to stop."""

import json
import math
import os
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samjax.names import portable
from samjax.readers.left_out import Problem, Reason, Tally, count_by_reason
from samjax.readers.record import BadRecord, NoObjects, Record, Source

_FEW = 2  # bad records that never stop a run, unless there are no others
_HOPELESS = 1000  # photos without objects before the first that has one: to look through all might take hours


class TooManyBadRecords(ValueError):
    """More of the data set is bad than the configuration allows; the message names the report."""


class BadRecords:
    """Reads records of one source, reports what is wrong with them, and stops a run whose data are bad.

    The report has lines of JSON:

        {"record": name, "flawed": text, "reason": kind}      known when the source was opened
        {"record": name, "bad": text, "reason": kind}         found when the record was read
        {"record": name, "good": true}                        takes back what an earlier run found bad
        {"record": name, "no_objects": true}                  a photo without objects, which is no flaw
        {"record": name, "left_out": [text, ...], "reasons": {kind: number}}   annotations of a record
        {"record": name, "noted": [text, ...], "reasons": {kind: number}}      flaws of annotations that are used

    A line is one write to a file opened for appending, so threads, worker processes and later runs may share it, and
    what a killed process wrote stays. A record is reported once of each kind.

    A run stops with `TooManyBadRecords` as soon as it is certain or evident that more than `max_share` is bad, or where
    all records are. Certain: the report names more than that share of the whole source, and more than two, since a few
    unreadable photos are no reason to stop. Evident: of the records this process has seen, three standard deviations
    and three records more are bad than that share; then five bad ones in a row suffice, and a few early ones in a large
    source do not. Photos without objects are not bad; a source of nothing else stops a run too.
    """

    def __init__(self, path: str | os.PathLike[str], max_share: float = 0.01) -> None:
        """`path` is the report, a local file; `max_share` is `DataConfig.max_bad_share`.

        Raises OSError if the report cannot be written.
        """
        self.path = Path(path).absolute()
        self.max_share = max_share
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.open("ab").close()
        self._start()

    def load(self, source: Source, index: int) -> Record:
        """`source[index]`, reported where it or something in it is bad.

        Raises `BadRecord`, after reporting it (`NoObjects` where the photo has none, which does not count as bad), or
        `TooManyBadRecords`. Other errors (a network that is down) are not the record's fault and pass.
        """
        if index in self._empty_here:
            raise NoObjects
        try:
            record = source[index]
        except BadRecord as error:
            self.add(source, index, str(error), error.reason)
            raise
        with self._lock:
            self._seen_here.add(index)
            self._read_others()
            name = portable(record.name)
            if name in self._bad:
                self._append({"record": name, "good": True})
            for kind, known, problems in (
                ("left_out", self._left_out, (*record.problems, *record.crowds)),
                ("noted", self._noted, record.noted),
            ):
                if problems and name not in known:
                    texts = [portable(str(problem)) for problem in problems]
                    self._append({"record": name, kind: texts, "reasons": count_by_reason(problems)})
            if not record.masks:
                self._empty_here.add(index)
                if name not in self._without_objects:
                    self._append({"record": name, "no_objects": True})
        if not record.masks:
            self._check_for_objects(len(source))
            raise NoObjects
        return record

    def load_good(self, source: Source, index: int, random: np.random.Generator | None = None) -> tuple[int, Record]:
        """A record and its index: the one asked for or, where that is bad, the next good one, round the end.

        Photos without objects may be most of a source, and lie together in it, so that with `random` the one in place
        of such a photo is drawn. Which one depends on the source and on `random` alone. Raises `TooManyBadRecords`, at
        the latest when there is no good record.
        """
        count = left = len(source)
        stride, drawn = 1, False
        while left:
            try:
                return index, self.load(source, index)
            except NoObjects:
                if random is not None and not drawn:
                    stride, drawn, left = _stride(count, random), True, count + 1
                    index = int(random.integers(count)) - stride
            except BadRecord:
                pass
            index = (index + stride) % count
            left -= 1
        raise self._all_bad(count)

    def add(self, source: Source, index: int, text: str, reason: Reason = Reason.OTHER) -> None:
        """Reports a record as bad. Raises `TooManyBadRecords`."""
        name, total = portable(source.name(index)), len(source)
        with self._lock:
            self._seen_here.add(index)
            self._bad_here.add(index)
            self._read_others()
            if name not in self._bad:
                self._append({"record": name, "bad": text, "reason": reason.value})
            seen, here, known = self._seen_here.count, len(self._bad_here), len(self._bad)
        if here + self._empty_here.count == total:
            raise self._all_bad(total)
        likely = self.max_share * seen
        evident = here > likely + 3 * math.sqrt(likely * (1 - self.max_share)) + 3
        if known > max(_FEW, self.max_share * total) or evident:
            bad, among = (here, f"the {seen} records that were read") if evident else (known, f"all {total} records")
            raise TooManyBadRecords(
                f"of {among} {bad} are bad, more than the {self.max_share:.2%} that data.max_bad_share allows. "
                f"{self.path} names them; the last was {name}: {text}. Mend or remove them, or raise the limit"
            )

    def add_known(self, flawed: Sequence[Problem], left_out: Tally) -> None:
        """Reports what was known to be left out when the source was opened; it does not stop a run before it is met.

        `left_out` counts `flawed` too, and what has no name: crowds, photos that are no records.
        """
        with self._lock:
            self._known, self._known_tally = frozenset(flaw.what for flaw in flawed), left_out
            self._read_others()
            for flaw in flawed:
                if flaw.what not in self._flawed:
                    self._append({"record": flaw.what, "flawed": flaw.detail, "reason": flaw.reason.value})

    def tally(self) -> Tally:
        """Numbers of all that is left out: known when the source was opened, or in the report, whoever wrote it."""
        with self._lock:
            self._read_others()
            photos = Counter(reason for name, reason in self._bad.items() if name not in self._known)
            photos[Reason.NO_OBJECTS.value] += len(self._without_objects)
            total = Tally(+photos, Counter(self._annotations), Counter(self._notes))
        total.add(self._known_tally)
        return total

    def _check_for_objects(self, total: int) -> None:
        """Raises `TooManyBadRecords` if no photo can be hoped to have an object."""
        empty = self._empty_here.count
        if len(self._bad_here) + empty == total:
            raise self._all_bad(total)
        if empty == self._seen_here.count >= _HOPELESS:
            raise TooManyBadRecords(
                f"none of the {empty} photos that were read, of {total}, has an object ({self.tally().explain()}). "
                f"{self.path} names them. Are the annotations those of these photos?"
            )

    def _all_bad(self, total: int) -> TooManyBadRecords:
        if not self._empty_here.count:
            return TooManyBadRecords(f"all {total} records of the data are bad; {self.path} says why")
        return TooManyBadRecords(
            f"none of all {total} records of the data has an object ({self.tally().explain()}); {self.path} names them"
        )

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._seen_here = _Indices()  # that were read by this process
        self._empty_here = _Indices()
        self._bad_here: set[int] = set()
        self._known: frozenset[str] = frozenset()
        self._known_tally = Tally()
        # In the report, whoever wrote it:
        self._flawed: set[str] = set()
        self._bad: dict[str, str] = {}  # with their reasons
        self._without_objects: set[str] = set()
        self._left_out: set[str] = set()
        self._noted: set[str] = set()
        self._annotations: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._read_until = 0  # bytes of the report
        self._cut_short = False  # whether its last line has no end

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
            self._bad[name] = entry.get("reason", Reason.OTHER.value)
        elif "good" in entry:
            self._bad.pop(name, None)
        elif "flawed" in entry:
            self._flawed.add(name)
        elif "no_objects" in entry:
            self._without_objects.add(name)
        for kind, known, counts in (
            ("left_out", self._left_out, self._annotations),
            ("noted", self._noted, self._notes),
        ):
            if kind in entry and name not in known:
                known.add(name)
                counts.update(entry.get("reasons", {Reason.OTHER.value: len(entry[kind])}))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "max_share": self.max_share}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


class _Indices:
    """A set of indices, in a bit each."""

    def __init__(self) -> None:
        self.bits = bytearray()
        self.count = 0

    def __contains__(self, index: int) -> bool:
        byte = index // 8
        return byte < len(self.bits) and bool(self.bits[byte] & 1 << index % 8)

    def add(self, index: int) -> None:
        byte, bit = index // 8, 1 << index % 8
        self.bits.extend(bytes(max(byte + 1 - len(self.bits), 0)))
        self.count += not self.bits[byte] & bit
        self.bits[byte] |= bit


def _stride(count: int, random: np.random.Generator) -> int:
    """A random step by which one comes to all of `count` indices before the first comes again."""
    while True:
        stride = int(random.integers(1, max(count, 2)))
        if math.gcd(stride, count) == 1:
            return stride
