"""Times, accuracy and int8 for lensmount: `lensmount bench`, `eval`, `tune`, and the int8 exporter.

Programs use `run`, `evaluate` and `tune`; the rest serves the commands and the exporter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_bench.accuracy": ("EvalReport", "EvalRow", "evaluate"),
    "lensmount_bench.harness": ("BenchReport", "Variant", "VariantReport", "measure", "run"),
    "lensmount_bench.tuning": ("Tuning", "tune"),
}

if TYPE_CHECKING:
    from lensmount_bench.accuracy import EvalReport, EvalRow, evaluate
    from lensmount_bench.harness import BenchReport, Variant, VariantReport, measure, run
    from lensmount_bench.tuning import Tuning, tune

__all__ = [
    "BenchReport", "EvalReport", "EvalRow", "Tuning", "Variant", "VariantReport", "evaluate", "measure", "run", "tune",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
