"""Segment everything: masks of all objects in a photo."""
