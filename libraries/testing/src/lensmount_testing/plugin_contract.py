"""What a plugin promises of its entry points, hooks and cards; docs/conformance.md says why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lensmount.errors import LensmountError
from lensmount.host.discovery import (
    GROUP,
    Candidate,
    Index,
    PluginStatus,
    PluginWarning,
    builtin,
    collect,
    find_entry_points,
)
from lensmount.specs import Artifact, ModelCard, ModelPackage
from lensmount.specs.imports import import_string
from lensmount.store.addresses import parse_hub, scheme_of
from lensmount_testing import probing

_SPDX = re.compile(r"(LicenseRef-)?[A-Za-z0-9][A-Za-z0-9.+-]*( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
_NOTE = re.compile(r"hash|pinned|revision", re.IGNORECASE)
_UPPER = ("<", "<=", "==", "~=", "===")
_SEEN = pytest.StashKey[probing.Seen]()
_Entry = tuple[ModelCard, ModelPackage, Artifact]


class PluginContract:
    """Tests of one installed distribution. Subclass it as `Test…` in a test module.

    Attributes:
        distribution: Name of the distribution; all its entry points in group `lensmount` are tested.
        light_modules: Top-level modules that its hook module may import in addition to the standard library, its own
            packages and those of `lensmount_testing.probing.LIGHT`. A reason has to be very good.
    """

    distribution: ClassVar[str] = ""
    light_modules: ClassVar[tuple[str, ...]] = ()

    # --- what is installed --------------------------------------------------------------------------------------------

    @pytest.fixture
    def installed(self) -> metadata.Distribution:
        """The distribution's metadata."""
        try:
            return metadata.distribution(self.distribution)
        except (metadata.PackageNotFoundError, ValueError):
            pytest.fail(f"{self.distribution!r} is not installed: pip install -e . ; set `distribution` to its name")

    @pytest.fixture
    def candidates(self, installed: metadata.Distribution) -> list[Candidate]:
        """Its entry points, as discovery finds them."""
        wanted = _normal(installed.name)
        return [c for c in find_entry_points() if _normal(c.status.distribution) == wanted]

    @pytest.fixture
    def alone(self, candidates: list[Candidate]) -> Index:
        """What the plugin contributes by itself."""
        return _collect(candidates)

    @pytest.fixture
    def together(self, candidates: list[Candidate]) -> Index:
        """What it and everything else here contribute: the core, then the others, then the plugin."""
        own = {(c.status.distribution, c.status.name) for c in candidates}
        others = [c for c in find_entry_points() if (c.status.distribution, c.status.name) not in own]
        return _collect([builtin(), *others, *candidates])

    @pytest.fixture
    def seen(self, request: pytest.FixtureRequest, candidates: list[Candidate]) -> probing.Seen:
        """What a fresh process does when it discovers the plugin; asked once for all tests of the class."""
        stash = request.node.getparent(pytest.Class).stash
        if _SEEN not in stash:
            stash[_SEEN] = probing.see(modules=[c.status.module for c in candidates])
        found: probing.Seen = stash[_SEEN]
        return found

    # --- the distribution ---------------------------------------------------------------------------------------------

    def test_has_an_entry_point(self, candidates: list[Candidate]) -> None:
        """It is found: at least one entry point in the group `lensmount`."""
        assert candidates, (
            f"{self.distribution} has no entry point in the group {GROUP!r}: "
            f'[project.entry-points.{GROUP}] name = "package.plugin"'
        )

    def test_requires_this_lensmount(self, installed: metadata.Distribution) -> None:
        """It says which lensmount it was made for: a range with an upper bound, and this version in it."""
        from packaging.requirements import Requirement

        from lensmount import __version__

        lines = [Requirement(line) for line in installed.requires or ()]
        mine = [r for r in lines if _normal(r.name) == "lensmount" and "extra" not in str(r.marker or "")]
        assert mine, f"{self.distribution} does not require lensmount; for example lensmount>=0.1,<0.2"
        for line in mine:
            operators = {specifier.operator for specifier in line.specifier}
            assert operators & set(_UPPER), f"{line} has no upper bound: a later major version may break the plugin"
            assert line.specifier.contains(__version__, prereleases=True), (
                f"{line} does not allow lensmount {__version__}: discovery leaves the plugin out"
            )

    def test_ships_py_typed(self, candidates: list[Candidate]) -> None:
        """Its types are usable: `py.typed` lies in the package of each entry point."""
        for candidate in candidates:
            package = candidate.status.module.partition(":")[0].partition(".")[0]
            assert files(package).joinpath("py.typed").is_file(), f"{package} has no py.typed (PEP 561)"

    # --- discovery ----------------------------------------------------------------------------------------------------

    def test_hook_module_imports(self, alone: Index) -> None:
        """What the entry point names can be imported."""
        _require_stage(alone, "requirements", "import")

    def test_hooks_are_known(self, alone: Index) -> None:
        """Every function named like a hook is one, is marked as one, and there is at least one."""
        _require_stage(alone, "register")

    def test_hooks_return_descriptors(self, alone: Index) -> None:
        """Each hook returns an iterable of its frozen, valid, hashable descriptors, and raises nothing."""
        _require_stage(alone, "hooks")

    def test_hooks_are_pure(self, candidates: list[Candidate], alone: Index) -> None:
        """Asked again, the hooks give the same: they depend on nothing that changes."""
        assert _plain(_collect(candidates)) == _plain(alone), "a hook gave other descriptors the second time"

    def test_discovery_is_light(self, seen: probing.Seen, installed: metadata.Distribution) -> None:
        """Discovery imports the hook module, `lensmount.specs` and the standard library: nothing that takes time."""
        assert seen.error is None, f"discovery failed in a fresh process: {seen.error}"
        foreign = seen.foreign({*probing.packages_of(installed), *self.light_modules}, probing.LIGHT)
        assert not foreign, f"discovery imports {', '.join(foreign)}: name heavy code by import strings"
        core = seen.of_the_core()
        assert not core, f"the hook module imports {', '.join(core)}: lensmount.specs has all that hooks need"

    def test_discovery_opens_no_socket(self, seen: probing.Seen) -> None:
        """Discovery asks nothing of the network."""
        assert not seen.sockets, f"discovery reaches for the network: {seen.sockets[0]}"

    def test_discovery_writes_nothing(self, seen: probing.Seen) -> None:
        """Discovery alters no file, not even a cache."""
        assert not seen.writes, f"discovery writes: {seen.writes[0]}"

    def test_discovery_starts_no_process(self, seen: probing.Seen) -> None:
        """Discovery starts no program."""
        assert not seen.processes, f"discovery starts a process: {seen.processes[0]}"

    def test_names_are_its_own(self, together: Index) -> None:
        """No architecture, backend, source, cache or model id of it is claimed by another plugin, or twice by it."""
        for status in self._own(together):
            assert status.state == "active", f"{status.name} was left out (stage {status.stage}): {status.error}"
        mine = {status.distribution for status in self._own(together)}
        for name, entries in together.cards.items():
            holders = [entry.distribution for entry in entries]
            assert len(holders) == 1 or not mine & set(holders), f"model id {name!r} is claimed by {holders}"

    # --- what the descriptors say -------------------------------------------------------------------------------------

    def test_import_strings_resolve(self, alone: Index) -> None:
        """Each import string names something that is there; load options are a frozen dataclass."""
        for owner, text, is_options in _import_strings(alone):
            found = _resolve(text, owner)
            if found is None:
                continue
            assert callable(found), f"{text} of {owner} cannot be called"
            if is_options:
                frozen = is_dataclass(found) and getattr(found, "__dataclass_params__").frozen  # noqa: B009
                assert frozen, f"{text} of {owner} should be a frozen dataclass"

    def test_cards_have_an_architecture(self, alone: Index, together: Index) -> None:
        """Each card names an architecture that is here and runs its task."""
        for card in _cards(alone):
            architecture = together.architectures.get(card.architecture)
            assert architecture is not None, f"{card.id}: no plugin here brings architecture {card.architecture!r}"
            assert card.task in architecture.tasks, (
                f"{card.id}: architecture {card.architecture!r} runs {architecture.tasks}, not {card.task!r}"
            )

    def test_licences_are_given(self, alone: Index) -> None:
        """Each card says under which licence its weights are, as an SPDX id or `LicenseRef-…`."""
        for card in _cards(alone):
            good = card.licence != "unknown" and _SPDX.fullmatch(card.licence)
            assert good, f"{card.id}: licence {card.licence!r} is no SPDX id"

    def test_addresses_have_a_source(self, alone: Index, together: Index) -> None:
        """Each artifact has an address whose scheme a source here answers for."""
        for card, _, artifact in _artifacts(alone):
            scheme = scheme_of(artifact.uri)
            assert scheme in together.sources, f"{card.id}: nothing here fetches {artifact.uri!r}"

    def test_content_is_fixed(self, alone: Index) -> None:
        """What an address gives cannot change unnoticed: a hash, a commit, a file in the wheel; or a note says so."""
        for card, _, artifact in _artifacts(alone):
            scheme = scheme_of(artifact.uri)
            pinned = scheme == "package" or (scheme == "hf" and parse_hub(artifact.uri).pinned)
            told = any(_NOTE.search(note) for note in card.notes)
            assert pinned or artifact.sha256 or artifact.md5 or told, (
                f"{card.id}: {artifact.uri} has no hash and no commit, and no note of the card says so"
            )

    def test_packaged_files_are_whole(self, alone: Index, tmp_path: Path) -> None:
        """Files that the cards say lie in the wheel do, with the size and hash that the cards say."""
        from lensmount.contracts.finder import FetchOptions
        from lensmount.store.package import PackageFinder
        from lensmount.store.store import Store

        finder = PackageFinder(Store(tmp_path / "store"))
        for card, _, artifact in _artifacts(alone):
            if scheme_of(artifact.uri) != "package":
                continue
            try:
                finder.fetch(artifact, FetchOptions(offline=True))
            except LensmountError as error:
                pytest.fail(f"{card.id}: {error}")

    def test_formats_have_a_backend(self, alone: Index, together: Index) -> None:
        """Each package is of a format that a backend here opens; format `torch` comes with a network."""
        formats = {name for backend in together.backends.values() for name in backend.formats}
        for card in _cards(alone):
            for package in card.packages:
                assert package.format in formats, (
                    f"{card.id}: no backend here opens format {package.format!r} of package {package.name!r}"
                )
                architecture = together.architectures.get(card.architecture)
                network = architecture is None or architecture.network is not None
                assert package.format != "torch" or network, (
                    f"{card.id}: package {package.name!r} is of format torch, and the architecture has no network"
                )

    def _own(self, index: Index) -> list[PluginStatus]:
        return [s for s in index.statuses if _normal(s.distribution) == _normal(self.distribution)]


def _collect(candidates: list[Candidate]) -> Index:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        return collect(candidates, environ={})


def _require_stage(index: Index, *stages: str) -> None:
    for status in index.broken:
        assert status.stage not in stages, f"entry point {status.name!r} fails at stage {status.stage}: {status.error}"


def _plain(index: Index) -> object:
    tables = (index.architectures, index.backends, index.sources, index.caches)
    return [*tables, {name: [entry.card for entry in entries] for name, entries in index.cards.items()}]


def _cards(index: Index) -> list[ModelCard]:
    return list({entry.card.id: entry.card for entries in index.cards.values() for entry in entries}.values())


def _artifacts(index: Index) -> Iterator[_Entry]:
    for card in _cards(index):
        for package in card.packages:
            for artifact in package.artifacts:
                yield card, package, artifact


def _import_strings(index: Index) -> Iterator[tuple[str, str, bool]]:
    for a in index.architectures.values():
        owner = f"architecture {a.name!r}"
        yield from (
            (owner, text, False) for text in (a.factory, a.network, a.recognise, a.exporter, a.float_nodes) if text
        )
        if a.options:
            yield owner, a.options, True
    for b in index.backends.values():
        yield from ((f"backend {b.name!r}", text, False) for text in (b.probe, b.opener))
    yield from ((f"source {s.scheme!r}", s.finder, False) for s in index.sources.values())
    yield from ((f"cache {c.name!r}", c.factory, False) for c in index.caches.values())


def _resolve(text: str, owner: str) -> Any:
    """What a string names; None where it needs a package that is not installed here, as an extra may be."""
    from importlib.util import find_spec

    from lensmount.errors import MissingDependencyError

    try:
        return import_string(text, owner)
    except MissingDependencyError:
        assert find_spec(text.partition(":")[0]) is not None, f"{text} of {owner} names a module that does not exist"
        return None
    except LensmountError as error:
        pytest.fail(str(error))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
