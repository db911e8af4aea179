"""Which of lensmount's own distributions would help, for errors about something that is not installed."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Literal

from lensmount.specs.options import shipped

MARKERS = {"model_config.json": "lensmount-roboflow"}
"""Distributions that read folders, by the file that marks these."""

BARE_FILES = "lensmount-reading"
"""The distribution that reads single files and folders without a marker."""

EXPORTS = {("onnx", "int8"): 'pip install "lensmount[int8]"'}
"""What writes a precision of a target, where that is not the architecture."""

FORMATS = {
    name: f'pip install "lensmount[{extra}]"'
    for name, extra in (("onnx", "onnx"), ("torch", "torch"), ("engine", "tensorrt"), ("tflite", "litert"))
}
"""What brings a backend that opens packages of a format, where none is installed."""

BUILDERS = {"tensorrt": 'pip install "lensmount[tensorrt]"'}
"""What brings a backend that builds packages."""

SELECTORS = {"fastest": 'pip install "lensmount[bench]"'}
"""What brings a way to choose."""


def first_party(table: Literal["models", "commands"]) -> dict[str, list[str]]:
    """What lensmount's own distributions bring, installed or not: patterns of model ids, or names of commands."""
    return dict(shipped("first_party")[table])


def known_plugin(text: str) -> str | None:
    """The first-party plugin that has models of such an id."""
    table = first_party("models")
    return next((dist for dist, patterns in table.items() if any(fnmatch(text, p) for p in patterns)), None)
