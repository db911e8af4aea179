"""`hf://owner/repo[@revision][/file]`, through huggingface_hub's own cache, settings and token.

Nothing is copied into the store: files stay in the hub's cache, shared with every other tool. The store only
remembers their hashes (so that they are not taken again at each load) and, for files and repositories addressed
without a commit, which commit their first download gave: a moving branch does not change a model silently. What the
branch gives by now is said in a notice, and taken with `FetchOptions.refresh`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from lensmount.contracts.finder import Fetched, FetchOptions, Repository
from lensmount.errors import ArtifactNotFoundError, IntegrityError, SourceError
from lensmount.specs import Artifact
from lensmount.specs.offline import is_offline
from lensmount.store import hub_files as hub
from lensmount.store.addresses import COMMIT, HubAddress, parse_hub
from lensmount.store.download import SECOND_HAND, SECOND_HAND_NOTE
from lensmount.store.files import broken_promise, check_md5
from lensmount.store.hub_errors import NO_SUCH_FILE
from lensmount.store.ledger import accept_change, key_of
from lensmount.store.offline import MissingFilesError
from lensmount.store.store import Store, StoreFinder

ABSENT = ("nothing", "a file")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubFinder(StoreFinder):
    """Answers for `hf`."""

    def fetch(self, artifact: Artifact, options: FetchOptions) -> Fetched:
        """Brings a file of a repository into the hub's cache; see `Finder.fetch`.

        Raises:
            AuthenticationError: Gated or private, with how to log in.
            ArtifactNotFoundError: No such repository, revision or file.
            OfflineError: Offline and not in the hub's cache.
            IntegrityError: Not what was promised, or not what the first download gave.
        """
        asked = parse_hub(artifact.uri)
        if asked.file is None:
            raise SourceError("a file is needed", found=artifact.uri, expected=f"{artifact.uri}/path/to/file")
        offline, moving = is_offline(options.offline), artifact.sha256 is None and not asked.pinned
        refresh = moving and options.refresh
        address = self._remembered(asked) if moving and not refresh else asked
        newest, down = hub.newest_of(asked, options) if moving and not offline else (None, None)
        if newest is not None and not address.pinned:
            address = replace(address, revision=newest.commit)
        promised = artifact.sha256 or (None if refresh else self._first_hash(artifact, address))
        path = found = hub.cached(address, without_ref=offline or down is not None)
        wrong = self._wrong(artifact, path, promised)
        for force in (False, True):
            if wrong is None:
                break
            damaged = path is not None and self._damaged(path)
            if force and not damaged:
                break
            if offline:
                raise hub.absent(artifact, address, path if damaged else None)
            path = hub.download(address, options, force=force)
            wrong = self._wrong(artifact, path, promised)
        if path is None or wrong is not None:
            raise self._mismatch(artifact, address, wrong or ABSENT)
        if artifact.sha256 is None and artifact.md5 is not None:
            check_md5(path, artifact.md5)
        revision = hub.commit_of(path) or address.revision
        sha256 = self._store.verified_file(path)
        fetched = Fetched(path=path, size=path.stat().st_size, sha256=sha256, revision=revision)
        if down is not None and path == found:
            hub.notice(asked, f"is taken from the hub's cache: {down.problem}")
        if newest is not None and revision not in (None, newest.commit) and newest.files.get(asked.file) != sha256:
            hub.notice(asked, hub.newer(revision, newest.commit))
        with contextlib.suppress(OSError):  # a read-only home: the hub's cache still has the file and its hash
            self._store.ledger.remember(str(asked), fetched, published=artifact.sha256 is not None)
        return fetched

    def repository(self, uri: str, options: FetchOptions) -> Repository | None:
        """The repository of an address without a file; its files come into the hub's cache one by one.

        Raises:
            SourceError: As for `fetch`.
        """
        address = parse_hub(uri)
        known = self._remembered(address)
        return None if address.file else _Repository(self, self._store, known, address, options)

    def _remembered(self, address: HubAddress) -> HubAddress:
        """The address at the commit of its first download, if there was one."""
        known = None if address.pinned else self._store.ledger.reference(str(address))
        fixed = known is not None and COMMIT.fullmatch(known.revision or "")
        return replace(address, revision=known.revision) if known is not None and fixed else address

    def _first_hash(self, artifact: Artifact, address: HubAddress) -> str | None:
        for uri in (str(address), str(parse_hub(artifact.uri))):
            known = self._store.ledger.reference(uri)
            if known is not None:
                return known.sha256
        return None

    def _wrong(self, artifact: Artifact, path: Path | None, promised: str | None) -> tuple[str, str] | None:
        """What a file of the hub's cache is and what it should be, or None where it is that."""
        if path is None:
            return ABSENT
        size = path.stat().st_size
        if artifact.size is not None and size != artifact.size:
            return f"{size:,} bytes", f"{artifact.size:,} bytes"
        sha256 = self._store.verified_file(path)
        if artifact.sha256 is None and self._damaged(path):
            promised = path.resolve().name
        return None if promised in (None, sha256) else (f"sha256 {sha256}", f"sha256 {promised}")

    def _damaged(self, path: Path) -> bool:
        """Whether a large file of the hub's cache is not what the hub said: there its blob is named by its sha256."""
        blob = path.resolve()
        named = blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) is not None
        return named and self._store.verified_file(path) != blob.name

    def _mismatch(self, artifact: Artifact, address: HubAddress, wrong: tuple[str, str]) -> IntegrityError:
        if artifact.sha256 is None:
            fix = accept_change(str(parse_hub(artifact.uri)))
        else:
            fix = f"pin the revision that has this content: hf://{address.repo}@<commit>/{address.file}"
            if artifact.confidence in SECOND_HAND:
                fix += SECOND_HAND_NOTE
        return broken_promise(str(address), *wrong, fix)


class _Repository:
    """A repository at one commit: that of the first load (`known`), what the hub says, or that of the first file."""

    def __init__(
        self, finder: HubFinder, store: Store, known: HubAddress, asked: HubAddress, options: FetchOptions
    ) -> None:
        self._finder, self._store, self._asked, self._options = finder, store, asked, options
        self.address = asked if options.refresh else known
        self._listing: hub.Listing | None = None
        offline = is_offline(options.offline)
        if not offline and (not asked.pinned or self._kept() is None):
            self._ask()
        elif offline and not self.address.pinned:
            commit = hub.commit_in_cache(self.address)
            if commit is None:
                raise self._absent()
            self.address = replace(self.address, revision=commit)

    @property
    def uri(self) -> str:
        """Its address, at the commit that is used."""
        return str(self.address)

    def _ask(self) -> None:
        """Finds out what the hub says; where it cannot be asked, goes on with what is in its cache."""
        newest, down = hub.newest_of(self._asked, self._options)
        if down is not None:
            commit = self.address.revision if self.address.pinned else hub.commit_in_cache(self.address)
            if commit is None or not (hub.repository_folder(self._asked) / "snapshots" / commit).is_dir():
                return  # the first file will say what is wrong
            self.address = replace(self.address, revision=commit)
            self._options = replace(self._options, offline=True)
            hub.notice(self._asked, f"is taken from the hub's cache, at commit {commit[:12]}: {down.problem}")
        if newest is None:
            return
        if not self.address.pinned:
            self.address = replace(self.address, revision=newest.commit)
        if self.address.revision == newest.commit:
            self._listing = newest
            self._store.keep_answer("hf", self.uri, json.dumps(sorted(newest.files)).encode())
        else:
            hub.notice(self._asked, hub.newer(self.address.revision, newest.commit))

    def _kept(self) -> list[str] | None:
        """The files that the hub once said the commit has."""
        answer = self._store.kept_answer("hf", self.uri) if self.address.pinned else None
        try:
            return None if answer is None else list(map(str, json.loads(answer)))
        except ValueError:
            return None

    def names(self) -> Collection[str] | None:
        """Its files, or offline those in the hub's cache; None where the hub does not say."""
        if self._listing is not None:
            return self._listing.files
        kept = self._kept()
        if kept is not None or not is_offline(self._options.offline):
            return kept
        folder = hub.repository_folder(self.address) / "snapshots" / (self.address.revision or "")
        found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        if all(name.endswith((".json", ".txt", ".md", ".gitattributes")) for name in found):
            raise self._absent()
        return found

    def bring(self, name: str) -> Path | None:
        """One of its files in the hub's cache, or None when it has no such file."""
        known = self._listing.files if self._listing is not None else self._kept()
        if known is not None and name not in known:
            return None
        try:
            wanted = Artifact(name=name, uri=str(replace(self.address, file=name)))
            got = self._finder.fetch(wanted, self._options)
        except ArtifactNotFoundError as error:
            if error.found == NO_SUCH_FILE:
                return None
            raise
        except MissingFilesError:
            if known is None:  # perhaps there is none
                return None
            raise
        if got.revision:
            self.address = replace(self.address, revision=got.revision)
        if not self._asked.pinned:
            commit = Fetched(path=got.path, size=0, sha256=key_of(self.uri), revision=self.address.revision)
            with contextlib.suppress(OSError):
                self._store.ledger.remember(str(self._asked), commit, published=False)
        return got.path

    def _absent(self) -> SourceError:
        return hub.absent(Artifact(name=f"the model of {self._asked.repo}", uri=str(self._asked)), self.address)
