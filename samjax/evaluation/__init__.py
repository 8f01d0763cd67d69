"""Evaluation of masks: protocols of the field, their metrics, and data sets in their published layouts."""
