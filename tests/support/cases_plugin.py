"""A plugin that keeps every promise, and one for each promise that breaks it."""

from __future__ import annotations

import hashlib

import pytest

from contract_cases import Case, classes
from lensmount_testing import PluginContract
from lensmount_testing.throwaway import compatible

WEIGHTS = b"these are weights"
HOOKS = """
from lensmount.specs import (
    Architecture, Artifact, Backend, CacheProvider, ModelCard, ModelPackage, Source, hookimpl
)

@hookimpl
def lensmount_architectures():
    yield Architecture(name="keeps", tasks=("object-detection",), factory="PACKAGE.model:build",
                       options="PACKAGE.model:Options")

@hookimpl
def lensmount_model_cards():
    weights = Artifact(name="w.onnx", uri="package://PACKAGE/w.onnx", size=SIZE, sha256="SHA")
    hub = Artifact(name="w.onnx", uri="hf://owner/repo@COMMIT/w.onnx")
    yield ModelCard(id="keeps-1", architecture="keeps", task="object-detection", licence="Apache-2.0", packages=(
        ModelPackage(name="onnx", format="onnx", artifacts=(weights,)),
        ModelPackage(name="hub", format="onnx", artifacts=(hub,)),
    ))

@hookimpl
def lensmount_backends():
    yield Backend(name="keeps", formats=("keeps",), probe="PACKAGE.model:probe", opener="PACKAGE.model:build")

@hookimpl
def lensmount_sources():
    yield Source(scheme="keeps", finder="PACKAGE.model:build")

@hookimpl
def lensmount_caches():
    yield CacheProvider(name="keeps", factory="PACKAGE.model:build")
"""
MODEL = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Options:
    size: int = 1

def build(context):
    return context

probe = build
"""


def written(change=(), *, model=MODEL, **more):
    """A class body that installs the plugin with a change, given as pairs of what is replaced by what."""
    package = "lensmount_kept"
    text = HOOKS
    for old, new in change:
        assert old in text, old
        text = text.replace(old, new)
    names = {"COMMIT": "a" * 40, "SIZE": str(len(WEIGHTS)), "SHA": hashlib.sha256(WEIGHTS).hexdigest()}
    for name, value in {**names, "PACKAGE": package}.items():
        text = text.replace(name, value)
    files = {"model.py": model, "w.onnx": WEIGHTS}

    @pytest.fixture(autouse=True)
    def installs(self, tmp_plugin):
        tmp_plugin("lensmount-kept", text, files=files, **more)

    return {"distribution": "lensmount-kept", "installs": installs}


def first(line):
    """A change that runs a line at the top of the hook module."""
    return [("\nfrom lensmount.specs import (", f"\n{line}\nfrom lensmount.specs import (")]


CARD_LICENCE = 'licence="Apache-2.0"'
HUB = "hf://owner/repo@COMMIT/w.onnx"

CASES = [
    Case("test_has_an_entry_point", "no entry point in the group 'lensmount'", written(group="lens-mount")),
    Case("test_requires_this_lensmount", "does not require lensmount", written(requires=["numpy"])),
    Case("test_requires_this_lensmount", "no upper bound", written(requires=["lensmount>=0.0.1"]), "open"),
    Case("test_requires_this_lensmount", "does not allow lensmount", written(requires=["lensmount<0.0.2"]), "old"),
    Case("test_ships_py_typed", "no py.typed", written(typed=False)),
    Case("test_hook_module_imports", "fails at stage import", written(first("import no_such_module_anywhere"))),
    Case("test_hook_module_imports", "fails at stage requirements", written(requires=["lensmount<0.0.2"]), "old"),
    Case("test_hooks_are_known", "unknown hook", written([("def lensmount_sources", "def lensmount_source")])),
    Case("test_hooks_are_known", "not marked as hooks", written([("@hookimpl\ndef lensmount_so", "def lensmount_so")]),
         "unmarked"),
    Case("test_hooks_return_descriptors", "returned the wrong thing",
         written([('yield Source(scheme="keeps", finder="PACKAGE.model:build")', 'yield {"scheme": "keeps"}')])),
    Case("test_hooks_return_descriptors", "a model id", written([('id="keeps-1"', 'id="../keeps"')]), "id"),
    Case("test_hooks_return_descriptors", "the sha256", written([('sha256="SHA"', 'sha256="abc"')]), "sha256"),
    Case("test_hooks_are_pure", "other descriptors the second time",
         written([*first("import itertools; count = itertools.count()"),
                  ('id="keeps-1"', 'id=f"keeps-{next(count)}"')])),
    Case("test_discovery_is_light", "imports numpy", written(first("import numpy"))),
    Case("test_discovery_is_light", "imports numpy",
         written([("def lensmount_sources():\n", "def lensmount_sources():\n    import PACKAGE.model\n")],
                 model="import numpy\n" + MODEL), "in a hook"),
    Case("test_discovery_is_light", "lensmount.specs has all",
         written(first("import lensmount.host.selection")), "core"),
    Case("test_discovery_opens_no_socket", "reaches for the network",
         written(first("import socket; socket.socket().close()"))),
    Case("test_discovery_writes_nothing", "writes", written(first("import tempfile; tempfile.mkdtemp()"))),
    Case("test_discovery_writes_nothing", "writes",
         written(first("import pathlib; pathlib.Path(__file__).with_name('x.txt').write_text('x')")), "file"),
    Case("test_discovery_starts_no_process", "starts a process",
         written(first("import subprocess, sys; subprocess.run([sys.executable, '-c', ''])"))),
    Case("test_names_are_its_own", "that other plugins hold",
         written([('Architecture(name="keeps"', 'Architecture(name="yolo"')])),
    Case("test_names_are_its_own", "is claimed by", written([('id="keeps-1"', 'id="yolov8n-640"')]), "model"),
    Case("test_names_are_its_own", "twice in this plugin",
         written([('licence="Apache-2.0"', 'licence="Apache-2.0", aliases=("a", "a")'),
                  ('    yield ModelCard(id="keeps-1"',
                   '    yield ModelCard(id="a", architecture="keeps", task="t", packages=())\n'
                   '    yield ModelCard(id="keeps-1"')]), "twice"),
    Case("test_import_strings_resolve", "does not exist",
         written([('finder="PACKAGE.model:build"', 'finder="PACKAGE.model:Finder"')])),
    Case("test_import_strings_resolve", "module that does not exist",
         written([('finder="PACKAGE.model:build"', 'finder="PACKAGE.nowhere:Finder"')]), "module"),
    Case("test_import_strings_resolve", "frozen dataclass",
         written(model=MODEL.replace("(frozen=True)", "")), "options"),
    Case("test_cards_have_an_architecture", "brings architecture 'other'",
         written([('architecture="keeps"', 'architecture="other"')])),
    Case("test_cards_have_an_architecture", "not 'embedding'",
         written([('task="object-detection"', 'task="embedding"')]), "task"),
    Case("test_licences_are_given", "is no SPDX id", written([(CARD_LICENCE, 'licence="unknown"')])),
    Case("test_licences_are_given", "is no SPDX id", written([(CARD_LICENCE, 'licence="free, as in beer"')]), "words"),
    Case("test_addresses_have_a_source", "nothing here fetches", written([(HUB, "gopher://x/w.onnx")])),
    Case("test_content_is_fixed", "has no hash and no commit", written([(HUB, "hf://owner/repo/w.onnx")])),
    Case("test_content_is_fixed", "has no hash", written([(HUB, "https://host/w.onnx")]), "web"),
    Case("test_packaged_files_are_whole", "does not exist", written([("PACKAGE/w.onnx", "PACKAGE/x.onnx")])),
    Case("test_packaged_files_are_whole", "not what was promised", written([('"SHA"', f'"{"0" * 64}"')]), "hash"),
    Case("test_packaged_files_are_whole", "found: 17 bytes", written([("size=SIZE", "size=3")]), "size"),
    Case("test_formats_have_a_backend", "opens format 'engine-of-mine'",
         written([('name="hub", format="onnx"', 'name="hub", format="engine-of-mine"')])),
    Case("test_formats_have_a_backend", "has no network",
         written([('name="hub", format="onnx"', 'name="hub", format="torch"')]), "torch"),
]  # fmt: skip


class TestKeeps(PluginContract):
    locals().update(written(requires=[compatible(), "numpy", 'torch; extra == "torch"']))


globals().update(classes(PluginContract, CASES))
