"""Bringing whole packages: every artifact through its source's finder, and one folder that looks like the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from lensmount.contracts.finder import Fetched, FetchOptions, Finder
from lensmount.errors import ArtifactNotFoundError, PluginError, SourceError
from lensmount.specs import Artifact, ModelCard, ModelPackage, Source
from lensmount.specs.imports import ask, call
from lensmount.specs.logs import log
from lensmount.store.addresses import parse_hub, parse_web, public, scheme_of
from lensmount.store.files import hash_file, link_or_copy, safe_name, write_atomic
from lensmount.store.https import require_pinned
from lensmount.store.offline import Missing, MissingFilesError, missing_error
from lensmount.store.store import Store

RECORD = ".lensmount-package.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedPackage:
    """A package on this machine, verified.

    Attributes:
        folder: A folder in which the files lie under their artifact names, or None where none could be made (a
            read-only store, or a file system without links); `files` holds good all the same.
        files: Paths by artifact name; read-only for the caller.
        sha256s: Hex digests by artifact name.
        sizes: Bytes by artifact name.
        revisions: The sources' resolved revisions by artifact name, where they have any.
        fingerprint: Identifies the weights: sha256 over the names and hashes.
    """

    folder: Path | None
    files: Mapping[str, Path]
    sha256s: Mapping[str, str]
    sizes: Mapping[str, int]
    revisions: Mapping[str, str]
    fingerprint: str


def fetch_artifact(artifact: Artifact, finders: Mapping[str, Finder], options: FetchOptions) -> Fetched:
    """Brings one artifact.

    Raises:
        SourceError: No plugin answers for its scheme; or as for `Finder.fetch`.
    """
    scheme = scheme_of(artifact.uri) or "file"
    if scheme not in finders:
        raise SourceError(
            f"no installed plugin fetches from {scheme}://",
            found=public(artifact.uri),
            expected="one of " + ", ".join(f"{known}://" for known in sorted(finders)),
            fix=f"pip install the plugin that brings the source {scheme!r}",
        )
    fetched: Fetched = ask(f"source {scheme!r}", Fetched, finders[scheme].fetch, artifact, options)
    return fetched


def fetch_uri(uri: str, finders: Mapping[str, Finder], options: FetchOptions, *, name: str | None = None) -> Fetched:
    """Brings one file from an address or path that the user typed.

    A web address has to hold its hash (`#sha256=…`) unless `options.allow_insecure`.

    Args:
        uri: `hf://owner/repo/file`, `https://…#sha256=…`, `file://…`, a plain path, or a plugin's scheme.
        finders: By scheme.
        options: How it may be fetched.
        name: What to call it; None for the last part of the address.

    Raises:
        SourceError: As for `fetch_artifact`; or an address without a hash.
    """
    scheme = scheme_of(uri)
    if scheme is None:
        uri, scheme = Path(uri).expanduser().absolute().as_uri(), "file"
    sha256 = None
    if scheme in ("https", "http"):
        require_pinned(uri, options)
        address = parse_web(uri)
        sha256 = address.sha256
        name = name or address.name
    name = name or public(uri).rstrip("/").rsplit("/", 1)[-1]
    return fetch_artifact(Artifact(name=safe_name(name), uri=uri, sha256=sha256), finders, options)


def fetch_beside(
    uri: str, fetched: Fetched, finders: Mapping[str, Finder], options: FetchOptions, name: str
) -> Path | None:
    """Brings another file of the folder that a fetched address lies in, of the same revision; None without one.

    On the web there is none without `options.allow_insecure`, for only `uri` says what it stands for, nor beside a
    signed address.
    """
    scheme, folder = scheme_of(uri), public(uri).partition("#")[0].rpartition("/")[0]
    if scheme in ("http", "https") and ("?" in uri or not options.allow_insecure):
        return None
    beside = f"{folder}/{quote(name) if scheme in ('http', 'https') else name}"
    if scheme == "hf":
        beside = str(replace(parse_hub(beside), revision=fetched.revision))
    try:
        return fetch_uri(beside, finders, options).path
    except ArtifactNotFoundError:
        return None


def fetch_package(
    card: ModelCard,
    package: ModelPackage,
    finders: Mapping[str, Finder],
    options: FetchOptions,
    *,
    store: Store | None = None,
) -> FetchedPackage:
    """Brings all artifacts of a package.

    Args:
        card: The model.
        package: One of its packages.
        finders: By scheme.
        options: How files may be fetched.
        store: Where the package's folder is made; None for the user's store.

    Raises:
        OfflineError: Offline; the error lists *every* file that is missing, and where to put each.
        SourceError: As for `fetch_artifact`; the first that fails.
    """
    got: dict[str, Fetched] = {}
    absent: list[Missing] = []
    for artifact in package.artifacts:
        try:
            got[artifact.name] = fetch_artifact(artifact, finders, options)
        except MissingFilesError as error:
            absent.extend(error.missing)
    if absent:
        raise missing_error(absent, f"{card.id} ({package.name})")
    sha256s = {name: fetched.sha256 for name, fetched in got.items()}
    fingerprint = fingerprint_of(sha256s)
    folder, files = _folder(card, package, got, fingerprint, store if store is not None else Store())
    for artifact in package.artifacts:
        found = got[artifact.name]
        log("store", "info", "fetched %s of %s: %d bytes, %s", public(artifact.uri), card.id, found.size, found.path)
    return FetchedPackage(
        folder=folder,
        files=files,
        sha256s=sha256s,
        sizes={name: fetched.size for name, fetched in got.items()},
        revisions={name: fetched.revision for name, fetched in got.items() if fetched.revision},
        fingerprint=fingerprint,
    )


def finders_for(package: ModelPackage, sources: Mapping[str, Source]) -> dict[str, Finder]:
    """The finders that a package's artifacts need, by scheme, out of the sources that plugins bring.

    Raises:
        PluginError: No plugin serves a scheme.
    """
    found = {}
    for artifact in package.artifacts:
        scheme = artifact.uri.partition("://")[0]
        if scheme not in sources:
            raise PluginError(
                f"no source for artifact {artifact.name!r}", found=public(artifact.uri), expected=", ".join(sources)
            )
        if scheme not in found:
            found[scheme] = call(sources[scheme].finder, f"source {scheme!r}", Finder)
    return found


def fetch_files(
    card: ModelCard, packages: Iterable[ModelPackage], sources: Mapping[str, Source], options: FetchOptions
) -> dict[str, FetchedPackage]:
    """Fetches several packages of a model, through the sources that plugins bring by scheme; they return by name.

    Raises:
        PluginError: No plugin serves a scheme.
        SourceError: As for `fetch_package`.
    """
    return {p.name: fetch_package(card, p, finders_for(p, sources), options) for p in packages}


def fingerprint_of(sha256s: Mapping[str, str]) -> str:
    """Identifies a set of files: sha256 over their sorted names and hashes."""
    return hashlib.sha256("".join(f"{name}\0{sha256s[name]}\n" for name in sorted(sha256s)).encode()).hexdigest()


def _common_root(files: Mapping[str, Path]) -> Path | None:
    """The folder in which all files already lie under their artifact names, if there is one."""
    roots = set()
    for name, path in files.items():
        parts = tuple(name.split("/"))
        if path.parts[-len(parts) :] != parts:
            return None
        roots.add(path.parents[len(parts) - 1])
    return roots.pop() if len(roots) == 1 else None


def _folder(
    card: ModelCard, package: ModelPackage, got: Mapping[str, Fetched], fingerprint: str, store: Store
) -> tuple[Path | None, dict[str, Path]]:
    originals = {name: fetched.path for name, fetched in got.items()}
    root = _common_root(originals)
    if root is not None:
        return root, originals
    folder = store.root.joinpath("models", *card.id.split("/"), f"{safe_name(package.name)}-{fingerprint[:12]}")
    files = {name: folder.joinpath(*name.split("/")) for name in got}
    changed = False
    for name, fetched in got.items():
        if _stands_for(files[name], fetched, store):
            continue
        many = len(got) > 1
        kinds: tuple[str, ...]
        if fetched.path.is_relative_to(store.root):
            # onnxruntime refuses external data behind a symbolic link that leaves the graph's folder
            kinds = ("hard", "copy") if many else ("hard", "soft", "copy")
        else:  # the hub's files and the user's own are linked by name, so that deleting them frees the space
            kinds = ("soft", "hard", "copy") if many else ("soft", "hard")
        try:
            kind = link_or_copy(fetched.path, files[name], kinds)
        except OSError:
            kind = None
        if kind is None or (kind == "copy" and hash_file(files[name])[0] != fetched.sha256):
            return None, originals
        changed = True
    if changed or not (folder / RECORD).exists():
        record = {
            "id": card.id,
            "package": package.name,
            "artifacts": {
                a.name: {"uri": public(a.uri), "sha256": got[a.name].sha256, "size": got[a.name].size}
                for a in package.artifacts
            },
        }
        try:
            write_atomic(folder / RECORD, json.dumps(record, indent=1).encode())
        except OSError:
            return folder, files
    return folder, files


def _stands_for(link: Path, fetched: Fetched, store: Store) -> bool:
    try:
        if link.samefile(fetched.path):
            return True
        return link.stat().st_size == fetched.size and store.verified_file(link) == fetched.sha256
    except OSError:
        return False
