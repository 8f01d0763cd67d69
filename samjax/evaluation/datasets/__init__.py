"""Data sets to evaluate on, in their published layouts."""

from samjax.evaluation.datasets.bsds import AnnotatedEdges, Bsds, read_bsds
from samjax.evaluation.datasets.choice import Chosen, First
from samjax.evaluation.datasets.formats import FORMATS, identity_of, open_dataset, parts_of
from samjax.evaluation.datasets.identity import digest, fingerprint
from samjax.evaluation.datasets.maps import MapPair, MapPairs, grey_pairs, label_pairs

__all__ = [
    "FORMATS",
    "AnnotatedEdges",
    "Bsds",
    "Chosen",
    "First",
    "MapPair",
    "MapPairs",
    "digest",
    "fingerprint",
    "grey_pairs",
    "identity_of",
    "label_pairs",
    "open_dataset",
    "parts_of",
    "read_bsds",
]
