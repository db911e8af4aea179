"""Files next to an ONNX model that hold its weights: checked before any runtime opens them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
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
        _check_range(entry, *files[entry.location])
    return tuple(dict.fromkeys(path for path, _ in files.values()))


def bring_external_data(facts: OnnxFacts, graph: Path, bring: Callable[[str], Path | None]) -> dict[str, Path]:
    """Brings the files that a graph's tensors lie in, and makes sure that they are safe to use and whole.

    Args:
        facts: The graph's description.
        graph: The graph.
        bring: Answers with another file of the graph's folder, or of where the graph was downloaded from.

    Returns:
        The files by the name that the graph gives them.

    Raises:
        UnsafeFileError: As for `check_external_data`. Links may lead to the blobs of the same repository of the hub's
            cache.
        ModelFileError: A file is missing.
    """
    folder = graph.parent.resolve()
    roots = (folder, *_blobs(graph))
    brought: dict[str, tuple[Path, int]] = {}
    for entry in facts.external_data:
        name = entry.location
        if name not in brought:
            _check_name(entry)
            path = bring(name)
            if path is None:
                raise _missing(name, f"it is not beside {graph.name}")
            if path.samefile(graph):
                _refuse(entry, f"{printable(name)} is the graph itself", "another file")
            if path == graph.parent.joinpath(*name.split("/")):
                _check_file(entry, folder, roots)
            brought[name] = path, path.stat().st_size
        _check_range(entry, *brought[name])
    return {name: path for name, (path, _) in brought.items()}


def _blobs(graph: Path) -> tuple[Path, ...]:
    """Where the files of a repository of the hub's cache lie: `<repo>/snapshots/<commit>/…` are links into `blobs`."""
    blobs = graph.resolve().parent
    inside = blobs.name == "blobs" and blobs.parent / "snapshots" in graph.parent.resolve().parents
    return (blobs,) if inside else ()


def _missing(name: str, found: str) -> ModelFileError:
    return ModelFileError(
        f"the weights file {printable(name)} of the ONNX model is missing",
        found=found,
        fix="put it and the graph, which were written together, into one folder, and load the graph by its path "
        "(from an https address such files come along only with allow_insecure)",
    )


def _check_range(entry: ExternalData, path: Path, size: int) -> None:
    needed = entry.nbytes if entry.length is None else max(entry.length, entry.nbytes)
    if entry.offset + needed > size:
        _refuse(entry, f"bytes {entry.offset} to {entry.offset + needed} of {path.name}", f"a file of {size} bytes")


def _check_name(entry: ExternalData) -> None:
    marks = any(mark in entry.location for mark in '\\:\0*?"<>|')
    if marks or any(part in ("", ".", "..") for part in entry.location.split("/")):
        _refuse(entry, printable(entry.location), "a plain relative path")


def _check_file(entry: ExternalData, base: Path, roots: Sequence[Path]) -> tuple[Path, int]:
    location = entry.location
    _check_name(entry)
    path = base.joinpath(*location.split("/"))
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
    except (OSError, RuntimeError, ValueError) as error:
        raise _missing(location, f"no such file in {base}") from error
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
