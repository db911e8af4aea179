"""huggingface_hub's errors in lensmount's words. Classes are compared by name, since versions move them about."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from lensmount.errors import ArtifactNotFoundError, AuthenticationError, LensmountError, OfflineError, SourceError
from lensmount.store.addresses import HubAddress, unsigned
from lensmount.store.files import store_error

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token from https://huggingface.co/settings/tokens"
NO_SUCH_FILE = "the repository has no such file at this revision"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


@contextmanager
def translated(address: HubAddress) -> Iterator[None]:
    """Turns what huggingface_hub raises into a `SourceError` that says what to do."""
    try:
        yield
    except LensmountError:
        raise
    except Exception as error:
        known = _translate(error, address)
        if known is None:
            raise
        raise known from error


def _translate(error: Exception, address: HubAddress) -> SourceError | None:
    repo, found = address.repo, f"{type(error).__name__}: {unsigned(str(error)).strip().partition(chr(10))[0]}"
    for link in _chain(error):
        names, status = _names(link), _status(link)
        if "GatedRepoError" in names:
            return AuthenticationError(
                f"{repo} is gated", found=found, fix=f"ask for access on its page, then {LOG_IN}"
            )
        if "RevisionNotFoundError" in names:
            return ArtifactNotFoundError(
                f"{repo} has no revision {address.revision!r}",
                found=found,
                fix=f"check the branch, tag or commit: hf://{repo}@<revision>",
            )
        if names & {"EntryNotFoundError", "RemoteEntryNotFoundError"} and "LocalEntryNotFoundError" not in names:
            return ArtifactNotFoundError(
                f"there is no {address.file} in {repo}", found=NO_SUCH_FILE, expected=str(address), fix="check the name"
            )
        if "DisabledRepoError" in names:
            return SourceError(
                f"{repo} was disabled by the hub",
                found=found,
                fix="see its page on the hub; another repository may hold the same model",
            )
        if "RepositoryNotFoundError" in names:
            return ArtifactNotFoundError(
                f"{repo} does not exist, or is private", found=found, fix=f"check the name; if it is private, {LOG_IN}"
            )
        if "HFValidationError" in names:
            return SourceError(f"{repo} is not a valid repository name", found=found, expected="owner/repo")
        if "OfflineModeIsEnabled" in names:
            return OfflineError(
                f"{address} is not in the hub's cache, and the hub is switched off",
                found=found,
                fix="unset HF_HUB_OFFLINE and start the program again",
            )
        if status in (401, 403):
            return AuthenticationError(f"the hub refuses access to {repo}", found=f"status {status}", fix=LOG_IN)
        if status == 429:
            return SourceError(
                "the hub has had too many requests from here", found="status 429", fix=f"wait a while, or {LOG_IN}"
            )
        if status is not None and status >= 500:
            return SourceError("the hub is out of order", found=f"status {status}", fix="try again later")
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES):
            from pathlib import Path

            problem = store_error(link, Path(str(link.filename or "the hub's cache")), "writing")
            problem.fix = "free some space or make the folder writable, or set HF_HOME to another disk"
            return problem
    if _names(error) & {"LocalEntryNotFoundError", "HTTPError", "TransportError", "ConnectionError"} or isinstance(
        error, OSError
    ):
        cause = error.__cause__ or error
        return SourceError(
            f"the hub cannot be reached for {address}",
            found=f"{type(cause).__name__}: {unsigned(str(cause))[:200]}",
            fix="check the network, HTTPS_PROXY and HF_ENDPOINT; without a network, see `lensmount pull --to DIR`",
        )
    return None
