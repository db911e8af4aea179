"""Times, accuracy and int8 for lensmount: `lensmount bench`, `eval`, `tune`, and the int8 exporter.

Programs use `run`, `evaluate` and `tune`; the rest serves the commands and the exporter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "BenchReport": "lensmount_bench.harness",
    "EvalReport": "lensmount_bench.accuracy",
    "EvalRow": "lensmount_bench.accuracy",
    "Tuning": "lensmount_bench.tuning",
    "Variant": "lensmount_bench.harness",
    "VariantReport": "lensmount_bench.harness",
    "evaluate": "lensmount_bench.accuracy",
    "measure": "lensmount_bench.harness",
    "run": "lensmount_bench.harness",
    "tune": "lensmount_bench.tuning",
}

if TYPE_CHECKING:
    from lensmount_bench.accuracy import EvalReport as EvalReport
    from lensmount_bench.accuracy import EvalRow as EvalRow
    from lensmount_bench.accuracy import evaluate as evaluate
    from lensmount_bench.harness import BenchReport as BenchReport
    from lensmount_bench.harness import Variant as Variant
    from lensmount_bench.harness import VariantReport as VariantReport
    from lensmount_bench.harness import measure as measure
    from lensmount_bench.harness import run as run
    from lensmount_bench.tuning import Tuning as Tuning
    from lensmount_bench.tuning import tune as tune

__all__ = [
    "BenchReport",
    "EvalReport",
    "EvalRow",
    "Tuning",
    "Variant",
    "VariantReport",
    "evaluate",
    "measure",
    "run",
    "tune",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
