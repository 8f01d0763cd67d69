"""Segment everything in many photos: which photos, what of them is done, and the job that does the rest."""

from samjax.everything.job import Job, Summary, run
from samjax.everything.photos import find_photos
from samjax.pictures import photo_size

__all__ = ["Job", "Summary", "find_photos", "photo_size", "run"]
