"""How good reconstructions are: clips x methods -> rows -> tables, charts, contact sheets.

The data path is clips (frames of a video, its gaze and samples) -> methods (frames back) ->
metrics (:mod:`deepfovea.metrics`) -> score (one clip) -> run (all clips, several processes) ->
table, plots.
"""

from .compare import compare
from .export import to_csv, to_latex
from .methods import BASELINES
from .report import from_json, to_json, to_markdown
from .result import Protocol, Result, Row
from .run import evaluate

__all__ = [
    "BASELINES",
    "Protocol",
    "Result",
    "Row",
    "compare",
    "evaluate",
    "from_json",
    "to_csv",
    "to_json",
    "to_latex",
    "to_markdown",
]
