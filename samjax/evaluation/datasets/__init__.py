"""Data sets to evaluate on, in their published layouts."""

from samjax.evaluation.datasets.bsds import AnnotatedEdges, Bsds, read_bsds
from samjax.evaluation.datasets.choice import Chosen
from samjax.evaluation.datasets.formats import FORMATS, open_dataset

__all__ = ["FORMATS", "AnnotatedEdges", "Bsds", "Chosen", "open_dataset", "read_bsds"]
