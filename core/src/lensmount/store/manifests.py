"""`lensmount.json`: a folder (or a repository) that says which model it holds.

    {
      "format": "lensmount",
      "format_version": 1,
      "card": { …the fields of ModelCard…, "packages": [ { …, "artifacts": [
          {"name": "weights.onnx", "path": "onnx-fp32/weights.onnx", "size": 1, "sha256": "…", "uri": "hf://…"} ] } ] }
    }

`path` is where the file lies below the manifest (default: `name`); `uri` is where it came from, and may be missing.
Size and sha256 are required: a folder that came on a stick is verified like a download. Unknown keys are refused, so
that a misspelt one is noticed. Reading runs no code and follows no link out of the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lensmount.errors import IntegrityError, ModelFileError, UnsafeFileError
from lensmount.specs import (
    Artifact,
    BatchPolicy,
    ModelCard,
    ModelPackage,
    Preprocess,
    Requirements,
    to_dict,
)

if TYPE_CHECKING:
    from lensmount.contracts.reading import ReadRequest

NAME = "lensmount.json"
FORMAT = "lensmount"
VERSION = 1
MAX_BYTES = 16 << 20

_NESTED: dict[str, type] = {
    "packages": ModelPackage,
    "artifacts": Artifact,
    "batch": BatchPolicy,
    "preprocess": Preprocess,
    "requirements": Requirements,
}
_PAIRS = ("settings", "recommended", "published")


def read(request: ReadRequest) -> ModelCard:
    """The reader of folders with a `lensmount.json`; see `read_manifest`."""
    return read_manifest(request.path)


def read_manifest(folder: Path) -> ModelCard:
    """The card of a folder with a `lensmount.json`; its artifacts' addresses are those files.

    Raises:
        ModelFileError: The manifest is missing or not valid, or a file is missing.
        UnsafeFileError: A file lies outside the folder.
    """
    path = folder / NAME
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnsafeFileError(f"{path} is absurdly large", expected=f"at most {MAX_BYTES:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read", found=f"{type(error).__name__}: {error.strerror}") from error
    card = parse_manifest(content, base_uri=folder.resolve().as_uri(), where=str(path))
    for package in card.packages:
        for artifact in package.artifacts:
            from lensmount.store.addresses import path_of

            _confined(path_of(artifact.uri), folder.resolve(), artifact.name)
    return card


def parse_manifest(content: bytes, *, base_uri: str, where: str = NAME) -> ModelCard:
    """The card that a manifest describes.

    Args:
        content: The file's bytes.
        base_uri: Address of the folder that the manifest lies in; artifacts get addresses below it.
        where: For messages.

    Raises:
        ModelFileError: It is not a valid manifest; the message names the key.
        UnsafeFileError: A path leaves the folder.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(content)
        json.dumps(data, ensure_ascii=False).encode()  # halves of surrogate pairs: no text, no path, no JSON again
    except UnicodeEncodeError as error:
        raise ModelFileError(f"{where} holds text that is no Unicode", found=repr(error.object[error.start])) from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{where} is not JSON", found=str(error)[:200], fix="make the bundle again: lensmount pull MODEL --to DIR"
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ModelFileError(f"{where} is not a lensmount manifest", expected=f'"format": "{FORMAT}"')
    if data.get("format_version") != VERSION:
        raise ModelFileError(
            f"{where} has another format version",
            found=repr(data.get("format_version"))[:40],
            expected=str(VERSION),
            fix="upgrade lensmount: pip install -U lensmount",
        )
    _refuse_unknown(data, {"format", "format_version", "card"}, "the manifest", where)
    raw = _with_addresses(data.get("card"), base_uri, where)
    try:
        card = TypeAdapter(ModelCard).validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "card"
        raise ModelFileError(f"{where}: {place} is not valid", found=str(first["msg"])[:300]) from error
    except RecursionError as error:
        raise ModelFileError(
            f"{where} is nested too deeply", fix="make the bundle again: lensmount pull MODEL --to DIR"
        ) from error
    return card


def write_manifest(card: ModelCard, folder: Path, *, paths: Mapping[tuple[str, str], str] | None = None) -> Path:
    """Writes a `lensmount.json` for files that lie in a folder; sizes and hashes are taken from the files.

    Args:
        card: The model; its artifacts' addresses are kept as their origin.
        folder: Where the files are.
        paths: Where each file lies below the folder, by package and artifact name; where not given, at
            `<package>/<artifact>` or else `<artifact>`.

    Returns:
        The manifest's path.

    Raises:
        ModelFileError: A file is missing.
        IntegrityError: A file is not what the card promises.
        OSError: The manifest cannot be written; none is left half-written.
    """
    from lensmount.store.addresses import public
    from lensmount.store.files import hash_file, write_atomic

    described = to_dict(card)
    for package, raw_package in zip(card.packages, described["packages"], strict=True):
        for artifact, raw in zip(package.artifacts, raw_package["artifacts"], strict=True):
            given = (paths or {}).get((package.name, artifact.name))
            candidates = [given] if given else [f"{package.name}/{artifact.name}", artifact.name]
            place = next((c for c in candidates if _safe(c) and folder.joinpath(*c.split("/")).is_file()), None)
            if place is None:
                raise ModelFileError(f"{artifact.name} of package {package.name!r} is missing", expected=candidates[0])
            sha256, size = hash_file(folder.joinpath(*place.split("/")))
            if artifact.sha256 not in (None, sha256):
                raise IntegrityError(
                    f"{folder / place} is not what its card promises", found=sha256, expected=artifact.sha256
                )
            raw.update(path=place, size=size, sha256=sha256, uri=public(artifact.uri))
    content = json.dumps({"format": FORMAT, "format_version": VERSION, "card": described}, indent=1, ensure_ascii=False)
    path = folder / NAME
    write_atomic(path, content.encode() + b"\n")
    return path


def _with_addresses(card: Any, base_uri: str, where: str) -> Any:
    """Checks keys all the way down, turns lists of pairs into tuples, and puts addresses in the place of paths."""
    _check_keys(card, ModelCard, "card", where)
    card = dict(card)
    packages = []
    for package in card.get("packages") or []:
        package = dict(package)
        package["artifacts"] = [_address(a, base_uri, where) for a in package.get("artifacts") or []]
        packages.append(_frozen_pairs(package))
    card["packages"] = packages
    return _frozen_pairs(card)


def _address(artifact: dict[str, Any], base_uri: str, where: str) -> dict[str, Any]:
    artifact = dict(artifact)
    path = artifact.pop("path", None) or artifact.get("name")
    if not isinstance(path, str) or not _safe(path):
        raise UnsafeFileError(
            f"{where}: an artifact lies outside its folder",
            found=repr(path)[:200],
            expected="a relative path with forward slashes and no '..'",
        )
    for key in ("size", "sha256"):
        if artifact.get(key) is None:
            raise ModelFileError(f"{where}: artifact {path!r} has no {key}", expected=f"a {key}")
    artifact["uri"] = f"{base_uri.rstrip('/')}/{quote(path) if base_uri.startswith('file:') else path}"
    return artifact


def _safe(path: str) -> bool:
    parts = path.split("/")
    bad = "\\" in path or "\0" in path or re.match(r"^[A-Za-z]:", path) is not None
    return not bad and all(part not in ("", ".", "..") for part in parts)


def _confined(path: Path, folder: Path, name: str) -> None:
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ModelFileError(
            f"{name} is missing from {folder}", found=f"nothing at {path}", fix="bring the whole folder again"
        ) from error
    if not real.is_relative_to(folder):
        raise UnsafeFileError(f"{name} is a link out of its folder", found=str(real), expected=f"a file below {folder}")
    if not real.is_file():
        raise ModelFileError(f"{name} is not a file", found=str(real))


def _check_keys(data: Any, kind: type, place: str, where: str) -> None:
    if not isinstance(data, dict):
        raise ModelFileError(f"{where}: {place} is not an object", found=type(data).__name__)
    known = {f.name for f in fields(kind)} | ({"path"} if kind is Artifact else set())
    _refuse_unknown(data, known, place, where)
    for key, value in data.items():
        nested = _NESTED.get(key)
        if nested is None or value is None:
            continue
        if key in ("packages", "artifacts"):
            if not isinstance(value, list):
                raise ModelFileError(f"{where}: {place}.{key} is not a list", found=type(value).__name__)
            for index, item in enumerate(value):
                _check_keys(item, nested, f"{place}.{key}[{index}]", where)
        else:
            _check_keys(value, nested, f"{place}.{key}", where)


def _refuse_unknown(data: Mapping[str, Any], known: set[str], place: str, where: str) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise ModelFileError(
            f"{where}: {place} has keys that mean nothing here",
            found=", ".join(unknown)[:200],
            expected="some of " + ", ".join(sorted(known)),
        )


def _frozen_pairs(data: dict[str, Any]) -> dict[str, Any]:
    return {key: _frozen(value) if key in _PAIRS else value for key, value in data.items()}


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, _frozen(item)) for key, item in value.items())
    return value
