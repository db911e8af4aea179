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


_KNOWN: dict[str, tuple[type[SourceError], str, str]] = {
    "GatedRepoError": (AuthenticationError, "{0.repo} is gated", f"ask for access on its page, then {LOG_IN}"),
    "RevisionNotFoundError": (
        ArtifactNotFoundError,
        "{0.repo} has no revision {0.revision!r}",
        "check the branch, tag or commit: hf://{0.repo}@<revision>",
    ),
    "EntryNotFoundError": (ArtifactNotFoundError, "there is no {0.file} in {0.repo}", "check the name"),
    "DisabledRepoError": (
        SourceError,
        "{0.repo} was disabled by the hub",
        "see its page on the hub; another repository may hold the same model",
    ),
    "RepositoryNotFoundError": (
        ArtifactNotFoundError,
        "{0.repo} does not exist, or is private",
        f"check the name; if it is private, {LOG_IN}",
    ),
    "HFValidationError": (SourceError, "{0.repo} is not a valid repository name", "write hf://owner/repo"),
    "OfflineModeIsEnabled": (
        OfflineError,
        "{0} is not in the hub's cache, and the hub is switched off",
        "unset HF_HUB_OFFLINE and start the program again",
    ),
}
"""Error, problem and fix (of an address) by the class; of those that are one another's children the child first."""


def _translate(error: Exception, address: HubAddress) -> SourceError | None:
    repo, found = address.repo, f"{type(error).__name__}: {unsigned(str(error)).strip().partition(chr(10))[0]}"
    for link in _chain(error):
        names, status = _names(link), _status(link)
        name = next((name for name in _KNOWN if name in names and "LocalEntryNotFoundError" not in names), "")
        if name:
            kind, text, fix = _KNOWN[name]
            found = NO_SUCH_FILE if name == "EntryNotFoundError" else found
            return kind(text.format(address), found=found, fix=fix.format(address))
        if status in (401, 403):
            return AuthenticationError(f"the hub refuses access to {repo}", found=f"status {status}", fix=LOG_IN)
        if status == 429:
            return SourceError("too many requests from here", found="status 429", fix=f"wait a while, or {LOG_IN}")
        if status is not None and status >= 500:
            return SourceError("the hub is out of order", found=f"status {status}", fix="try again later")
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES):
            from pathlib import Path

            problem = store_error(link, Path(str(link.filename or "the hub's cache")), "writing")
            problem.fix = "free some space or make the folder writable, or set HF_HOME to another disk"
            return problem
    out_of_reach = {"LocalEntryNotFoundError", "HTTPError", "TransportError", "ConnectionError"}
    if isinstance(error, OSError) or _names(error) & out_of_reach:
        cause = error.__cause__ or error
        return SourceError(
            f"the hub cannot be reached for {address}",
            found=f"{type(cause).__name__}: {unsigned(str(cause))[:200]}",
            fix="check the network, HTTPS_PROXY and HF_ENDPOINT; without a network, see `lensmount pull --to DIR`",
        )
    return None
