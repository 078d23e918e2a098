"""Which heatmap is right: measures of maps, most of them against the scorer they explain.

Maps are arrays (N, H, W), or results of `jaxviz.occlude` and `jaxviz.attribution`; (H, W) for a
single image. What is random takes a `key`, and the same key gives the same numbers. What is
undefined is NaN, never 0. Every convention is stated in docs/metrics.md.
"""

from jaxviz.metrics.comparison import Comparison, Difference
from jaxviz.metrics.curves import Curve, SymmetricGain, deletion, insertion, srg
from jaxviz.metrics.debias import Road, road
from jaxviz.metrics.fidelity import mu_fidelity, sensitivity_n
from jaxviz.metrics.judge import compare, floors
from jaxviz.metrics.localization import energy_pointing_game, pointing_game
from jaxviz.metrics.robustness import infidelity, max_sensitivity
from jaxviz.metrics.sanity import Randomization, random_logit, randomization
from jaxviz.metrics.shape import complexity, sparseness
from jaxviz.perturbation.impute import neighbours

__all__ = [
    "Comparison",
    "Curve",
    "Difference",
    "Randomization",
    "Road",
    "SymmetricGain",
    "compare",
    "complexity",
    "deletion",
    "energy_pointing_game",
    "floors",
    "infidelity",
    "insertion",
    "max_sensitivity",
    "mu_fidelity",
    "neighbours",
    "pointing_game",
    "random_logit",
    "randomization",
    "road",
    "sensitivity_n",
    "sparseness",
    "srg",
]
