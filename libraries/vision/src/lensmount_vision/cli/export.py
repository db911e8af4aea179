"""`export`: another format of a model, checked against the original before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lensmount import registry
from lensmount.cli.output import err
from lensmount.cli.settings import ModelName, Offline, load_options
from lensmount.errors import OptionError


def export(
    model: ModelName,
    to: Annotated[str, typer.Option("--to", help="Format to write, or backend to build for: onnx, tensorrt.")] = "onnx",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File (or folder, for an engine).")] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, or int8 with --calibration; for an engine also bf16.")
    ] = "fp32",
    calibration: Annotated[
        str | None, typer.Option(help="int8: folder of pictures such as the model will see.")
    ] = None,
    calibration_count: Annotated[
        int | None, typer.Option(help="int8: most pictures to calibrate with; 128 by default.")
    ] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Dynamic batch (and size, where it can).")] = False,
    batch: Annotated[
        str | None, typer.Option(help="Batch of a static export; for an engine SMALLEST,BEST,LARGEST.")
    ] = None,
    nms: Annotated[str | None, typer.Option(help="none or embedded, for detectors with suppression.")] = None,
    device: Annotated[str | None, typer.Option(help="Engine: device to build for.")] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="Engine: NAME=SMALLEST,BEST,LARGEST, each like 1x3x640x640; repeatable.")
    ] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="Engine: file of timings, read and added to.")] = None,
    workspace: Annotated[int | None, typer.Option(help="Engine: MiB that tactics may use; all by default.")] = None,
    optimization_level: Annotated[int | None, typer.Option(help="Engine: 0 builds fastest, 5 runs fastest.")] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Engine: run on later TensorRTs; brings host code.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Engine: run on every GPU from Ampere on.")
    ] = False,
    options: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the architecture's export, NAME=VALUE; repeatable.")
    ] = None,
    offline: Offline = False,
) -> None:
    """Export a model to another format, compared with the original before it is kept; or build an engine from it."""
    console = err()

    given: dict[str, Any] = {
        "nms": nms,
        "shapes": dict(_named(text) for text in shape) if shape else None,
        "timing_cache": timing_cache,
        "workspace": None if workspace is None else workspace << 20,
        "optimization_level": optimization_level,
        "version_compatible": version_compatible or None,
        "hardware_compatible": hardware_compatible or None,
    }
    written = registry.export(
        model,
        to=to,
        output=output,
        precision=precision,
        dynamic=dynamic,
        batch=None if batch is None else _sizes(batch),
        offline=offline or None,
        device=device,
        calibration=calibration,
        calibration_count=calibration_count,
        notes=lambda line: console.print(line, highlight=False, markup=False),
        settings={name: value for name, value in given.items() if value is not None} | load_options(options),
    )
    console.print("wrote", end=" ")
    print(written)


def _sizes(text: str) -> int | list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise OptionError("--batch is not valid", found=text, expected="8, or SMALLEST,BEST,LARGEST such as 1,8,32")
    sizes = [int(part) for part in parts]
    return sizes[0] if len(sizes) == 1 else sizes


def _named(text: str) -> tuple[str, str]:
    name, equals, shapes = text.partition("=")
    if not (name and equals and shapes):
        raise OptionError("--shape is not valid", found=text, expected="NAME=1x3x320x320,8x3x640x640,16x3x960x960")
    return name, shapes
