"""Classes that mimic segment_anything, over the functions of samjax."""
