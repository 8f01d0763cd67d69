"""Interactive segmentation: a simulated user asks for masks and corrects them (SAM paper, Appendix A)."""

from .task import InteractiveTask

__all__ = ["InteractiveTask"]
