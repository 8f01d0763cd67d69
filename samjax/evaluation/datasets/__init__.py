"""Data sets to evaluate on, in their published layouts."""

from samjax.evaluation.datasets.bsds import AnnotatedEdges, Bsds, read_bsds

__all__ = ["AnnotatedEdges", "Bsds", "read_bsds"]
