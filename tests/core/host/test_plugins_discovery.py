"""Discovery: a plugin's failure leaves out that plugin only, and what happened is told.

Distributions are real ones: a package and a `.dist-info` folder with entry points, on `sys.path`.
"""

from __future__ import annotations

import importlib
import sys
import textwrap
import warnings
from types import SimpleNamespace

import pytest

from lensmount.errors import PluginError
from lensmount.host.discovery import PluginWarning, collect, find_entry_points, given
from lensmount.specs import Architecture, Backend, ModelCard, Source, hookimpl

HEAD = "from lensmount.specs import *\nfrom lensmount.specs import hookimpl, Architecture, Backend, ModelCard, Source\n"
GOOD = """
@hookimpl
def lensmount_architectures():
    yield Architecture(name="{name}", tasks=("t",), factory="{name}.model:build")
"""
CARD = """
@hookimpl
def lensmount_model_cards():
    return [ModelCard(id="{id}", aliases=("{alias}",), architecture="a", task="t", packages=())]
"""
BACKEND = """
@hookimpl
def lensmount_backends():
    return [Backend(name="{name}", formats=("onnx",), probe="a:b", opener="a:b")]
"""


class Site:
    """A folder on `sys.path` that distributions are put into."""

    def __init__(self, root, monkeypatch):
        self.root, self.monkeypatch = root, monkeypatch
        self.folders = []
        self.folder("site")

    def folder(self, name):
        path = self.root / name
        path.mkdir()
        self.monkeypatch.syspath_prepend(str(path))
        self.folders.append(path)
        return path

    def add(self, name, code, *, version="1.0", requires=(), points=None, into=None):
        folder = into or self.folders[0]
        module = name.replace("-", "_")
        package = folder / module
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "plugin.py").write_text(HEAD + textwrap.dedent(code))
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        points = {name: f"{module}.plugin"} if points is None else points
        entries = [f"{key} = {value}" for key, value in points.items()] if isinstance(points, dict) else list(points)
        (info / "entry_points.txt").write_text("[lensmount]\n" + "\n".join(entries) + "\n")
        for loaded in [m for m in sys.modules if m.partition(".")[0] == module]:
            self.monkeypatch.delitem(sys.modules, loaded)
        importlib.invalidate_caches()

    def candidates(self):
        ours = tuple(str(folder) for folder in self.folders)
        return [c for c in find_entry_points() if (c.status.location or "").startswith(ours)]

    def collect(self, environ=None, expect=()):
        """Collects, and checks that exactly the plugins named in `expect` are warned about."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            index = collect(self.candidates(), environ or {})
        told = [str(w.message) for w in caught if w.category is PluginWarning]
        assert len(told) == len(expect), told
        for name, text in zip(expect, told, strict=True):
            assert f"plugin {name!r}" in text
        return index


@pytest.fixture
def site(tmp_path, monkeypatch):
    made = Site(tmp_path, monkeypatch)
    before = set(sys.modules)
    yield made
    for name in set(sys.modules) - before:
        if name.startswith("fake"):
            del sys.modules[name]


def states(index):
    return {status.name: (status.state, status.stage) for status in index.statuses}


def test_a_good_plugin(site):
    site.add("fake-good", GOOD.format(name="good") + CARD.format(id="m-1", alias="m"), version="2.3")
    index = site.collect()
    (status,) = index.statuses
    assert (status.name, status.distribution, status.version) == ("fake-good", "fake-good", "2.3")
    assert (status.state, status.stage, status.error) == ("active", None, None)
    assert (status.module, status.location) == ("fake_good.plugin", str(site.folders[0]))
    assert set(status.hooks) == {"lensmount_architectures", "lensmount_model_cards"}
    assert set(index.architectures) == {"good"}
    assert [entry.distribution for entry in index.cards["m"]] == ["fake-good"]
    assert index.cards["m"] == index.cards["m-1"]
    assert index.owners["lensmount_architectures", "good"] == "fake-good"
    assert index.broken == []


BROKEN = {
    "raises at import": ("raise RuntimeError('no luck')", "import", "RuntimeError: no luck"),
    "lacks a module": ("import no_such_module_at_all", "import", "no_such_module_at_all"),
    "has a syntax error": ("def (", "import", "SyntaxError"),
    "leaves the process": ("import sys; sys.exit(3)", "import", "SystemExit"),
    "raises in a hook": (
        "@hookimpl\ndef lensmount_architectures():\n    raise KeyError('inside')",
        "hooks",
        "KeyError: 'inside'",
    ),
    "raises half-way through a hook": (
        GOOD.format(name="half") + "    raise ValueError('second')",
        "hooks",
        "ValueError: second",
    ),
    "leaves the process in a hook": (
        "@hookimpl\ndef lensmount_architectures():\n    raise SystemExit",
        "hooks",
        "SystemExit",
    ),
    "returns the wrong things": (
        "@hookimpl\ndef lensmount_architectures():\n    return ['yolo']",
        "hooks",
        "returned the wrong thing",
    ),
    "returns things of another hook": (
        "@hookimpl\ndef lensmount_backends():\n    return [Source(scheme='s3', finder='a:b')]",
        "hooks",
        "expected: an iterable of Backend",
    ),
    "returns a number": ("@hookimpl\ndef lensmount_architectures():\n    return 3", "hooks", "lensmount_architectures"),
    "returns a text": ("@hookimpl\ndef lensmount_architectures():\n    return 'yolo'", "hooks", "wrong thing"),
    "returns nothing": ("@hookimpl\ndef lensmount_architectures():\n    pass", "hooks", "lensmount_architectures"),
    "returns one descriptor bare": (
        "@hookimpl\ndef lensmount_sources():\n    return Source(scheme='s3', finder='a:b')",
        "hooks",
        "lensmount_sources",
    ),
    "returns an unhashable descriptor": (
        "@hookimpl\ndef lensmount_architectures():\n    return [Architecture(name='a', tasks=['t'], factory='a:b')]",
        "hooks",
        "unhashable",
    ),
    "makes a wrong descriptor": (
        "@hookimpl\ndef lensmount_architectures():\n    return [Architecture(name='A b', tasks=('t',), factory='a:b')]",
        "hooks",
        "name of a",
    ),
    "misspells a hook": ("@hookimpl\ndef lensmount_architecture():\n    return []", "register", "unknown hook"),
    "forgets to mark a hook": ("def lensmount_architectures():\n    return []", "register", "@hookimpl"),
    "takes an argument": ("@hookimpl\ndef lensmount_backends(registry):\n    return []", "register", "registry"),
    "implements no hook": ("x = 1", "register", "no hook"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_left_out_alone(site, case):
    code, stage, words = BROKEN[case]
    site.add("fake-a-good", GOOD.format(name="first"))
    site.add("fake-broken", code)
    site.add("fake-z-good", GOOD.format(name="last"))
    index = site.collect(expect=["fake-broken"])
    assert set(index.architectures) == {"first", "last"}
    assert not index.backends
    assert not index.sources
    assert states(index) == {
        "fake-a-good": ("active", None),
        "fake-broken": ("broken", stage),
        "fake-z-good": ("active", None),
    }
    (broken,) = index.broken
    assert words in (broken.error or "")
    assert broken.distribution == "fake-broken"


@pytest.mark.parametrize("case", BROKEN)
def test_strict_makes_it_an_error(site, case):
    code, stage, _ = BROKEN[case]
    site.add("fake-broken", code)
    with pytest.raises(PluginError, match=f"'fake-broken' of fake-broken 1.0 failed at stage {stage}") as caught:
        collect(site.candidates(), {"LENSMOUNT_STRICT": "1"})
    assert "LENSMOUNT_BLOCK_PLUGINS=fake-broken" in str(caught.value.fix)
    assert caught.value.__cause__ is not None
    site.collect({"LENSMOUNT_STRICT": "0"}, expect=["fake-broken"])


def test_ctrl_c_is_not_swallowed(site):
    site.add("fake-slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        collect(site.candidates(), {})


def test_one_name_twice_in_a_plugin(site):
    twice = "    yield Architecture(name='two', tasks=('t',), factory='a:b')\n"
    site.add("fake-twice", GOOD.format(name="two") + twice)
    index = site.collect(expect=["fake-twice"])
    assert states(index) == {"fake-twice": ("broken", "conflict")}
    assert "'two' (twice in this plugin)" in (index.broken[0].error or "")
    assert not index.architectures


def test_one_model_id_twice_in_a_plugin(site):
    card = "ModelCard(id='m', architecture='a', task='t', packages=())"
    site.add("fake-twice", f"@hookimpl\ndef lensmount_model_cards():\n    return [{card}, {card}]")
    index = site.collect(expect=["fake-twice"])
    assert states(index) == {"fake-twice": ("broken", "conflict")}
    assert not index.cards


@pytest.mark.parametrize(
    ("requires", "fits"),
    [
        (["lensmount>=0.1,<0.2"], True),
        (["numpy>=99", "lensmount"], True),
        (["lensmount>=99"], False),
        (["lensmount<0.1"], False),
        (["lensmount[onnx]>=99; extra == 'onnx'"], True),
        (['lensmount>=99; python_version >= "3.8"'], False),
        (["lensmount-other>=99"], False),
        (["lensmount-yolo>=0.1,<0.2", "lensmount-vision>=0.1"], True),
        (["lensmount-yolo>=99"], False),
        (["lensmount >=>= 1"], False),
    ],
)
def test_plugins_for_another_core_are_not_even_imported(site, requires, fits):
    site.add("fake-versioned", GOOD.format(name="versioned"), requires=requires)
    index = site.collect(expect=[] if fits else ["fake-versioned"])
    assert states(index)["fake-versioned"] == (("active", None) if fits else ("broken", "requirements"))
    assert ("fake_versioned.plugin" in sys.modules) is fits


def test_what_another_core_means_is_said(site):
    site.add("fake-versioned", GOOD.format(name="versioned"), requires=["lensmount>=99"])
    error = site.collect(expect=["fake-versioned"]).broken[0].error or ""
    assert "made for another lensmount" in error
    assert "lensmount>=99" in error
    assert "pip install --upgrade lensmount fake-versioned" in error


def test_another_of_our_distributions_that_is_too_old_or_missing_is_said(site):
    site.add("fake-late", GOOD.format(name="late"), requires=["lensmount-absent"])
    site.add("fake-versioned", GOOD.format(name="versioned"), requires=["lensmount-yolo >= 7"])
    late, versioned = site.collect(expect=["fake-late", "fake-versioned"]).broken
    assert "found: lensmount-absent is not installed" in late.error
    assert "pip install --upgrade lensmount-absent fake-late" in late.error
    assert "found: lensmount-yolo 0.1.0" in versioned.error
    assert "pip install --upgrade lensmount-yolo fake-versioned" in versioned.error


def test_an_entry_point_that_leads_nowhere(site):
    site.add("fake-lost", "", points={"fake-lost": "fake_lost.nothing"})
    site.add("fake-lost-name", "", points={"fake-lost-name": "fake_lost_name.plugin:nothing"})
    site.add("fake-odd", "", points=["fake-odd = not a module!"])
    index = site.collect(expect=["fake-lost", "fake-lost-name", "fake-odd"])
    assert {stage for _, stage in states(index).values()} == {"import"}


def test_an_entry_point_may_name_an_object(site):
    code = """
    class Plugin:
        @hookimpl
        def lensmount_architectures(self):
            yield Architecture(name="object", tasks=("t",), factory="a:b")
    plugin = Plugin()
    """
    site.add("fake-object", code, points={"fake-object": "fake_object.plugin:plugin"})
    assert set(site.collect().architectures) == {"object"}


def test_two_distributions_with_one_entry_point_name(site):
    site.add("fake-one", GOOD.format(name="one"), points={"same": "fake_one.plugin"})
    site.add("fake-two", GOOD.format(name="two"), points={"same": "fake_two.plugin"})
    index = site.collect()
    assert set(index.architectures) == {"one", "two"}
    assert [status.distribution for status in index.statuses] == ["fake-one", "fake-two"]


def test_one_distribution_with_two_entry_points(site):
    second = "fake_pair.second"
    site.add("fake-pair", GOOD.format(name="one"), points={"p1": "fake_pair.plugin", "p2": second})
    (site.folders[0] / "fake_pair" / "second.py").write_text("raise RuntimeError('only this one')")
    index = site.collect(expect=["p2"])
    assert states(index) == {"p1": ("active", None), "p2": ("broken", "import")}


def test_two_plugins_with_one_backend_name(site):
    site.add("fake-a", BACKEND.format(name="fast") + GOOD.format(name="mine"))
    site.add("fake-b", BACKEND.format(name="fast") + GOOD.format(name="other") + CARD.format(id="m", alias="n"))
    index = site.collect(expect=["fake-b"])
    assert index.owners["lensmount_backends", "fast"] == "fake-a"
    assert states(index)["fake-b"] == ("broken", "conflict")
    # all or nothing: what else it brings is left out too
    assert set(index.architectures) == {"mine"}
    assert not index.cards
    error = index.broken[0].error or ""
    assert "'fast' (fake-a)" in error
    assert "LENSMOUNT_BLOCK_PLUGINS" in error


def test_two_plugins_with_one_model_id(site):
    site.add("fake-a", CARD.format(id="m", alias="alias-a"))
    site.add("fake-b", CARD.format(id="other", alias="m"))
    index = site.collect()
    assert [entry.distribution for entry in index.cards["m"]] == ["fake-a", "fake-b"]
    assert [entry.distribution for entry in index.cards["other"]] == ["fake-b"]


def test_a_card_whose_alias_is_its_id_is_not_ambiguous(site):
    site.add("fake-a", CARD.format(id="m", alias="m"))
    assert len(site.collect().cards["m"]) == 1


def test_one_distribution_twice_on_the_path(site):
    site.add("fake-dup", GOOD.format(name="old"), version="1.0")
    first = site.folder("earlier")  # prepended: this is the one that Python imports
    site.add("fake-dup", GOOD.format(name="new"), version="2.0", into=first)
    index = site.collect()
    (status,) = index.statuses
    assert set(index.architectures) == {"new"}
    assert status.version == "2.0"
    assert status.location == str(first)


@pytest.mark.parametrize("name", ["fake-a", "FAKE_A", " fake.a "])
@pytest.mark.parametrize("variable", ["LENSMOUNT_PLUGINS", "LENSMOUNT_BLOCK_PLUGINS"])
def test_allowing_and_blocking(site, variable, name):
    site.add("fake-a", GOOD.format(name="a"))
    site.add("fake-b", GOOD.format(name="b"))
    index = site.collect({variable: f",{name},"})
    kept, left = ("fake-a", "fake-b") if variable == "LENSMOUNT_PLUGINS" else ("fake-b", "fake-a")
    assert states(index) == {kept: ("active", None), left: ("blocked", None)}
    assert f"{left.replace('-', '_')}.plugin" not in sys.modules


def test_blocking_by_distribution_and_over_allowing(site):
    site.add("fake-a", GOOD.format(name="a"), points={"short": "fake_a.plugin"})
    assert states(site.collect({"LENSMOUNT_BLOCK_PLUGINS": "fake-a"})) == {"short": ("blocked", None)}
    both = {"LENSMOUNT_BLOCK_PLUGINS": "short", "LENSMOUNT_PLUGINS": "fake-a"}
    assert states(site.collect(both)) == {"short": ("blocked", None)}
    assert states(site.collect({"LENSMOUNT_PLUGINS": " , "})) == {"short": ("active", None)}


def test_blocking_a_broken_plugin_silences_it(site):
    site.add("fake-broken", "raise RuntimeError")
    assert states(site.collect({"LENSMOUNT_BLOCK_PLUGINS": "fake-broken", "LENSMOUNT_STRICT": "1"})) == {
        "fake-broken": ("blocked", None)
    }


def test_order_is_that_of_names(site):
    for name in ("fake-c", "fake-a", "fake-b"):
        site.add(name, GOOD.format(name=name[-1]))
    assert [status.name for status in site.collect().statuses] == ["fake-a", "fake-b", "fake-c"]


def test_plugins_given_by_hand():
    def architectures():
        return [Architecture(name="mine", tasks=("t",), factory="a:b")]

    plugin = SimpleNamespace(lensmount_architectures=hookimpl(architectures))
    index = collect([given(plugin, "mine")], {})
    assert set(index.architectures) == {"mine"}
    (status,) = index.statuses
    assert (status.name, status.version, status.location) == ("mine", "added by add_plugin", None)


def test_a_plugin_given_twice_is_refused_once():
    class Plugin:
        @hookimpl
        def lensmount_model_cards(self):
            return [ModelCard(id="m", architecture="a", task="t", packages=())]

    plugin = Plugin()
    with pytest.warns(PluginWarning, match="register"):
        index = collect([given(plugin), given(plugin)], {})
    assert [status.state for status in index.statuses] == ["active", "broken"]
    assert len(index.cards["m"]) == 1


def test_an_object_with_hostile_attributes():
    class Hostile:
        @property
        def lensmount_backends(self):
            raise RuntimeError("no attribute for you")

    with pytest.warns(PluginWarning, match="no attribute for you"):
        index = collect([given(Hostile(), "hostile")], {})
    assert [status.stage for status in index.statuses] == ["register"]


def test_names_of_sources_are_schemes():
    def one():
        return [Source(scheme="s3", finder="a:b")]

    def two():
        return [Backend(name="s3", formats=("x",), probe="a:b", opener="a:b")]

    plugins = [
        given(SimpleNamespace(lensmount_sources=hookimpl(one)), "one"),
        given(SimpleNamespace(lensmount_backends=hookimpl(two)), "two"),
    ]
    index = collect(plugins, {})
    assert set(index.sources) == set(index.backends) == {"s3"}


def test_two_objects_of_one_class_name_are_two_plugins():
    """Tests and notebooks call theirs `Plugin`."""

    def made(name):
        class Plugin:
            @hookimpl
            def lensmount_sources(self):
                yield Source(scheme=name, finder="module:Finder")

        return Plugin()

    index = collect([given(made("one")), given(made("two"))], environ={})
    assert [status.state for status in index.statuses] == ["active", "active"]
    assert list(index.sources) == ["one", "two"]
