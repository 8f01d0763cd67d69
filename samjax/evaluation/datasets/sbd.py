"""SBD, the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011), in the layout of benchmark_RELEASE/dataset."""

import numpy as np

from samjax.evaluation.datasets import layout
from samjax.ops.rle import encode_rle
from samjax.readers import files
from samjax.readers.indexed import IndexedSource
from samjax.readers.masks import Findings, rles_from_labels
from samjax.readers.pictures import VOID, read_photo
from samjax.readers.record import BadRecord, Record

_PLACES = ("", "dataset", "benchmark_RELEASE/dataset")  # below what a user may name


class Sbd(IndexedSource):
    """The photos that SPLIT.txt lists, in its order: img/*.jpg with inst/*.mat; every instance is an object.

    An object's id is its number in GTinst.Segmentation, its category that in GTinst.Categories (1 to 20). What is not
    its own is background, as RITM judges it; 255 is void in photos of fewer instances. RITM's own val.txt has 2,820
    photos with 6,671 objects.
    """

    def __init__(self, folder: str, split: str = "val") -> None:
        """Raises ValueError if the layout is another, or listed photos are missing."""
        self._folder = layout.top(folder, "inst", _PLACES)
        path = files.join(self._folder, f"{split}.txt")
        try:
            self._names = tuple(files.read(path).decode().split())
        except FileNotFoundError:
            found = layout.found_in(self._folder)
            raise ValueError(f"expected {split}.txt, img and inst in {self._folder}, found {found}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no list of names: {error}") from error
        for place, ending in (("img", ".jpg"), ("inst", ".mat")):
            there = set(files.names_in(files.join(self._folder, place), (ending,)))
            missing = [f"{name}{ending}" for name in self._names if f"{name}{ending}" not in there]
            if missing:
                raise ValueError(
                    f"of the {len(self._names)} names in {path}, {len(missing)} have no file in "
                    f"{files.join(self._folder, place)}: {layout.listed(missing)}"
                )
        super().__init__(f"{path}, no name", len(self._names))

    def _name(self, index: int) -> str:
        return self._names[index]

    def _read(self, index: int) -> Record:
        name = self._names[index]
        found = Findings(name, read_photo(files.join(self._folder, f"img/{name}.jpg")))
        path = files.join(self._folder, f"inst/{name}.mat")
        content = layout.matlab(path, "GTinst")
        try:
            instances = content["Segmentation"][0, 0]
            categories = content["Categories"][0, 0].ravel().tolist()
        except (IndexError, KeyError, ValueError, TypeError) as error:
            raise BadRecord(f"GTinst of {path} has no Segmentation and Categories") from error
        if instances.shape != found.size:
            raise BadRecord(f"{path} is for {instances.shape} pixels (height, width), the photo has {found.size}")
        void = (instances == VOID) & (len(categories) < VOID)
        for number, rle in rles_from_labels(np.where(void, 0, instances)):
            category = int(categories[number - 1]) if number <= len(categories) else None
            found.add(f"instance {number}", rle, number, category)
        if void.any():
            found.add_void("void", encode_rle(void))
        return found.record()
