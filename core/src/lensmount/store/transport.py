"""HTTP by the standard library: redirects that never leave https, and a typed error for every status.

The standard library rather than a client: huggingface_hub's own client has changed name and interface between its
major versions, and a download needs one request, exact headers and the bytes as they come.
"""

from __future__ import annotations

import email.utils
import functools
import os
import random
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse, InvalidURL
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from lensmount.errors import ArtifactNotFoundError, AuthenticationError, SourceError
from lensmount.store.addresses import public

MAX_REDIRECTS = 10
USER_AGENT = "lensmount"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient a download is.

    Attributes:
        attempts: Tries in a row that bring nothing, or come to a stall.
        total_attempts: Tries altogether.
        base: Seconds before the second try; doubled each time, with jitter.
        cap: Longest pause between tries.
        retry_after_cap: Longest pause that a server may ask for (`Retry-After`).
        timeout: Seconds without a single byte.
        stall_seconds: Over each such period at least `stall_bytes` must come.
        stall_bytes: See `stall_seconds`.
    """

    attempts: int = 5
    total_attempts: int = 100
    base: float = 0.5
    cap: float = 10.0
    retry_after_cap: float = 60.0
    timeout: float = 30.0
    stall_seconds: float = 60.0
    stall_bytes: int = 60 * 1024

    def pause(self, tries: int) -> float:
        """Seconds to wait after so many failed tries: doubled each time, capped, with jitter."""
        return min(self.cap, self.base * 2.0 ** min(tries, 30)) * random.uniform(0.5, 1.5)


class TransientError(Exception):
    """Worth another try.

    Args:
        error: What to raise when there is no other try.
        after: Seconds that the server asked for.
        stalled: It was too slow rather than cut, so what it brought does not count as progress.
    """

    def __init__(self, error: SourceError, after: float | None = None, *, stalled: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after
        self.stalled = stalled


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS
    max_repeats = 3
    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302  # Python 3.10 does not know it

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request:
        old, new = urlsplit(req.full_url), urlsplit(urljoin(req.full_url, newurl))
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme != "https"):
            raise _redirect_error(req.full_url, newurl)
        kept = dict(req.headers)
        if (old.hostname, old.port) != (new.hostname, new.port):
            kept.pop("Authorization", None)  # the token was meant for the first host alone
        target = newurl.replace(" ", "%20")
        return urllib.request.Request(target, headers=kept, origin_req_host=req.origin_req_host, unverifiable=True)


def _redirect_error(url: str, target: str) -> SourceError:
    return SourceError(
        f"{public(url)} redirects away from https; not followed", found=public(target), expected="an https address"
    )


@functools.lru_cache(maxsize=4)
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """The certificates to trust, read once for each setting (the arguments are there to tell settings apart)."""
    # Python installers for macOS ship no certificates; huggingface_hub's client always brings certifi
    if not file and not folder:
        paths = ssl.get_default_verify_paths()
        if not (paths.cafile or paths.capath):
            try:
                import certifi

                return ssl.create_default_context(cafile=certifi.where())
            except ImportError:
                pass
    return ssl.create_default_context()


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


Translate = Callable[[int, str, str], SourceError | None]


def open_url(url: str, headers: Mapping[str, str], policy: Policy, translate: Translate | None = None) -> HTTPResponse:
    """Asks for a URL; the response is 200 or 206, and open.

    Args:
        url: http or https.
        headers: Of the request; `Authorization` is not sent on to another host.
        policy: Timeouts.
        translate: A provider's own words for a status: `translate(status, reason, body)` gives an error, or None for
            the usual one. `body` is the answer's first few thousand characters.

    Raises:
        TransientError: Another try may work.
        RangeError: 416.
        SourceError: Or a child: it will not work.
    """
    request = urllib.request.Request(
        url, headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **dict(headers)}
    )
    try:
        response: Any = _opener().open(request, timeout=policy.timeout)
    except urllib.error.HTTPError as error:
        with error:
            known = translate(error.code, str(error.reason), _body(error)) if translate is not None else None
            raise known or _status_error(error, url) from None
    except (ValueError, InvalidURL) as error:  # its text, which a traceback shows too, may hold the query
        problem = f"{public(url)} leads to an address that cannot be read"
        raise SourceError(problem, found=type(error).__name__) from None
    except (urllib.error.URLError, OSError, HTTPException) as error:
        raise _connection_error(error, url) from error
    if response.status not in (200, 206):
        response.close()
        raise SourceError(f"{public(url)} answered with status {response.status}", expected="200 or 206")
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity"):
        response.close()
        raise SourceError(
            f"{public(url)} answers in a compressed form that was not asked for", found=encoding, expected="identity"
        )
    result: HTTPResponse = response
    return result


def read_small(
    url: str, headers: Mapping[str, str], policy: Policy, *, limit: int = 16 << 20, translate: Translate | None = None
) -> bytes:
    """Reads a small answer (a provider's metadata) whole, trying again where that may help.

    Raises:
        SourceError: Or a child; also when it is longer than `limit`.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            with open_url(url, headers, policy, translate) as response:
                try:
                    content = response.read(limit + 1)
                except (OSError, HTTPException) as error:
                    raise _connection_error(error, url) from error
                length = response.headers.get("Content-Length", "")
            if len(content) > limit:
                raise SourceError(f"{public(url)} is too long", expected=f"at most {limit:,} bytes")
            if length.isdigit() and len(content) < int(length):
                cut = SourceError(f"the answer of {public(url)} was cut off", fix="try again")
                raise TransientError(cut)
            return content
        except TransientError as error:
            wait = max(error.after or 0.0, policy.pause(attempt))
            if attempt >= policy.attempts or wait > max(policy.retry_after_cap, policy.cap * 2):
                raise error.error from error
        time.sleep(wait)


def _body(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(4096).decode("utf-8", "replace")
    except (OSError, HTTPException):
        return ""


class RangeError(Exception):
    """416: the server has no such range; `total` is the file's size where it says it."""

    def __init__(self, total: int | None) -> None:
        super().__init__("416")
        self.total = total


_GONE = (ArtifactNotFoundError, "{} does not exist", "check the address; a newer lensmount or plugin may know another")
_REFUSED = (
    AuthenticationError,
    "{} refuses access",
    "check that the address is still valid and that your account may read it; with a token: {}",
)
REFUSALS: dict[int, tuple[type[SourceError], str, str]] = {
    401: (AuthenticationError, "{} wants credentials", "pass a token: {}"),
    402: (AuthenticationError, "{} wants a payment or credits", "see the provider's account"),
    403: _REFUSED,
    404: _GONE,
    407: (AuthenticationError, "the proxy wants credentials", "set HTTPS_PROXY to http://user:password@proxy:port"),
    410: _GONE,
    451: _REFUSED,
}
"""The error, the problem (of an address) and the fix (with a token) by status."""


def _status_error(error: urllib.error.HTTPError, url: str) -> Exception:
    shown, status = public(url), error.code
    host = urlsplit(url).hostname or ""
    found = f"status {status} {error.reason or ''}".strip()
    token = f"FetchOptions(credentials={{{host!r}: token}})"
    if status in (301, 302, 303, 307, 308):
        target = urljoin(error.url or url, error.headers.get("Location") or "")
        if urlsplit(target).scheme not in ("http", "https"):
            return _redirect_error(url, target)
        return SourceError(
            f"{shown} redirects in a loop or too often", found=found, expected=f"at most {MAX_REDIRECTS} redirects"
        )
    if status in REFUSALS:
        kind, problem, fix = REFUSALS[status]
        return kind(problem.format(shown), found=found, fix=fix.format(token))
    if status == 416:
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        return RangeError(int(total) if total.isdigit() else None)
    if status == 429:
        after = retry_after(error.headers.get("Retry-After"))
        wait = f" in {after:.0f} s" if after is not None else " later"
        return TransientError(
            SourceError(f"{shown} has had too many requests", found=found, fix=f"try again{wait}, or with a token"),
            after,
        )
    if status >= 500 or status == 408:
        return TransientError(
            SourceError(f"{shown} is out of order", found=found, fix="try again later; what is there so far is kept"),
            retry_after(error.headers.get("Retry-After")),
        )
    return SourceError(f"{shown} cannot be downloaded", found=found, expected="status 200")


def _connection_error(error: Exception, url: str) -> Exception:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    host = urlsplit(url).hostname
    if isinstance(reason, SourceError):
        return reason
    if isinstance(reason, ssl.SSLCertVerificationError):
        return SourceError(
            f"the certificate of {host} is not trusted",
            found=str(reason.verify_message),
            fix="where a company proxy re-signs traffic, set SSL_CERT_FILE to its certificate",
        )
    fix = "check the network and HTTPS_PROXY; without a network, see `lensmount pull --to DIR`"
    if isinstance(reason, socket.gaierror):
        problem = f"the name {host} cannot be resolved"
    elif isinstance(reason, TimeoutError):
        problem = f"{host} does not answer"
    else:
        problem = f"the connection to {host} failed"
    return TransientError(SourceError(problem, found=f"{type(reason).__name__}: {reason}", fix=fix))


def retry_after(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for (RFC 9110: a number or a date), or None."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
