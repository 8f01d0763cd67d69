"""The sections of `benchmarks/gpu.py`: one module for each thing that is measured, and what they share."""
