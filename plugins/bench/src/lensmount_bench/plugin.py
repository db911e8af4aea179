"""Hooks of lensmount-bench. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Command, Exporter, Selector, hookimpl


@hookimpl
def lensmount_commands() -> Iterable[Command]:
    """Commands that measure."""
    yield Command(name="bench", app="lensmount_bench.cli.bench:bench", help="Time models.")
    yield Command(name="tune", app="lensmount_bench.cli.tune:tune", help="Find what is fastest on this machine.")
    yield Command(
        name="eval", app="lensmount_bench.cli.evaluate:evaluate", help="Measure accuracy on a labelled dataset."
    )


@hookimpl
def lensmount_exporters() -> Iterable[Exporter]:
    """ONNX graphs in int8."""
    yield Exporter(
        name="int8",
        target="onnx",
        precisions=("int8",),
        export="lensmount_bench.int8_export:export_int8",
        settings=("calibration", "calibration_count"),
        from_graph=True,
        description="quantised with calibration pictures, compared with the float graph before it is kept",
    )


@hookimpl
def lensmount_selectors() -> Iterable[Selector]:
    """The package that `tune` measured to be the fastest."""
    yield Selector(
        name="fastest", choose="lensmount_bench.fastest:choose", description="by the times that lensmount tune took"
    )
