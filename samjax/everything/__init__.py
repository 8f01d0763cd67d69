"""Segment everything in many photos: the photos, the record of finished ones, and the job that does the others."""

from samjax.everything.job import Job, Summary, run
from samjax.everything.photos import find_photos
from samjax.pictures import photo_size

__all__ = ["Job", "Summary", "find_photos", "photo_size", "run"]
