"""The error tree: every error says what was wrong, what was found, what was expected and what to do next.

All public errors derive from `LensmountError`; each also derives from the built-in a caller would
expect (`ValueError`, `LookupError`, `ImportError`, …), so `except ValueError` goes on working.

Every error has a page below `docs/errors/`, which ships in the wheel: `lensmount errors ImageError` prints it.
"""

from __future__ import annotations

__all__ = [
    "AmbiguousModelError", "ArtifactNotFoundError", "AuthenticationError", "BackendError", "BuildError", "ClosedError",
    "DeviceError", "DeviceMemoryError", "DeviceNotice", "EngineMismatchError", "ImageError", "ImageTooLargeError",
    "InputError", "IntegrityError", "LensmountDeprecationWarning", "LensmountError", "LicenceNotice",
    "MissingDependencyError", "ModelFileError", "ModelNotFoundError", "NoPackageError", "NotTunedError", "OfflineError",
    "OptionError", "PluginError", "PluginWarning", "SourceError", "SourceNotice", "StoreError",
    "UnknownBackendError", "UnknownOptionError", "UnsafeFileError", "UnsupportedModelError", "reason",
]  # fmt: skip


class LensmountError(Exception):
    """Base of every error that lensmount raises on purpose.

    Args:
        problem: One sentence that names the thing and what is wrong with it.
        found: What was there.
        expected: What should have been there.
        fix: What to do next; a command where there is one.
    """

    def __init__(
        self, problem: str, *, found: str | None = None, expected: str | None = None, fix: str | None = None
    ) -> None:
        self.problem = problem
        self.found = found
        self.expected = expected
        self.fix = fix
        super().__init__(problem)

    @property
    def page(self) -> str:
        """Name of the documentation page on this error, which `lensmount errors NAME` prints.

        A class defined elsewhere has the page of the class that it derives from.
        """
        return next(kind.__name__ for kind in type(self).__mro__ if kind.__module__ == __name__)

    @property
    def details(self) -> str:
        """The message without its last line, which names the page: to be quoted inside another text."""
        lines = [self.problem]
        for label, text in (("found", self.found), ("expected", self.expected), ("fix", self.fix)):
            if text:
                lines.append(f"  {label}: {text}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.details}\n  see: lensmount errors {self.page}"

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not pickle by themselves; worker processes need it.
        return (_restore, (type(self), self.__dict__.copy()))


def reason(error: BaseException) -> str:
    """Any exception as text to be quoted inside another message: ours without the page, others with their class."""
    if isinstance(error, LensmountError):
        return error.details
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # a third party's class, whose own text fails
        return type(error).__name__


def _restore(kind: type[LensmountError], fields: dict[str, object]) -> LensmountError:
    error = kind.__new__(kind)
    error.__dict__.update(fields)
    error.args = (fields.get("problem", ""),)
    return error


# --- what the caller passed -------------------------------------------------------------------------------------------


class InputError(LensmountError, ValueError):
    """An argument has the wrong value: an image, a prompt, a threshold, a path."""


class ImageError(InputError):
    """An image cannot be used: missing, unreadable, truncated, of a wrong shape or dtype."""


class ImageTooLargeError(ImageError):
    """An image's header declares more pixels than the limit allows; nothing was decoded."""


class OptionError(InputError):
    """An option has a value outside its range or of the wrong type."""


class UnknownOptionError(LensmountError, TypeError):
    """An option that this architecture or call does not have; nothing is swallowed."""


# --- looking up, selecting --------------------------------------------------------------------------------------------


class ModelNotFoundError(LensmountError, LookupError):
    """No installed plugin has a model of this id, and there is no such file or address."""


class AmbiguousModelError(LensmountError, LookupError):
    """Two plugins claim the id; each is still to be had as `distribution:id`."""


class UnknownBackendError(LensmountError, LookupError):
    """No plugin registers a backend of this name."""


class NoPackageError(LensmountError, RuntimeError):
    """No package of the model can run here as asked; the message holds each package's every reason."""


class NotTunedError(NoPackageError):
    """`backend="fastest"` has no times that fit this model, machine and options; `lensmount tune` takes them."""


class PluginError(LensmountError, RuntimeError):
    """A plugin is broken: it cannot be imported, raises in a hook, misspells one, or needs another core."""


class MissingDependencyError(LensmountError, ImportError):
    """A package that this step needs is not installed; the message holds the command that installs it."""


# --- files and weights ------------------------------------------------------------------------------------------------


class ModelFileError(LensmountError, ValueError):
    """A model file or package folder cannot be used: corrupt, truncated, or not what its kind requires."""

    sound = False  # whether it can be read: what is no model file at all is not remembered of an address


class UnsupportedModelError(ModelFileError):
    """The file is sound but nothing installed recognises it, or its variant is not supported."""


class UnsafeFileError(ModelFileError):
    """The file asks for something that reading data never needs: code, a path outside its folder, an absurd size."""


class SourceError(LensmountError, OSError):
    """A weight source cannot serve: unreachable, refused, not found."""

    def __str__(self) -> str:
        return LensmountError.__str__(self)


class OfflineError(SourceError):
    """Offline was asked for and an artifact is not in the store."""


class AuthenticationError(SourceError):
    """The source wants credentials, or refuses those given."""


class ArtifactNotFoundError(SourceError):
    """The source answers, but has no such repository, revision or file."""


class IntegrityError(SourceError):
    """A file's size or hash is not what was promised; it was not kept."""


class StoreError(SourceError):
    """The local store cannot be written or read: disk full, read-only, no permission."""


# --- running ----------------------------------------------------------------------------------------------------------


class BackendError(LensmountError, RuntimeError):
    """A backend failed to open or to run a package."""


class DeviceError(BackendError):
    """The device asked for is absent, or the runtime fell back from it; lensmount never falls back silently."""


class DeviceMemoryError(BackendError):
    """The device ran out of memory; the message says what was asked for.

    Attributes:
        requested: Bytes of the allocation that failed, where the runtime said.
        free: Bytes that were free on the device then, where it can be asked.
        fitting_batch: The largest batch that would have fitted by what single pictures were measured to take; None
            where that could not be measured.
    """

    requested: int | None = None
    free: int | None = None
    fitting_batch: int | None = None


class EngineMismatchError(BackendError):
    """An engine was built for another runtime version, GPU or system; the message says how to build it again."""


class BuildError(BackendError):
    """A backend could not build an engine from a graph; the message says what it refused."""


class ClosedError(LensmountError, RuntimeError):
    """The model or session was closed."""


# --- warnings: categories for `warnings.filterwarnings` ---------------------------------------------------------------


class PluginWarning(UserWarning):
    """A plugin was left out; `lensmount plugins` and `registry.plugins()` say why."""


class LicenceNotice(UserWarning):
    """What the licence of a model's weights asks; shown at the first load on this machine."""


class DeviceNotice(UserWarning):
    """The model runs on the CPU although the machine has a GPU that nothing installed can use."""


class SourceNotice(UserWarning):
    """A repository has a newer commit than the one that is used, or cannot be asked, and its cache is used."""


class LensmountDeprecationWarning(FutureWarning):
    """A public name or option still works, but a later version removes it; the message says which, and what to use.

    It derives from `FutureWarning`, not from `DeprecationWarning`, which Python hides outside of `__main__` and tests:
    users would learn that a name is removed only after it was removed.
    """
