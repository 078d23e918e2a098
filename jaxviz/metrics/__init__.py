"""Which heatmap is right: measures of maps, most of them against the scorer they explain."""

from jaxviz.metrics.curves import Curve, SymmetricGain, deletion, insertion, srg

__all__ = ["Curve", "SymmetricGain", "deletion", "insertion", "srg"]
