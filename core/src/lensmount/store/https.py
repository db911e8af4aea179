"""`https://host/path#sha256=…`: files from the web, through the store.

Two doors. `fetch` serves artifacts of a catalogue: https without a published hash is accepted there, and what the
first download gave is recorded and checked ever after; plain http never is, without `allow_insecure`. `fetch_uri`
(in `lensmount.store.fetch`) serves an address that the user typed: it must hold its hash, or `allow_insecure`.
"""

from __future__ import annotations

from lensmount.contracts.finder import Fetched, FetchOptions
from lensmount.errors import SourceError
from lensmount.specs import Artifact
from lensmount.store.addresses import WebAddress, known_as, parse_web, public
from lensmount.store.download import SECOND_HAND, DownloadRequest
from lensmount.store.store import StoreFinder


class HttpsFinder(StoreFinder):
    """Answers for `https` and `http`."""

    def fetch(self, artifact: Artifact, options: FetchOptions) -> Fetched:
        """Brings a file of a catalogue; see `Finder.fetch`.

        Raises:
            SourceError: Plain http without `allow_insecure`; or as for `Store.obtain`.
        """
        address = parse_web(artifact.uri)
        request = download_request(artifact, address, options)
        if not options.refresh or request.sha256 is not None:
            return self._store.obtain(request, options)
        with self._store.ledger.forgotten(request.address):
            return self._store.obtain(request, options)


def download_request(artifact: Artifact, address: WebAddress, options: FetchOptions) -> DownloadRequest:
    """What to ask the store for.

    Raises:
        SourceError: Plain http without `allow_insecure`, or two hashes that disagree.
    """
    _require_secure(address, options)
    if address.sha256 and artifact.sha256 and address.sha256 != artifact.sha256:
        raise SourceError(
            f"two hashes are given for {artifact.name!r} and they differ",
            found=address.sha256,
            expected=artifact.sha256,
        )
    host = address.url.split("/")[2]
    token = options.credentials.get(host.rpartition("@")[2].split(":")[0])
    return DownloadRequest(
        address=known_as(address.url),
        url=address.url,
        name=artifact.name,
        size=artifact.size,
        sha256=artifact.sha256 or address.sha256,
        md5=artifact.md5,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        second_hand=artifact.confidence in SECOND_HAND,
    )


def require_pinned(uri: str, options: FetchOptions) -> None:
    """Refuses a web address typed by the user that does not say what it stands for.

    Raises:
        SourceError: No hash, or plain http, without `allow_insecure`.
    """
    address = parse_web(uri)
    if address.sha256 is None and not options.allow_insecure:
        raise SourceError(
            f"{public(uri)} does not say which content it stands for",
            expected=f"{public(uri)}#sha256=<64 hex digits>",
            fix="add the hash, or say that you trust what it gives the first time: `--allow-insecure`, "
            "FetchOptions(allow_insecure=True)",
        )
    _require_secure(address, options)


def _require_secure(address: WebAddress, options: FetchOptions) -> None:
    if not address.secure and not options.allow_insecure:
        raise SourceError(
            f"{public(address.url)} is plain http: anybody on the way can read and change it",
            expected="https",
            fix="use the https address, or say that you accept it: `--allow-insecure`, "
            "FetchOptions(allow_insecure=True)",
        )
