"""Maps that a model made beside the true ones: two folders of pictures of the same names."""

import dataclasses
import hashlib
from collections.abc import Callable, Collection

import numpy as np
from jaxtyping import Integer

from samjax.evaluation.datasets.layout import listed
from samjax.readers import files
from samjax.readers.matching import stem
from samjax.readers.pictures import grey_from_bytes, labels_from_bytes

_LOSSLESS = (".bmp", ".gif", ".png", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class MapPair:
    """The predicted and the true map of one photo."""

    name: str
    predicted: Integer[np.ndarray, "H W"]
    truth: Integer[np.ndarray, "H W"]


class MapPairs:
    """A data set of `MapPair`, in the order of their names.

    Maps belong together whose names in the folders, without ending, are the same. What is predicted without a truth is
    left out.
    """

    def __init__(
        self,
        predicted: str,
        truth: str,
        read: Callable[[bytes, str], Integer[np.ndarray, "H W"]],
        endings: Collection[str],
    ) -> None:
        """`read` makes a map of a file's content and its path; the files are those with one of these endings.

        Raises ValueError if a folder is missing or has no maps or two of one name, or a true map has no prediction.
        """
        truths, predictions = _by_name(truth, endings), _by_name(predicted, endings)
        if missing := [name for name in truths if name not in predictions]:
            raise ValueError(
                f"{predicted} lacks {len(missing)} of the {len(truths)} maps in {truth}: {listed(missing)}"
            )
        self._names, self._read = list(truths), read
        self._predicted, self._truth = predictions, truths

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def __getitem__(self, index: int) -> MapPair:
        """Raises ValueError, naming the file, where a map is not as it should be, or the two differ in size."""
        name = self._names[index]
        predicted, truth = (
            self._read(files.read(paths[name]), paths[name]) for paths in (self._predicted, self._truth)
        )
        if predicted.shape != truth.shape:
            raise ValueError(
                f"{self._predicted[name]} has {predicted.shape[1]} x {predicted.shape[0]} pixels, "
                f"{self._truth[name]} has {truth.shape[1]} x {truth.shape[0]}; resize the prediction"
            )
        return MapPair(name, predicted, truth)

    def digests(self) -> dict[str, str]:
        """Digests of all files of either kind, which tell these maps from others of the same names."""
        found = {}
        for kind, paths in (("predicted", self._predicted), ("truth", self._truth)):
            digest = hashlib.sha256()
            for name in self._names:
                digest.update(hashlib.sha256(files.read(paths[name])).digest())
            found[kind] = digest.hexdigest()[:16]
        return found


def label_pairs(predicted: str, truth: str) -> MapPairs:
    """Label maps: one number a pixel, of 8 to 64 bits, or with a palette, whose indices count; see `MapPairs`."""
    return MapPairs(predicted, truth, labels_from_bytes, _LOSSLESS)


def grey_pairs(predicted: str, truth: str) -> MapPairs:
    """Grey maps of 8 bits; see `MapPairs`."""
    return MapPairs(predicted, truth, grey_from_bytes, files.PICTURES)


def _by_name(folder: str, endings: Collection[str]) -> dict[str, str]:
    """Paths of files by their relative names without ending, in the order of the names."""
    found: dict[str, str] = {}
    for name in files.names_in(folder, endings):
        if stem(name) in found:
            raise ValueError(f"{folder} has two maps called {stem(name)}: {found[stem(name)]} and {name}")
        found[stem(name)] = files.join(folder, name)
    if not found:
        raise ValueError(f"{folder} has no maps; expected files of the kinds {', '.join(sorted(endings))}")
    return found
