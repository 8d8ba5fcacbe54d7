"""Evaluation: measures the quality of methods on clips, and makes tables, charts and reports.

The data path: ``clips`` reads the true frames; ``methods`` reconstruct them from samples;
``score`` applies the metrics (:mod:`deepfovea.metrics`) to one clip; ``run`` does so for all clips,
in several processes if wanted; ``report``, ``plots``, ``html`` and ``contact_sheets`` show the
result.
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
