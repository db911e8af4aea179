"""What a source of weights promises; docs/conformance.md says why."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import pytest

from lensmount.contracts.finder import Fetched, FetchOptions, Finder
from lensmount.errors import IntegrityError, OfflineError, SourceError
from lensmount.specs import Artifact, ModelCard
from lensmount.specs.imports import import_string
from lensmount.specs.offline import VARIABLES
from lensmount_testing.guards import forbidden

MakeFinder = Callable[[], Any]
Served = tuple[str, bytes]

_SECRET = "s3cr3t-that-is-nobody-elses"


class SourceContract:
    """Tests of one source. Subclass it as `Test…`, and give a fixture `served`: `(uri, bytes)` of a file that is there.

    Whatever the fixture needs (a server on this machine, a folder) it starts and stops. Nothing here asks for another
    machine.

    Attributes:
        scheme: Scheme that the source is registered under.
        local: Its files are on this machine and need no network, so that offline changes nothing.
        allow_insecure: Accept plain http, which servers on one's own machine mostly speak.
        credentials: As users would give them.
    """

    scheme: ClassVar[str] = ""
    local: ClassVar[bool] = False
    allow_insecure: ClassVar[bool] = False
    credentials: ClassVar[Mapping[str, str]] = {}

    # --- what the tests need ------------------------------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A store of the test's own, online."""
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
        return tmp_path / "home"

    @pytest.fixture
    def served(self) -> Served:
        """Address and content of a file that is there; to be given."""
        pytest.fail("give a fixture `served` that returns (uri, bytes) of a file that the source can fetch")

    @pytest.fixture
    def missing(self, served: Served) -> str:
        """An address of nothing; override it where another one is more to the point."""
        head, _, tail = served[0].rpartition("/")
        return f"{head}/no-such-{tail}"

    @pytest.fixture
    def interrupted(self) -> Served | None:
        """As `served`, of a file whose first download breaks off in the middle; None where that cannot be arranged."""
        return None

    @pytest.fixture
    def make_finder(self) -> MakeFinder:
        """Makes finders as the core does: one for each load, with no argument."""
        from lensmount.registry import default

        sources = default().index.sources
        assert self.scheme in sources, f"no source {self.scheme!r} is registered, only {', '.join(sources)}"
        found: MakeFinder = import_string(sources[self.scheme].finder, f"source {self.scheme!r}")
        return found

    def options(self, *, offline: bool | None = None, **changes: Any) -> FetchOptions:
        """How files may be fetched."""
        fields = {"credentials": dict(self.credentials), "allow_insecure": self.allow_insecure, **changes}
        return FetchOptions(offline=offline, progress=False, **fields)

    # --- the promises -------------------------------------------------------------------------------------------------

    def test_is_a_finder(self, make_finder: MakeFinder) -> None:
        """What the import string gives, called without arguments, has `fetch` and `find`."""
        finder = make_finder()
        assert isinstance(finder, Finder), (
            f"{type(finder).__name__} lacks something of lensmount.contracts.finder.Finder"
        )

    def test_making_one_does_nothing(self, make_finder: MakeFinder) -> None:
        """A finder asks for nothing and writes nothing before it is asked itself."""
        with forbidden("socket", "write", "process", saying="making a finder already does something"):
            make_finder()

    def test_fetches_the_whole_file(self, make_finder: MakeFinder, served: Served) -> None:
        """A file that keeps its promises of size and hash arrives whole, and is told as what it is."""
        self._require_right(make_finder().fetch(artifact(served), self.options()), served)

    def test_tells_what_it_got(self, make_finder: MakeFinder, served: Served) -> None:
        """Where nothing is promised, size and hash are told all the same."""
        self._require_right(make_finder().fetch(artifact(served, promises=False), self.options()), served)

    def test_fetches_once(self, make_finder: MakeFinder, served: Served) -> None:
        """A file that was fetched is there offline, for another finder, without a socket."""
        make_finder().fetch(artifact(served), self.options())
        with forbidden("socket", saying="a file that is there is asked for again"):
            self._require_right(make_finder().fetch(artifact(served), self.options(offline=True)), served)

    def test_missing_is_a_source_error(self, make_finder: MakeFinder, missing: str) -> None:
        """An address of nothing is a `SourceError` that names it."""
        with pytest.raises(SourceError) as caught:
            make_finder().fetch(Artifact(name="weights.onnx", uri=missing), self.options())
        name = missing.rstrip("/").rpartition("/")[2]
        said = str(caught.value)
        assert name in said or unquote(name) in said, f"the error does not say what is missing: {caught.value}"

    def test_refuses_another_hash(self, make_finder: MakeFinder, served: Served, home: Path) -> None:
        """Content that is not what was promised is an `IntegrityError`, and is not kept under that promise."""
        wrong = artifact(served, sha256=hashlib.sha256(b"something else").hexdigest())
        for _ in range(2):
            with pytest.raises(IntegrityError):
                make_finder().fetch(wrong, self.options())
        require_whole(home)
        self._require_right(make_finder().fetch(artifact(served), self.options()), served)

    def test_refuses_another_size(self, make_finder: MakeFinder, served: Served, home: Path) -> None:
        """A file shorter or longer than promised is an `IntegrityError`."""
        for difference in (-1, 1000):
            wrong = artifact(served, promises=False, size=len(served[1]) + difference)
            with pytest.raises(IntegrityError):
                make_finder().fetch(wrong, self.options())
        require_whole(home)

    @pytest.mark.parametrize("said_by", ["option", "environment"])
    def test_offline(
        self, make_finder: MakeFinder, served: Served, monkeypatch: pytest.MonkeyPatch, said_by: str
    ) -> None:
        """Offline, no socket is opened: what is not here is an `OfflineError`."""
        if said_by == "environment":
            monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
        options = self.options(offline=True if said_by == "option" else None)
        with forbidden("socket", saying="offline, and a socket is opened"):
            if self.local:
                self._require_right(make_finder().fetch(artifact(served), options), served)
            else:
                with pytest.raises(OfflineError):
                    make_finder().fetch(artifact(served), options)

    def test_survives_an_interruption(self, make_finder: MakeFinder, interrupted: Served | None, home: Path) -> None:
        """A download that breaks off leaves nothing half-written; the next one brings the whole file."""
        if interrupted is None:
            pytest.skip("give a fixture `interrupted` where a download can break off")
        try:
            fetched = make_finder().fetch(artifact(interrupted), self.options())
        except SourceError:
            require_whole(home)
            fetched = make_finder().fetch(artifact(interrupted), self.options())
        self._require_right(fetched, interrupted)
        require_whole(home)

    def test_threads(self, make_finder: MakeFinder, served: Served, home: Path) -> None:
        """Six loads that want one file at once all get the whole of it."""
        begin = threading.Barrier(6)

        def work() -> Fetched:
            begin.wait(timeout=60)
            found: Fetched = make_finder().fetch(artifact(served), self.options())
            return found

        with ThreadPoolExecutor(6) as pool:
            for done in [pool.submit(work) for _ in range(6)]:
                self._require_right(done.result(timeout=300), served)
        require_whole(home)

    def test_keeps_credentials_to_itself(
        self, make_finder: MakeFinder, served: Served, missing: str, home: Path
    ) -> None:
        """A key is in no error, no file of the store, and no text of what was fetched."""
        options = self.options(credentials={**dict.fromkeys(self.credentials, _SECRET), self.scheme: _SECRET})
        said = []
        for uri in (served[0], missing):
            try:
                said.append(repr(make_finder().fetch(Artifact(name="weights.onnx", uri=uri), options)))
            except SourceError as error:
                said.extend(_texts(error))
        assert not any(_SECRET in text for text in said), "a key stands in an error or result"
        for path in files_below(home):
            assert _SECRET.encode() not in path.read_bytes(), f"a key was written to {path.name}"

    def test_find_answers(self, make_finder: MakeFinder, served: Served) -> None:
        """`find` gives a card, or None, or says in a `SourceError` that the address names no model."""
        try:
            found = make_finder().find(served[0], self.options())
        except SourceError:
            return
        assert found is None or isinstance(found, ModelCard), f"find gives {type(found).__name__}"

    def _require_right(self, fetched: Any, served: Served) -> None:
        assert isinstance(fetched, Fetched), f"fetch gives {type(fetched).__name__}, not Fetched"
        assert fetched.path.is_file(), f"{fetched.path} is no file"
        same = fetched.path.read_bytes() == served[1]  # not in `assert`: pytest would write out all differences
        assert same, "the file is not what was served"
        assert fetched.size == len(served[1]), f"the size is told as {fetched.size}, it is {len(served[1])}"
        assert fetched.sha256 == hashlib.sha256(served[1]).hexdigest(), "the hash told is not that of the file"


def artifact(served: Served, *, promises: bool = True, **changes: Any) -> Artifact:
    """The artifact that a card would have for a served file."""
    uri, content = served
    fields: dict[str, Any] = {"name": "weights.onnx", "uri": uri}
    if promises:
        fields.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return Artifact(**{**fields, **changes})


def files_below(folder: Path) -> Iterator[Path]:
    """All regular files below a folder that may not be there."""
    if folder.is_dir():
        yield from (path for path in folder.rglob("*") if path.is_file())


def require_whole(home: Path) -> None:
    """Every file of the store is what its name says."""
    for path in files_below(home / "blobs" / "sha256"):
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        assert found == path.name, f"the store holds a file that is not what its name says: {path.name}"


def _texts(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield from (str(error), repr(error), repr(vars(error)))
        error = error.__cause__ or error.__context__
