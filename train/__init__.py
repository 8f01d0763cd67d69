"""Training of Segment Anything, installed as `samjax.train`."""
