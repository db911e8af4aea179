"""Addresses: what the URIs of artifacts mean, and how they may be shown."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from lensmount.errors import SourceError

_SCHEME = re.compile(r"^([a-z][a-z0-9+._-]+)://", re.IGNORECASE)
_HUB = re.compile(
    r"^hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[^/@]+))?(?:/(?P<file>[^@]+))?$"
)
_WEB = re.compile(r"^https?:", re.IGNORECASE)  # also where a slash is missing
_QUERY = re.compile(r"\?[^\s?'\"()<>]+")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
COMMIT = re.compile(r"^[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """`hf://owner/repo[@revision][/file]`; a slash inside a revision is written `%2F`."""

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"hf://{self.repo}{revision}" + (f"/{self.file}" if self.file else "")

    @property
    def pinned(self) -> bool:
        """Whether the revision is a full commit, which can never name other content."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True, slots=True)
class WebAddress:
    """`https://host/path[#sha256=…]`.

    Attributes:
        url: What is asked for: no fragment, the path percent-encoded.
        sha256: The hash that the fragment promises, if it does.
        secure: https rather than http.
        name: The last part of the path.
    """

    url: str = field(repr=False)
    sha256: str | None
    secure: bool
    name: str


def scheme_of(text: str) -> str | None:
    """The scheme of a URI in lower case, or None for a path (a Windows drive is no scheme) or a model id."""
    match = _SCHEME.match(text)
    return match.group(1).lower() if match else None


def parse_hub(uri: str) -> HubAddress:
    """Reads an `hf://` address.

    Raises:
        SourceError: It is not one.
    """
    match = _HUB.match(uri)
    name = match["file"] if match else None
    if match is None or (name is not None and any(part in ("", ".", "..") for part in name.split("/"))):
        raise SourceError(
            "this is not an address on the Hugging Face hub",
            found=uri,
            expected="hf://owner/repo, hf://owner/repo@revision or hf://owner/repo@revision/path/to/file",
        )
    revision = unquote(match["revision"]) if match["revision"] else None
    return HubAddress(repo=match["repo"], revision=revision, file=name)


def parse_web(uri: str) -> WebAddress:
    """Reads an `https://` or `http://` address.

    Raises:
        SourceError: It is not one, holds a user name or password, or a fragment that is no sha256.
    """
    parts = split(uri)
    scheme = parts.scheme.lower()
    if scheme not in ("https", "http") or not parts.hostname:
        raise SourceError(
            "this is not a web address", found=public(uri), expected="https://host/path/file#sha256=<64 hex digits>"
        )
    if parts.username or parts.password:
        raise SourceError(
            "a web address may not hold a user name or password: it would end up in logs",
            found=public(uri),
            fix=f"pass the token apart from the address: FetchOptions(credentials={{{parts.hostname!r}: token}})",
        )
    sha256 = None
    if parts.fragment:
        kind, _, value = parts.fragment.partition("=")
        sha256 = value.lower()
        if kind != "sha256" or not _SHA256.fullmatch(sha256):
            raise SourceError(
                f"the fragment of {public(uri)} is not a hash",
                found=f"#{kind}=…" if value else "other text",
                expected="#sha256=<64 hex digits>",
            )
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    url = urlunsplit((scheme, parts.netloc, path, quote(parts.query, safe="/%:@!$&'()*+,;=~-._?"), ""))
    return WebAddress(url=url, sha256=sha256, secure=scheme == "https", name=unquote(path.rsplit("/", 1)[-1]) or "file")


def split(uri: str) -> SplitResult:
    """`urlsplit`, with the mistakes that it tells, and those that it keeps for later, as our own errors.

    Raises:
        SourceError: The host or port is malformed.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        scheme = uri.partition("://")[0][:40]
        raise SourceError(
            f"this is not a web address: {error}",
            found=f"{scheme}://…",  # what cannot be read may hold a password anywhere
            expected="https://host/path/file#sha256=<64 hex digits>",
        ) from None
    return parts


def public(uri: str) -> str:
    """The address as it may be shown and written down: without user, password, query (signatures) and fragment.

    Paths, model ids and addresses that cannot hold any of these stay as they are.
    """
    if not _WEB.match(uri) and scheme_of(uri) in (None, "file", "hf", "package"):
        return uri
    try:
        parts = split(uri)
    except SourceError as error:
        return error.found or ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host.lower() if _WEB.match(uri) else host, parts.path, "", ""))


def known_as(uri: str) -> str:
    """What the store remembers an address as: a query is part of what it means, and may be secret, so it is hashed."""
    plain, _, query = uri.partition("#")[0].partition("?")
    if not _WEB.match(uri):
        return uri.partition("#")[0]
    if not query or query.startswith("~"):  # as an error without a network says it
        return public(plain) + f"?{query}" * bool(query)
    return f"{public(plain)}?~{hashlib.sha256(parse_web(uri).url.partition('?')[2].encode()).hexdigest()[:16]}"


def unsigned(text: str) -> str:
    """Another library's message without the queries of the addresses in it."""
    return _QUERY.sub("?…", text)


def path_of(uri: str) -> Path:
    """The path that a `file://` URI or a plain path names.

    Raises:
        SourceError: The URI names another machine or is no file URI, or `~name` names no user.
    """
    scheme = scheme_of(uri)
    if scheme is None:
        try:
            return Path(uri).expanduser()
        except RuntimeError as error:
            raise SourceError(f"{uri!r} is below the home folder of nobody", found=str(error)) from error
    parts = split(uri)
    if scheme != "file" or parts.netloc not in ("", "localhost"):
        raise SourceError("this is not the address of a local file", found=uri, expected="file:///path/to/file")
    if os.name == "nt":
        from urllib.request import url2pathname  # it brings a client along

        return Path(url2pathname(parts.path))
    return Path(unquote(parts.path))
