"""From templates to a distribution on disk, whole or not at all.

`templates/common` and `templates/<kind>` hold what will lie there: a file that ends in `.tmpl` is text with places for
names (`string.Template`) and loses the ending, any other is copied as it is; `PACKAGE` in a path stands for the import
name, and `dot_` before a part of it for a dot. `templates/licences` has a text for each licence, and
`templates/kinds.json.tmpl` what differs between the kinds in the files that all share.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import date
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from lensmount.errors import InputError
from lensmount_testing.scaffold.names import Names

if TYPE_CHECKING:
    from importlib.abc import Traversable

SUFFIX = ".tmpl"
KINDS = ("model", "backend", "source", "cache")
LICENCES = ("Apache-2.0", "MIT", "BSD-3-Clause")


def render(names: Names, kind: str, *, licence: str = LICENCES[0], author: str | None = None) -> dict[str, bytes]:
    """The files of a new distribution.

    Args:
        names: What it is called.
        kind: One of `KINDS`.
        licence: SPDX id, one of `LICENCES`.
        author: Who has the copyright; None for "The lensmount-… authors".

    Returns:
        Contents by path below the distribution's folder, with forward slashes.

    Raises:
        InputError: No such kind or licence, or the author's name is not one line of text.
    """
    for what, found, known in (("kind", kind, KINDS), ("licence", licence, LICENCES)):
        if found not in known:
            raise InputError(f"there is no template of this {what}", found=repr(found), expected=", ".join(known))
    author = author if author is not None else f"The {names.distribution} authors"
    if not author.strip() or not author.isprintable():
        raise InputError("the author's name is not valid", found=repr(author), expected="one line of text")
    templates = resources.files(__package__).joinpath("templates")
    values = {
        **asdict(names),
        "licence": licence,
        "author": author,
        "author_quoted": json.dumps(author, ensure_ascii=False),  # a string of JSON is one of TOML
        "year": str(date.today().year),
        "bounds": bounds(),
    }
    values |= _kind_values(templates, kind, values)
    sources = {path: file for folder in ("common", kind) for path, file in _walk(templates.joinpath(folder))}
    for path, file in sources.items():
        if "/data/" in path:  # catalogues name the size and hash of what lies in the wheel
            stem, content = path.rpartition("/")[2].partition(".")[0], file.read_bytes()
            values |= {f"{stem}_size": str(len(content)), f"{stem}_sha256": hashlib.sha256(content).hexdigest()}
    files = {_target(path, names): _content(file, values) for path, file in sources.items()}
    (text,) = (file for path, file in _walk(templates.joinpath("licences")) if path.startswith(f"{licence}."))
    return {**files, "LICENSE": _content(text, values)}


def bounds(version: str | None = None) -> str:
    """What a plugin written today requires of the core: this release or a later one, up to the next that may break it.

    Args:
        version: The core's; None for the one installed.
    """
    from packaging.version import Version

    from lensmount import __version__

    found = Version(version or __version__)
    lowest = str(found) if found.is_prerelease else f"{found.major}.{found.minor}"
    return f">={lowest},<{found.major + 1}" if found.major else f">={lowest},<0.{found.minor + 1}"


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes all files below a folder that is not there yet.

    They are written next to it and moved into place at the end, so that a failure leaves nothing.

    Raises:
        InputError: The folder exists, or cannot be made.
    """
    folder = folder.expanduser().absolute()
    if folder.exists() or folder.is_symlink():
        raise InputError(
            f"{folder} exists already, and nothing is overwritten",
            expected="a folder to be made",
            fix=f"--output {folder}/lensmount-my-model" if folder.is_dir() else "--output another-folder",
        )
    try:
        with tempfile.TemporaryDirectory(prefix=".lensmount-new-plugin-", dir=folder.parent) as work:
            made = Path(work) / "made"
            for path, content in files.items():
                file = made.joinpath(*path.split("/"))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            made.rename(folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made",
            found=f"{type(error).__name__}: {error.strerror or error}",
            expected="a new folder in one that exists and can be written",
        ) from error


def _kind_values(templates: Traversable, kind: str, values: Mapping[str, str]) -> dict[str, str]:
    """The kind's own texts, as they stand in `pyproject.toml`."""
    text = templates.joinpath(f"kinds.json{SUFFIX}").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(Template(text).substitute(values))[kind]
    return {
        "description": table["description"],
        "dependencies": json.dumps(table["dependencies"]),
        "folders": json.dumps(table["folders"]),
        "extras": "\n".join(f"{name} = {json.dumps(needs)}" for name, needs in table["extras"].items()),
    }


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """All files below a folder of templates, by path; what Python or an editor left there is none."""
    for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if item.is_dir() and item.name != "__pycache__":
            yield from _walk(item, f"{prefix}{item.name}/")
        elif item.is_file():
            yield prefix + item.name, item


def _target(path: str, names: Names) -> str:
    parts = path.removesuffix(SUFFIX).replace("PACKAGE", names.module).split("/")
    return "/".join(f".{part.removeprefix('dot_')}" if part.startswith("dot_") else part for part in parts)


def _content(file: Traversable, values: Mapping[str, str]) -> bytes:
    if not file.name.endswith(SUFFIX):
        return file.read_bytes()
    return Template(file.read_text(encoding="utf-8")).substitute(values).encode()
