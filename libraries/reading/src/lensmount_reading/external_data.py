"""Files next to an ONNX model that hold its weights: checked before any runtime opens them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading.facts import ExternalData, OnnxFacts
from lensmount_reading.text import printable

_MAX_LINKS_SEARCHED = 100_000


def check_external_data(
    facts: OnnxFacts, folder: str | os.PathLike[str], *, allowed_roots: Sequence[str | os.PathLike[str]] = ()
) -> tuple[Path, ...]:
    """Make sure that a model takes its weights from its own folder and that all of them are there.

    Args:
        facts: The model's description.
        folder: The folder that the model file lies in.
        allowed_roots: Further folders that links may lead to, such as the blobs of a content-addressed cache.

    Returns:
        The files, each once, resolved.

    Raises:
        UnsafeFileError: An absolute path, one with `..`, a symbolic link or hard link that leaves the folders, or a
            range beyond a file.
        ModelFileError: A file is missing.
    """
    base = Path(folder).resolve()
    roots = (base, *(Path(root).resolve() for root in allowed_roots))
    files: dict[str, tuple[Path, int]] = {}
    for entry in facts.external_data:
        if entry.location not in files:
            files[entry.location] = _check_file(entry, base, roots)
        path, size = files[entry.location]
        needed = entry.nbytes if entry.length is None else max(entry.length, entry.nbytes)
        if entry.offset + needed > size:
            _refuse(entry, f"bytes {entry.offset} to {entry.offset + needed} of {path.name}", f"a file of {size} bytes")
    return tuple(dict.fromkeys(path for path, _ in files.values()))


def _check_file(entry: ExternalData, base: Path, roots: Sequence[Path]) -> tuple[Path, int]:
    location = entry.location
    parts = location.split("/")
    if any(mark in location for mark in '\\:\0*?"<>|') or any(part in ("", ".", "..") for part in parts):
        _refuse(entry, printable(location), "a plain relative path")
    path = base.joinpath(*parts)
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelFileError(
            f"the weights file {printable(location)} of the ONNX model is missing",
            found=f"no such file in {base}",
            fix="put it next to the model file",
        ) from error
    if not any(resolved.is_relative_to(root) for root in roots):
        _refuse(entry, f"a link from {printable(location)} to {resolved}", f"a file inside {base}")
    if not stat.S_ISREG(status.st_mode):
        _refuse(entry, f"{printable(location)} is no regular file", "a regular file")
    if status.st_nlink > 1 and not _all_links_inside(status, roots):
        _refuse(entry, f"{printable(location)} has hard links outside the folder", f"a file inside {base} only")
    return resolved, status.st_size


def _all_links_inside(status: os.stat_result, roots: Iterable[Path]) -> bool:
    """Whether every hard link to a file lies in one of the folders: one outside would let another file be read."""
    left = status.st_nlink
    seen: set[str] = set()
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118  # os.walk gives strings; this loop may be long
                if path in seen or len(seen) >= _MAX_LINKS_SEARCHED:
                    continue
                seen.add(path)
                try:
                    found = os.lstat(path)
                except OSError:
                    continue
                left -= (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)
    return left <= 0


def _refuse(entry: ExternalData, found: str, expected: str) -> NoReturn:
    raise UnsafeFileError(
        f"the ONNX model is refused: the data of its tensor {printable(entry.tensor)} lie elsewhere",
        found=found,
        expected=expected,
        fix="do not use this file; ask its maker for one whose weights lie next to it",
    )
