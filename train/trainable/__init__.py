"""What of a network is trained: transforms of its tree of parameters, which the network itself does not know."""

from .freezing import Frozen, freeze
from .patterns import Patterns
from .protocol import Trainable
from .trainable import abstract_network, make_trainable

__all__ = ["Frozen", "Patterns", "Trainable", "abstract_network", "freeze", "make_trainable"]
