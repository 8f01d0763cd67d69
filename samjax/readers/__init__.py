"""Annotated photos in the formats of others, for training and evaluation: photos with run-length-encoded masks."""
