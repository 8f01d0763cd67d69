"""What of a network is trained: transforms of its tree of parameters, which the network itself does not know."""

from .patterns import Patterns
from .trainable import Trainable, abstract_network, make_trainable

__all__ = ["Patterns", "Trainable", "abstract_network", "make_trainable"]
