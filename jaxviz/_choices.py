"""The words that options take, each list once: annotations, checks and the command line use it.

Imports nothing but typing, so that `jaxviz --help` does not import JAX.
"""

from typing import Literal

Method = Literal["auto", "dense", "incremental"]
Border = Literal["clip", "valid", "shift"]
Reduce = Literal["mean", "sum", "cell", "bilinear"]
Score = Literal["drop", "raw", "complement", "relative_drop", "log_odds_drop"]
