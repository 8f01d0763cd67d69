"""Ways to train a network: transforms of its tree of parameters, which the network itself does not know."""

from .freezing import Frozen, freeze
from .lora import factor_scale
from .modes import MODES, Mode, chosen_modes, grown_network, grown_params, warn_of_unread
from .named import Named
from .patterns import Patterns
from .protocol import Trainable
from .trainable import abstract_network, make_trainable, trained_shapes

__all__ = [
    "MODES",
    "Frozen",
    "Mode",
    "Named",
    "Patterns",
    "Trainable",
    "abstract_network",
    "chosen_modes",
    "factor_scale",
    "freeze",
    "grown_network",
    "grown_params",
    "make_trainable",
    "trained_shapes",
    "warn_of_unread",
]
