"""The artifact store: content-addressed files that are whole and verified, or absent.

    <root>/blobs/sha256/ab/abcdef…        the files, read-only, named by their content
    <root>/models/<id>/<package>/<name>   what a package looks like on disk: links to blobs (copies where links fail)
    <root>/verified/, <root>/references/  records: see `lensmount.store.ledger`
    <root>/partials/, <root>/locks/       unfinished downloads: see `lensmount.store.lease`

A blob appears by `os.replace` of a synced file whose hash was taken while it streamed. Locks only save bandwidth.
At each use its size and modification time are compared with the record made when it was verified; it is hashed
again when they differ, and by `lensmount cache verify`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from lensmount.contracts.finder import Fetched, FetchOptions
from lensmount.errors import IntegrityError, LensmountError
from lensmount.specs import Artifact, ModelCard
from lensmount.specs.offline import is_offline
from lensmount.store.download import DownloadRequest, Received, download
from lensmount.store.files import (
    broken_promise,
    check_md5,
    copy_verified,
    hash_file,
    remove,
    require_file,
    safe_name,
    store_error,
    storing,
    sync_folder,
    write_atomic,
)
from lensmount.store.lease import Partial, claim, somebody_works
from lensmount.store.ledger import Ledger, Reference, accept_change, key_of
from lensmount.store.locking import single_flight
from lensmount.store.offline import Missing, MissingFilesError, missing_error
from lensmount.store.progress import meter
from lensmount.store.transport import Policy


def default_root() -> Path:
    """`LENSMOUNT_HOME`, or the platform's cache folder for lensmount."""
    home = os.environ.get("LENSMOUNT_HOME")
    if home:
        return Path(home).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("lensmount", appauthor=False)


class Store:
    """A store below a folder.

    Args:
        root: Its folder; None for `default_root()`. Created on the first write.
        policy: Patience with servers.
    """

    def __init__(self, root: Path | None = None, *, policy: Policy | None = None) -> None:
        self.root = root if root is not None else default_root()
        self.policy = policy if policy is not None else Policy()
        self.ledger = Ledger(self.root)

    # --- what is there ------------------------------------------------------------------------------------------------

    def blob_path(self, sha256: str) -> Path:
        """Where the file of this content lies, or would lie."""
        return self.root / "blobs" / "sha256" / sha256[:2] / sha256

    def blob(self, sha256: str) -> Path | None:
        """The verified file of this content, or None.

        A file that is not what its name says is removed (or, in a read-only store, ignored).
        """
        path = self.blob_path(sha256)
        try:
            status = path.stat()
        except OSError:
            return None
        subject = f"blob:{sha256}"
        if self.ledger.verified(subject, path) == sha256:
            return path
        try:
            found, _ = hash_file(path)
        except OSError:
            return None
        if found == sha256:
            self.ledger.stamp(subject, path, sha256, status)
            return path
        with contextlib.suppress(OSError):
            now = path.stat()
            if (now.st_ino, now.st_mtime_ns) == (status.st_ino, status.st_mtime_ns):  # else somebody brought a good one
                remove(path)
        return None

    def lookup(self, address: str, sha256: str | None = None) -> Fetched | None:
        """What is there for an address: the content promised, or else what its first download gave."""
        reference = self.ledger.reference(address)
        promised = sha256 or (reference.sha256 if reference else None)
        path = self.blob(promised) if promised else None
        if path is None or promised is None:
            return None
        revision = reference.revision if reference and reference.sha256 == promised else None
        return Fetched(path=path, size=path.stat().st_size, sha256=promised, revision=revision)

    def verified_file(self, path: Path) -> str:
        """The sha256 of a file outside the store, from the record while its size and time are unchanged.

        Raises:
            SourceError: The file is not there or not readable.
        """
        real = path.resolve()
        require_file(real, str(path))
        subject = f"file:{real}"
        known = self.ledger.verified(subject, real)
        if known is not None:
            return known
        with storing(path, "reading"):
            before = real.stat()
            sha256, _ = hash_file(real)
            after = real.stat()
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            self.ledger.stamp(subject, real, sha256, after)
        return sha256

    # --- bringing files -----------------------------------------------------------------------------------------------

    def obtain(self, request: DownloadRequest, options: FetchOptions) -> Fetched:
        """Brings a file from the web, unless it is there.

        Args:
            request: What, from where, with what promises. Without a sha256 the first download is trusted, recorded,
                and every later one compared with it.
            options: Offline, progress.

        Raises:
            OfflineError: Offline and not there.
            IntegrityError: Not what was promised, or not what the first download gave.
            SourceError: Or a child: the source cannot serve, the store cannot be written.
        """
        found = self.lookup(request.address, request.sha256)
        if found is not None:
            return self._remembered(request, found)
        if is_offline(options.offline):
            raise self.missing(request)
        reference = self.ledger.reference(request.address)
        first = reference if reference is not None and request.sha256 is None else None
        promised = request.sha256 or (first.sha256 if first else None)
        key = promised or f"address-{key_of(request.address)}"
        folder = self.root / "partials" / key
        return single_flight(
            self.root / "locks" / f"{key}.lock",
            ready=lambda: self.lookup(request.address, request.sha256),
            busy=lambda: somebody_works(folder),
            work=lambda: self._bring(request, first, folder, options),
        )

    def _bring(self, request: DownloadRequest, first: Reference | None, folder: Path, options: FetchOptions) -> Fetched:
        with storing(folder, "creating"):
            partial = claim(folder)
        keep = True
        try:
            fetched = self._download(request, first, partial, options)
            keep = False
            # recorded before lease and lock are given up: who waited for them looks the address up
            return self._remembered(request, fetched)
        except IntegrityError:
            keep = False
            raise
        finally:
            partial.release(keep=keep)
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _download(
        self, request: DownloadRequest, first: Reference | None, partial: Partial, options: FetchOptions
    ) -> Fetched:
        """Downloads into a partial and moves that to its place."""
        asked = request if first is None else replace(request, sha256=first.sha256, size=request.size or first.size)
        try:
            with meter(request.name, options.progress) as bar:
                received = download(asked, partial, self.policy, bar)
            path = self._commit(partial.path, received)
        except IntegrityError as error:
            if first is not None:
                error.fix = accept_change(request.address)
            raise
        return Fetched(path=path, size=received.size, sha256=received.sha256)

    def _commit(self, part: Path, received: Received) -> Path:
        """Moves a finished, synced partial to its place."""
        path = self.blob_path(received.sha256)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            status = part.stat()
            if status.st_size != received.size:
                raise IntegrityError(
                    f"{part} was changed by another program",
                    found=f"{status.st_size:,} bytes",
                    expected=f"{received.size:,} bytes",
                    fix="run again",
                )
            part.chmod(0o444)
            part.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            if isinstance(error, IntegrityError):
                raise
            # our partial was taken over while we slept, or Windows holds the same content open: is it there?
            found = self.blob(received.sha256)
            if found is None:
                raise store_error(error, path, "writing") from error
            return found
        self.ledger.stamp(f"blob:{received.sha256}", path, received.sha256, path.stat())
        return path

    def _remembered(self, request: DownloadRequest, fetched: Fetched) -> Fetched:
        """Checks the size promised and records what the address stands for."""
        if request.size is not None and fetched.size != request.size:
            raise IntegrityError(
                f"{request.name} is not of the size promised",
                found=f"{fetched.size:,} bytes",
                expected=f"{request.size:,} bytes",
            )
        known = self.ledger.reference(request.address)
        if known is not None and known.sha256 != fetched.sha256 and request.sha256 is None:
            raise IntegrityError(
                f"{request.address} gave two contents to two downloads at a time",
                found=f"sha256 {fetched.sha256}",
                expected=f"sha256 {known.sha256}",
                fix="run again",
            )
        try:
            self.ledger.remember(request.address, fetched, published=request.sha256 is not None)
        except OSError as error:
            if request.sha256 is None:  # trust that is not written down could not be checked ever after
                raise store_error(error, self.ledger.reference_path(request.address), "writing") from error
        return fetched

    def disown(self, address: str, error: LensmountError) -> None:
        """Forgets what an address gave where that cannot be used; its next use asks again, which the error says."""
        known = self.ledger.reference(address)
        if known is not None and not known.published:
            self.ledger.forget(address)
            said = f"forgotten, as `lensmount cache rm --address {address} --yes` does: the next load asks again"
            error.fix = f"{error.fix or 'see what it is'}; what {address} gave is {said}"

    def adopt(self, source: Path, *, address: str, sha256: str | None = None) -> Fetched:
        """Copies a file that the user brought, or that lies in a wheel, into the store.

        Args:
            source: The file.
            address: The address that it stands for from now on.
            sha256: What it has to be, where known.

        Raises:
            IntegrityError: It is something else.
            StoreError: The store cannot be written.
        """
        require_file(source, str(source))
        digest, size = hash_file(source)
        request = DownloadRequest(address=address, url="", name=source.name, sha256=sha256)
        if sha256 is not None and digest != sha256:
            raise IntegrityError(f"{source} is not {address}", found=f"sha256 {digest}", expected=f"sha256 {sha256}")
        path = self.blob(digest)
        if path is None:
            path = self.blob_path(digest)
            with storing(path, "writing"):
                copy_verified(source, path, digest)
                path.chmod(0o444)
            self.ledger.stamp(f"blob:{digest}", path, digest, path.stat())
        return self._remembered(request, Fetched(path=path, size=size, sha256=digest))

    # --- what providers say -------------------------------------------------------------------------------------------

    def keep_answer(self, provider: str, subject: str, answer: bytes) -> None:
        """Keeps what a provider said, for later use without a network. A read-only store keeps nothing.

        Args:
            provider: Name of the source (`roboflow`).
            subject: What was asked: any text.
            answer: The bytes to keep; leave out tokens and signed addresses.
        """
        with contextlib.suppress(OSError):
            write_atomic(self._answer_path(provider, subject), answer)

    def kept_answer(self, provider: str, subject: str) -> bytes | None:
        """What `keep_answer` kept last, or None."""
        try:
            return self._answer_path(provider, subject).read_bytes()
        except OSError:
            return None

    def _answer_path(self, provider: str, subject: str) -> Path:
        return self.root / "providers" / safe_name(provider) / f"{key_of(subject)}.json"

    def missing(self, request: DownloadRequest) -> MissingFilesError:
        """The error for a file that is needed offline."""
        reference = self.ledger.reference(request.address)
        sha256 = request.sha256 or (reference.sha256 if reference else None)
        place = str(self.blob_path(sha256)) if sha256 else f"`lensmount cache add FILE {request.address}`"
        item = Missing(name=request.name, address=request.address, place=place, size=request.size, sha256=sha256)
        return missing_error((item,), request.name)


class StoreFinder:
    """What the core's finders share.

    Args:
        store: Where files are kept and their hashes remembered; None for the user's store.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = store if store is not None else Store()

    def find(self, uri: str, options: FetchOptions) -> ModelCard | None:
        """None: such an address names one file, which is brought and then recognised by its content."""
        return None

    def _checked(self, path: Path, artifact: Artifact, what: str, fix: str) -> Fetched:
        """A file outside the store that is what its artifact promises; `what` names it, `fix` helps where it is not."""
        require_file(path, str(path))
        size = path.stat().st_size
        if artifact.size is not None and size != artifact.size:
            raise broken_promise(what, f"{size:,} bytes", f"{artifact.size:,} bytes", fix)
        sha256 = self._store.verified_file(path)
        if artifact.sha256 is not None and sha256 != artifact.sha256:
            raise broken_promise(what, f"sha256 {sha256}", f"sha256 {artifact.sha256}", fix)
        if artifact.sha256 is None and artifact.md5 is not None:
            check_md5(path, artifact.md5)
        return Fetched(path=path, size=size, sha256=sha256)
