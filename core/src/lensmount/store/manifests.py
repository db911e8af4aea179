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
from collections.abc import Mapping, Set
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lensmount.errors import IntegrityError, ModelFileError, UnsafeFileError
from lensmount.specs.descriptors import Artifact, ModelCard, to_dict
from lensmount.specs.parsing import from_dict
from lensmount.store.addresses import path_of, public
from lensmount.store.files import hash_file, write_atomic

if TYPE_CHECKING:
    from lensmount.contracts.requests import ReadRequest

NAME = "lensmount.json"
FORMAT = "lensmount"
VERSION = 1
MAX_BYTES = 16 << 20

_KEYS = frozenset({"path", *(field.name for field in fields(Artifact))})


def read(request: ReadRequest) -> ModelCard:
    """The reader of folders and repositories with a `lensmount.json`; see `read_manifest`."""
    if request.repository is not None:
        return parse_manifest((request.path / NAME).read_bytes(), base_uri=request.repository.uri)
    return read_manifest(request.given)


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
    try:
        return from_dict(ModelCard, _with_addresses(data.get("card"), base_uri, where), f"{where}: card")
    except RecursionError as error:
        raise ModelFileError(
            f"{where} is nested too deeply", fix="make the bundle again: lensmount pull MODEL --to DIR"
        ) from error


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
    """The card with addresses in the place of paths; values of a wrong type stay, and `from_dict` refuses them."""
    if not isinstance(card, dict):
        return card
    packages = card.get("packages")
    if isinstance(packages, list):
        packages = [_with_own_addresses(p, base_uri, f"card.packages[{i}]", where) for i, p in enumerate(packages)]
    return {**card, "packages": [] if packages is None else packages}


def _with_own_addresses(package: Any, base_uri: str, place: str, where: str) -> Any:
    if not isinstance(package, dict) or not isinstance(package.get("artifacts"), list):
        return package
    artifacts = [
        _with_address(artifact, base_uri, f"{place}.artifacts[{i}]", where)
        for i, artifact in enumerate(package["artifacts"])
    ]
    return {**package, "artifacts": artifacts}


def _with_address(artifact: Any, base_uri: str, place: str, where: str) -> Any:
    if not isinstance(artifact, dict):
        return artifact
    _refuse_unknown(artifact, _KEYS, place, where)
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


def _refuse_unknown(data: Mapping[str, Any], known: Set[str], place: str, where: str) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise ModelFileError(
            f"{where}: {place} has keys that mean nothing here",
            found=", ".join(unknown)[:200],
            expected="some of " + ", ".join(sorted(known)),
        )
