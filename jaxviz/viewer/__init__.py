"""One HTML file that shows a run: opened by a double click, without a server and without a network.

`report` reads results by their attributes, as `jaxviz.plot` does: an occlusion result carries the
positions that the page lets one point at; further results and arrays are layers beside it.
"""

from jaxviz.viewer._page import Report
from jaxviz.viewer._report import report

__all__ = ["Report", "report"]
