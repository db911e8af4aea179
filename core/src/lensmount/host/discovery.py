"""Discovery: one guarded loop over entry points. A plugin that fails, at whatever stage, is left out alone."""

from __future__ import annotations

import contextlib
import difflib
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from itertools import islice
from types import ModuleType
from typing import Any, Literal

import pluggy

from lensmount.errors import LensmountError, PluginError, reason
from lensmount.errors import PluginWarning as PluginWarning
from lensmount.specs import (
    PROJECT,
    Architecture,
    Backend,
    CacheProvider,
    Command,
    Exporter,
    ModelCard,
    Reader,
    Selector,
    Source,
)
from lensmount.specs.hookspecs import LensmountHooks
from lensmount.specs.imports import patience
from lensmount.specs.logs import log
from lensmount.version import __version__

GROUP = "lensmount"
BUILTIN = "lensmount"
BY_HAND = "added by add_plugin"
LIMIT = 100_000
"""Descriptors of one hook: more are taken for endless."""
_BUSY: ContextVar[bool] = ContextVar("whether this thread is discovering plugins", default=False)
State = Literal["active", "blocked", "broken"]

HOOKS: dict[str, type] = {
    "lensmount_architectures": Architecture,
    "lensmount_model_cards": ModelCard,
    "lensmount_backends": Backend,
    "lensmount_sources": Source,
    "lensmount_caches": CacheProvider,
    "lensmount_readers": Reader,
    "lensmount_commands": Command,
    "lensmount_exporters": Exporter,
    "lensmount_selectors": Selector,
}
_FIELDS = {hook: hook.removeprefix("lensmount_") for hook in HOOKS if hook != "lensmount_model_cards"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginStatus:
    """What became of one entry point.

    Attributes:
        name: Entry point's name.
        distribution: Name of the distribution that brings it.
        version: Its version.
        module: What the entry point names.
        state: `active`, `blocked` (by the user) or `broken`.
        stage: Where it failed: `requirements`, `import`, `register`, `hooks`, `conflict`.
        error: Why, in one or more lines.
        hooks: Hooks that it implements.
        location: Folder that it was found in.
    """

    name: str
    distribution: str
    version: str
    module: str
    state: State = "active"
    stage: str | None = None
    error: str | None = None
    hooks: tuple[str, ...] = ()
    location: str | None = None


@dataclass(frozen=True, slots=True)
class CardEntry:
    """A model card and the distribution that brought it."""

    distribution: str
    card: ModelCard


@dataclass(slots=True)
class Index:
    """All that the active plugins contribute.

    Attributes:
        statuses: One per entry point found, in order.
        architectures: By name. The same for `backends`, `sources` (by scheme), `caches`, `readers`,
            `commands`, `exporters` and `selectors`.
        cards: By id or alias; more than one entry means the id is ambiguous.
        owners: Distribution by `(kind, name)`.
    """

    statuses: list[PluginStatus] = field(default_factory=list)
    architectures: dict[str, Architecture] = field(default_factory=dict)
    backends: dict[str, Backend] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    caches: dict[str, CacheProvider] = field(default_factory=dict)
    readers: dict[str, Reader] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    exporters: dict[str, Exporter] = field(default_factory=dict)
    selectors: dict[str, Selector] = field(default_factory=dict)
    cards: dict[str, list[CardEntry]] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def broken(self) -> list[PluginStatus]:
        """Plugins that were left out."""
        return [status for status in self.statuses if status.state == "broken"]

    @property
    def left_out(self) -> list[str]:
        """One line on each of them, for errors that they could explain."""
        return [
            f"plugin {s.name!r} of {s.distribution} was left out ({s.stage}: {(s.error or '').partition(chr(10))[0]}); "
            "lensmount plugins says how to fix it"
            for s in self.broken
        ]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin not yet loaded: an entry point, or a module given to `add_plugin`."""

    status: PluginStatus
    load: Callable[[], Any]
    requires: tuple[str, ...] = ()


def find_entry_points() -> Iterator[Candidate]:
    """All entry points of group `lensmount`, each distribution once, sorted by distribution and name."""
    seen = set()
    points = metadata.entry_points(group=GROUP)
    # each access to `metadata` parses it again, so it is read once here
    named = [(point, point.dist, point.dist.metadata if point.dist else None) for point in points]
    for point, distribution, about in sorted(named, key=lambda p: (_normal(p[2]["Name"]) if p[2] else "", p[0].name)):
        name = about["Name"] if about else "unknown"
        key = (_normal(name), point.name)
        if key in seen:  # the same distribution twice on sys.path: the first is the one that imports
            continue
        seen.add(key)
        status = PluginStatus(
            name=point.name,
            distribution=name,
            version=about["Version"] if about else "unknown",
            module=point.value,
            location=str(distribution.locate_file("")) if distribution else None,
        )
        requires = about.get_all("Requires-Dist") if about else None
        yield Candidate(status, point.load, tuple(requires or ()))


def given(plugin: object, name: str | None = None) -> Candidate:
    """A candidate made of a module or object that the caller holds."""
    label = name or getattr(plugin, "__name__", None) or type(plugin).__name__
    module = plugin.__name__ if isinstance(plugin, ModuleType) else f"{type(plugin).__module__}.{type(plugin).__name__}"
    status = PluginStatus(name=label, distribution=label, version=BY_HAND, module=module)
    return Candidate(status, lambda: plugin)


def builtin() -> Candidate:
    """The core's own backends, sources and caches, through the same hooks as everyone's."""

    def load() -> ModuleType:
        from lensmount.host import builtin as builtin_plugin

        module: ModuleType = builtin_plugin
        return module

    return Candidate(
        PluginStatus(name="builtin", distribution=BUILTIN, version=__version__, module="lensmount.host.builtin"), load
    )


def collect(
    candidates: Iterable[Candidate], environ: Mapping[str, str] = os.environ, hooks: Collection[str] = HOOKS
) -> Index:
    """Loads every candidate under its own guard and indexes what it contributes; each failure is a status in the index.

    Of two that claim one name of a kind (backends and selectors are one), one marker of a reader, or one target and
    precision of an exporter, the first keeps it and the second is left out. Model ids claimed twice are ambiguous.

    Raises:
        PluginError: A plugin is broken and `LENSMOUNT_STRICT=1`.
    """
    if _BUSY.get():
        raise PluginError("a hook asks for plugins while they are discovered", fix="hooks only return descriptors")
    index = Index()
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(LensmountHooks)
    candidates = list(candidates)
    versions: dict[str, str | None] = {_normal(c.status.distribution): c.status.version for c in candidates}
    version_of = partial(_version_of, versions | {BUILTIN: __version__})
    with _watched(candidates, index):
        for candidate in candidates:
            status = candidate.status
            if _blocked(status, environ):
                index.statuses.append(replace(status, state="blocked"))
                continue
            stage = "requirements"
            try:
                _check_requirements(candidate, version_of)
                stage = "import"
                plugin = candidate.load()
                stage = "register"
                _register(manager, plugin, status)
                stage = "hooks"
                found = _call_hooks(manager, plugin, hooks)
                stage = "conflict"
                _add(index, found, status)
            except (Exception, SystemExit) as error:  # guarded discovery: whatever a plugin does, the others are loaded
                why = reason(error)
                mend = "mend it" if status.version == BY_HAND else f"pip install --upgrade {status.distribution}"
                fix = f"{mend}, or LENSMOUNT_BLOCK_PLUGINS={status.name}"
                if not (isinstance(error, LensmountError) and error.fix):
                    why += f"\n  fix: {fix}"
                index.statuses.append(replace(status, state="broken", stage=stage, error=why))
                if environ.get("LENSMOUNT_STRICT", "") not in ("", "0"):
                    problem = f"plugin {_label(status)} failed at stage {stage}"
                    raise PluginError(problem, found=reason(error), fix=fix) from error
                told = f"plugin {_label(status)} was left out (stage {stage}): {why}"
                warnings.warn(told, PluginWarning, stacklevel=2)
            else:
                index.statuses.append(replace(status, hooks=tuple(found)))
                log("host", "debug", "discovered plugin %s with %s", _label(status), ", ".join(found))
    return index


@contextlib.contextmanager
def _watched(candidates: Sequence[Candidate], index: Index) -> Iterator[None]:
    """Refuses to discover within a discovery, and names the plugin that one hangs at."""

    def tell() -> None:
        status = candidates[len(index.statuses)].status
        text = f"plugin {_label(status)} keeps all others waiting; LENSMOUNT_BLOCK_PLUGINS={status.name} leaves it out"
        warnings.warn(text, PluginWarning, stacklevel=2)

    slow = threading.Timer(patience(), tell)
    slow.daemon = True
    slow.start()
    busy = _BUSY.set(True)
    try:
        yield
    finally:
        _BUSY.reset(busy)
        slow.cancel()


def _label(status: PluginStatus) -> str:
    origin = BY_HAND if status.version == BY_HAND else f"of {status.distribution} {status.version}"
    return f"{status.name!r} {origin}"


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _blocked(status: PluginStatus, environ: Mapping[str, str]) -> bool:
    names = {_normal(status.name), _normal(status.distribution)}

    def listed(variable: str) -> set[str]:
        return {_normal(part.strip()) for part in environ.get(variable, "").split(",") if part.strip()}

    if status.module == "lensmount.host.builtin":
        return False
    allowed = listed("LENSMOUNT_PLUGINS")
    return bool(names & listed("LENSMOUNT_BLOCK_PLUGINS")) or bool(allowed and not names & allowed)


def _check_requirements(candidate: Candidate, version_of: Callable[[str], str | None]) -> None:
    """Compares what the distribution requires of lensmount's with what is installed, before any of its code runs."""
    from lensmount.host.requirement import unmet

    for line in candidate.requires:
        found = unmet(line, version_of)
        if found is not None:
            name = candidate.status.distribution
            raise PluginError(
                f"{name} was made for another lensmount",
                found=found,
                expected=line,
                fix=f"pip install --upgrade {found.partition(' ')[0]} {name}",
            )


def _version_of(versions: dict[str, str | None], name: str) -> str | None:
    """Version of a distribution: of the plugins as they were found, of others as installed."""
    key = _normal(name)
    if key not in versions:
        try:
            versions[key] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[key] = None
    return versions[key]


def _register(manager: pluggy.PluginManager, plugin: object, status: PluginStatus) -> None:
    unmarked = [
        name
        for name in dir(plugin)
        if name.startswith("lensmount_")
        and callable(getattr(plugin, name))
        and not hasattr(getattr(plugin, name), "lensmount_impl")
    ]
    if unmarked:
        raise PluginError(
            "functions named like hooks are not marked as hooks",
            found=", ".join(unmarked),
            fix="put @hookimpl (from lensmount.specs) above each",
        )
    # by identity: the classes of two objects given to `add_plugin` may have the same name
    manager.register(plugin, f"{status.distribution}:{status.name}:{id(plugin):x}")
    names = [caller.name for caller in manager.get_hookcallers(plugin) or ()]
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        manager.unregister(plugin)
        unknown = [name for name in names if name not in HOOKS]
        near = [match for name in unknown for match in difflib.get_close_matches(name, HOOKS, 1)]
        raise PluginError(
            "it implements an unknown hook",
            found=", ".join(unknown),
            expected=f"one of {', '.join(HOOKS)}",
            fix=f"did you mean {', '.join(near)}?" if near else None,
        ) from error
    if not names:
        manager.unregister(plugin)
        raise PluginError("it implements no hook", expected=f"one of {', '.join(HOOKS)}")


def _call_hooks(manager: pluggy.PluginManager, plugin: object, hooks: Collection[str]) -> dict[str, tuple[Any, ...]]:
    found = {}
    for name in hooks:
        for implementation in getattr(manager.hook, name).get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            found[name] = _call(name, HOOKS[name], implementation.function)
    return found


def _call(name: str, kind: type, function: Callable[[], Any]) -> tuple[Any, ...]:
    try:
        result = function()
        items = tuple(islice(result, LIMIT + 1)) if isinstance(result, Iterable) else None
        if items is not None and len(items) > LIMIT:
            raise PluginError("it gives descriptors without end", found=f"more than {LIMIT:,}")
        wrong = [result] if items is None else [item for item in items if not isinstance(item, kind)]
        if items is not None and not wrong:
            hash(items)  # a descriptor that holds a list is refused here, not deep inside a later lookup
            return items
    except (Exception, SystemExit) as error:  # told with the hook's name; `collect` keeps it from spreading
        raise PluginError(f"hook {name} failed: {reason(error)}") from error
    expected = f"an iterable of {kind.__name__}"
    raise PluginError(f"hook {name} returned the wrong thing", found=repr(wrong[0])[:200], expected=expected)


def _add(index: Index, found: Mapping[str, tuple[Any, ...]], status: PluginStatus) -> None:
    """Adds all or nothing."""
    held: dict[str, str] = {}
    for hook, attribute in _FIELDS.items():
        for name, item in getattr(index, attribute).items():
            held |= dict.fromkeys(_claims(hook, item), index.owners[hook, name])
    claimed = [claim for hook in _FIELDS for item in found.get(hook, ()) for claim in _claims(hook, item)]
    taken = [f"{claim} ({held[claim]})" for claim in claimed if claim in held]
    taken += [f"{claim} (twice in this plugin)" for claim, times in Counter(claimed).items() if times > 1]
    names = [name for card in found.get("lensmount_model_cards", ()) for name in {card.id, *card.aliases}]
    taken += [f"model {name!r} (twice in this plugin)" for name, times in Counter(names).items() if times > 1]
    if taken:
        raise PluginError(
            "it claims names that other plugins hold",
            found="; ".join(taken),
            fix="uninstall one of them, or set LENSMOUNT_BLOCK_PLUGINS to the one you do not want",
        )
    for hook, attribute in _FIELDS.items():
        for item in found.get(hook, ()):
            name = _name_of(item)
            getattr(index, attribute)[name] = item
            index.owners[hook, name] = status.distribution
    for card in found.get("lensmount_model_cards", ()):
        entry = CardEntry(status.distribution, card)
        for name in dict.fromkeys((card.id, *card.aliases)):
            index.cards.setdefault(name, []).append(entry)


def _name_of(descriptor: Any) -> str:
    name: str = descriptor.scheme if isinstance(descriptor, Source) else descriptor.name
    return name


def _claims(hook: str, descriptor: Any) -> list[str]:
    """All that no other descriptor may claim, in words. `backend=` names backends and selectors alike."""
    kind = "backends" if isinstance(descriptor, Selector) else _FIELDS[hook]
    claims = [repr(_name_of(descriptor))]
    if isinstance(descriptor, Reader):
        claims.append("of files without a marker" if descriptor.marker is None else f"of {descriptor.marker!r}")
    if isinstance(descriptor, Exporter):
        claims += [f"to {descriptor.target!r} in {precision!r}" for precision in descriptor.precisions]
    return [f"{kind} {claim}" for claim in claims]
