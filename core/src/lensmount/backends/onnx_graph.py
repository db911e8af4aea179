"""What must be known of an ONNX file before onnxruntime opens it: that its data lies beside it, and its precision."""

from __future__ import annotations

from pathlib import Path


def check(path: Path) -> None:
    """Refuses a graph whose external data lies outside its folder; onnxruntime before 1.24 reads any path.

    Raises:
        ModelFileError: The file is missing, empty or not ONNX.
        UnsafeFileError: A tensor's data lies outside the graph's folder.
    """
