"""Metrics of masks, edges and records, independent of how the masks were asked for."""
