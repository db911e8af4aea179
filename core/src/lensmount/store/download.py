"""One download into a partial: resumed, checked while it streams, restarted when the source changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from lensmount.errors import IntegrityError, SourceError, StoreError
from lensmount.store.addresses import public
from lensmount.store.files import CHUNK, broken_promise, size_error, storing
from lensmount.store.lease import Partial
from lensmount.store.progress import Meter
from lensmount.store.transport import Policy, RangeError, TransientError, open_url

_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")
_ROOM = 16 << 20  # bytes that stay free in addition to the file itself
READ = 256 << 10

SECOND_HAND = ("third-party", "unverified")
"""What `Artifact.confidence` says of promises that were not read on the publisher's own page."""
SECOND_HAND_NOTE = " (the expected value is second-hand: it was not read on the publisher's own page)"


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadRequest:
    """A file to bring into the store.

    Attributes:
        address: What the file is known by; recorded. Never a signed or secret URL.
        url: Where to ask; never recorded nor shown with its query.
        name: For messages and the progress bar.
        size: Bytes, where promised.
        sha256: Hex digest, where promised.
        md5: Hex digest, where nothing better is.
        headers: For the request (`Authorization`); never recorded.
        second_hand: The promises are someone else's word, which a mismatch says.
        resolve: Makes the URL just before the request, for providers that sign short-lived ones; wins over `url`.
    """

    address: str
    url: str = field(repr=False)
    name: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    second_hand: bool = False
    resolve: Callable[[], str] | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """What a finished download turned out to be."""

    sha256: str
    size: int


class Sink:
    """Appends to a file and hashes what was appended.

    Args:
        path: The file; created if absent.
        digests: hashlib objects that have seen the file so far.

    Attributes:
        size: Bytes of the file.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, digests: list[Any]) -> None:
        self._path = path
        self._digests = digests
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        self.size = os.fstat(self._file).st_size

    def write(self, chunk: bytes) -> None:
        """Appends bytes.

        Raises:
            StoreError: The disk is full or the like; what was written before is in the file and is good.
        """
        view = memoryview(chunk)
        with storing(self._path, "writing"):
            while view:
                view = view[os.write(self._file, view) :]
        self.size += len(chunk)
        for digest in self._digests:
            digest.update(chunk)

    def close(self, *, sync: bool) -> list[Any]:
        """Closes the file; with `sync` its bytes are on the disk.

        Returns:
            The digests, complete.

        Raises:
            StoreError: The disk refused at last.
        """
        try:
            if sync:
                with storing(self._path, "writing"):
                    os.fsync(self._file)
        finally:
            os.close(self._file)
        return self._digests


class _RestartError(Exception):
    """The bytes so far are of no use."""


def download(request: DownloadRequest, partial: Partial, policy: Policy, meter: Meter) -> Received:
    """Brings the whole file into the partial, synced to the disk.

    Raises:
        IntegrityError: The size or a hash is not what was promised.
        SourceError: The source cannot serve, or the store cannot be written.
    """
    barren = total_tries = 0
    furthest = partial.size
    started_over = False
    while True:
        total_tries += 1
        pieces = partial.size > 0
        try:
            return _attempt(request, partial, policy, meter)
        except _RestartError:
            _truncate(partial)
            wait = 0.0
            barren += 1
            problem: SourceError = SourceError(
                f"{public(request.address)} keeps changing while it is downloaded", fix="try again later"
            )
        except IntegrityError as error:
            _truncate(partial)
            if not pieces or started_over:
                raise
            started_over = True  # the pieces may have been of two files: once more, in one
            wait, problem = 0.0, error
        except TransientError as error:
            problem = error.error
            wait = policy.pause(barren)
            if error.after is not None:
                if error.after > policy.retry_after_cap:
                    raise problem from error
                wait = max(error.after, wait if error.after == 0 else 0.0)
            barren = 0 if partial.size > furthest and not error.stalled else barren + 1
            furthest = max(furthest, partial.size)
        if barren >= policy.attempts or total_tries >= policy.total_attempts:
            raise problem
        time.sleep(wait)


def _truncate(partial: Partial) -> None:
    with storing(partial.path, "writing"), contextlib.suppress(FileNotFoundError):
        os.truncate(partial.path, 0)


def _attempt(request: DownloadRequest, partial: Partial, policy: Policy, meter: Meter) -> Received:
    offset = partial.size
    facts = partial.facts
    if offset and request.sha256 is None and not (partial.same_boot and (facts.get("etag") or facts.get("modified"))):
        raise _RestartError  # nothing could tell whether the pieces belong together
    if request.size is not None and offset > request.size:
        raise _RestartError
    headers = dict(request.headers)
    if offset:
        headers["Range"] = f"bytes={offset}-"
        validator = facts.get("etag") or facts.get("modified")
        if validator:
            headers["If-Range"] = str(validator)
    try:
        response = open_url(request.resolve() if request.resolve else request.url, headers, policy)
    except RangeError as error:
        if not offset:
            raise SourceError(f"{public(request.address)} refuses to be read", found="status 416") from None
        if error.total != offset:
            raise _RestartError from None
        response = None  # every byte is there; only the check was missing
    if response is None:
        return _finish(request, partial, _sink(request, partial), offset, offset)
    with response:
        start, total = _place(request, response, offset)
        seen = _validators(response)
        if start and facts.get("etag") and seen.get("etag") not in (None, facts.get("etag")):
            raise _RestartError
        if start and request.sha256 is None and not seen:
            raise _RestartError
        if request.size is not None and total is not None and total != request.size:
            raise _mismatch(request, f"{total:,} bytes", f"{request.size:,} bytes")
        if total is None and request.sha256 is None and request.md5 is None and not response.chunked:
            raise SourceError(
                f"{public(request.address)} does not say how long it is, so it cannot be known whole",
                expected="a Content-Length header, or a published sha256",
            )
        _check_room(partial.path.parent, (total or request.size or 0) - start)
        if start == 0:
            _truncate(partial)
            with storing(partial.lease, "writing"):
                partial.note(**seen)
        sink = _sink(request, partial)
        try:
            _stream(response, sink, partial, policy, meter, total, request)
        except BaseException:
            with contextlib.suppress(StoreError):  # the first error says more
                sink.close(sync=False)
            raise
    return _finish(request, partial, sink, sink.size, total)


def _validators(response: HTTPResponse) -> dict[str, str]:
    """Strong validators only: a weak one may stand for different bytes (RFC 9110, 13.1.5)."""
    etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    seen = {"etag": etag} if etag and not etag.startswith("W/") else {}
    if modified:
        seen["modified"] = modified
    return seen


def _place(request: DownloadRequest, response: HTTPResponse, offset: int) -> tuple[int, int | None]:
    """Where the body of a response starts in the file, and how long the file is."""
    length = response.headers.get("Content-Length", "")
    if response.status == 206:
        match = _RANGE.match(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset:
            raise _RestartError
        return offset, int(match[3]) if match[3] != "*" else None
    return 0, int(length) if length.isdigit() else None


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > 0 and free < needed + _ROOM:
        raise size_error(needed + _ROOM, free, folder)


def _sink(request: DownloadRequest, partial: Partial) -> Sink:
    """Opens the partial for appending, its hashes brought up to its end."""
    digests = [hashlib.sha256()]
    if request.md5 is not None:
        digests.append(hashlib.md5(usedforsecurity=False))
    with storing(partial.path, "writing"):
        if partial.size:
            with partial.path.open("rb", buffering=0) as handle:
                while chunk := handle.read(CHUNK):
                    for digest in digests:
                        digest.update(chunk)
                    partial.beat()
        return Sink(partial.path, digests)


def _stream(
    response: HTTPResponse,
    sink: Sink,
    partial: Partial,
    policy: Policy,
    meter: Meter,
    total: int | None,
    request: DownloadRequest,
) -> None:
    mark, mark_size = time.monotonic(), sink.size
    begun = sink.size
    limit = total if total is not None else request.size
    while True:
        try:
            chunk = response.read1(READ)
        except (OSError, HTTPException) as error:
            stalled = isinstance(error, TimeoutError) and sink.size - begun < policy.stall_bytes
            raise TransientError(_cut(request, f"{type(error).__name__}: {error}", limit), stalled=stalled) from error
        if not chunk:
            break
        sink.write(chunk)
        if limit is not None and sink.size > limit:
            raise _mismatch(request, "more bytes than promised", f"{limit:,} bytes")
        meter.at(sink.size, limit)
        partial.beat()
        now = time.monotonic()
        if now - mark > policy.stall_seconds:
            if sink.size - mark_size < policy.stall_bytes:
                slow = f"{sink.size - mark_size} bytes in {now - mark:.0f} s"
                raise TransientError(_cut(request, slow, limit), stalled=True)
            mark, mark_size = now, sink.size
    if limit is not None and sink.size < limit:
        raise TransientError(_cut(request, f"{sink.size:,} bytes", limit))


def _cut(request: DownloadRequest, found: str, total: int | None) -> SourceError:
    return SourceError(
        f"the download of {public(request.address)} was cut off",
        found=found,
        expected=f"{total:,} bytes" if total is not None else None,
        fix="run again: it goes on where it stopped",
    )


def _finish(request: DownloadRequest, partial: Partial, sink: Sink, size: int, total: int | None) -> Received:
    digests = sink.close(sync=True)
    found: dict[str, Any] = {digest.name: digest.hexdigest() for digest in digests}
    if request.size is not None and size != request.size:
        raise _mismatch(request, f"{size:,} bytes", f"{request.size:,} bytes")
    for name, promised in (("sha256", request.sha256), ("md5", request.md5)):
        if promised is not None and found[name] != promised.lower():
            raise _mismatch(request, f"{name} {found[name]}", f"{name} {promised}")
    if request.sha256 is None:  # a page that asks to log in would be trusted from now on
        with partial.path.open("rb") as handle:
            begins = handle.read(512).lstrip().lower()
        if begins.startswith((b"<!doctype html", b"<html")):
            fix = "see in a browser what it asks for: to log in, or another address; nothing was kept"
            raise IntegrityError(f"{public(request.address)} gives a web page", expected="the file itself", fix=fix)
    return Received(sha256=found["sha256"], size=size)


def _mismatch(request: DownloadRequest, found: str, expected: str) -> IntegrityError:
    fix = "nothing was kept; try again, and if it happens again ask the publisher whether the file was changed"
    if request.second_hand:
        fix += SECOND_HAND_NOTE
    return broken_promise(f"{request.name} from {public(request.address)}", found, expected, fix)
