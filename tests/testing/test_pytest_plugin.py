"""The pytest plugin: what it costs those who never use it, and what its fixtures give those who do."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import lensmount_testing
import spots
from lensmount.contracts.session import Session, TensorSpec
from lensmount.errors import (
    BackendError,
    ClosedError,
    DeviceError,
    MissingDependencyError,
    NoPackageError,
    PluginWarning,
)
from lensmount.specs import Backend, hookimpl
from lensmount_testing import pytest_plugin

FIXTURES = {"isolated_registry", "sample_image", "fake_backend", "tmp_plugin"}
HOOKS = """
from lensmount.specs import CacheProvider, hookimpl

@hookimpl
def lensmount_caches():
    yield CacheProvider(name="thrown-away", factory="lensmount_thrown.cache:make")
"""


def run(code, *arguments, cwd=None):
    return subprocess.run(
        [sys.executable, *arguments, "-c", code], capture_output=True, text=True, cwd=cwd, check=False
    )


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_it_imports_only_pytest():
    """It is loaded by every pytest run in an environment with lensmount-testing."""
    code = (
        "import json, sys, typing, pytest\n"
        "before = set(sys.modules)\n"
        "import lensmount_testing.pytest_plugin\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["lensmount_testing", "lensmount_testing.pytest_plugin"]


def test_a_foreign_run_imports_nothing_heavy(tmp_path):
    """A project that has nothing to do with lensmount: its tests see neither numpy nor the registry."""
    (tmp_path / "test_mine.py").write_text(
        "import sys\n"
        "def test_mine():\n"
        "    assert 'lensmount_testing.pytest_plugin' in sys.modules\n"
        "    assert not {'numpy', 'torch', 'cv2', 'lensmount.registry', 'lensmount.host.site'} & set(sys.modules)\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    # pytest-cov and the like bring what they need: without other people's plugins
    found = {
        point.dist.name for point in metadata.entry_points(group="pytest11") if point.dist.name != "lensmount-testing"
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for point in metadata.entry_points(group="pytest11"):
        command += ["-p", f"no:{point.name}"] if point.dist.name in found else []
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_it_asks_little_of_pytest():
    """What it names of pytest is in every pytest from 8.0 on; it defines no hook, option or marker."""
    tree = ast.parse(Path(pytest_plugin.__file__).read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pytest"
    }
    assert used <= {"fixture", "MonkeyPatch", "TempPathFactory"}
    assert {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} == FIXTURES


def test_it_is_registered_and_can_be_left_out(tmp_path):
    (point,) = (p for p in metadata.entry_points(group="pytest11") if p.dist.name == "lensmount-testing")
    assert (point.name, point.value) == ("lensmount", "lensmount_testing.pytest_plugin")
    (tmp_path / "test_mine.py").write_text("def test_mine(sample_image):\n    assert sample_image.ndim == 3\n")
    for arguments, wanted in (((), "1 passed"), (("-p", "no:lensmount"), "1 error")):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert wanted in done.stdout, done.stdout


def test_the_kit_says_what_it_needs():
    """Without pytest there is a kit that says so, and a package that can be imported."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import lensmount_testing\n"
        "assert not {'numpy', 'lensmount.registry'} & set(sys.modules)\n"
        "lensmount_testing.ModelContract\n"
    )
    done = run(code)
    assert "MissingDependencyError" in done.stderr
    assert 'pip install "lensmount[testing]"' in done.stderr
    assert issubclass(MissingDependencyError, ImportError)


def test_public_names():
    assert sorted(lensmount_testing.__all__) == sorted(lensmount_testing._LAZY)
    for name in lensmount_testing.__all__:
        assert name == "GRAPHS" or getattr(lensmount_testing, name).__name__ == name
    assert "scale" in lensmount_testing.GRAPHS
    with pytest.raises(AttributeError, match="NoContract"):
        _ = lensmount_testing.NoContract


# --- isolated_registry ------------------------------------------------------------------------------------------------


def test_isolated_registry_sees_the_core_alone(isolated_registry, tmp_path):
    from lensmount.specs.offline import is_offline
    from lensmount.store.store import default_root

    assert [status.name for status in isolated_registry.plugins()] == ["builtin"]
    assert isolated_registry.models() == []
    assert is_offline()
    assert not default_root().exists()
    assert default_root() != Path.home()


def test_isolated_registry_discovers_what_it_is_told_to(isolated_registry):
    assert [s.distribution for s in isolated_registry.discover("lensmount_YOLO")] == ["lensmount-yolo"]
    assert [s.distribution for s in isolated_registry.discover("lensmount-shapes")] == [
        "lensmount-shapes",
        "lensmount-yolo",
    ]
    everything = isolated_registry.discover()
    assert {"lensmount-clip", "lensmount-yolo"} <= {status.distribution for status in everything}


def test_isolated_registry_forgets_the_users_settings(monkeypatch, request):
    monkeypatch.setenv("LENSMOUNT_BLOCK_PLUGINS", "yolo")
    registry = request.getfixturevalue("isolated_registry")
    assert [status.state for status in registry.discover("lensmount-yolo")] == ["active"]


# --- sample_image -----------------------------------------------------------------------------------------------------


def test_sample_image(sample_image):
    from lensmount_testing.pictures import encode_png, sample

    assert sample_image.shape == (120, 160, 3) and sample_image.dtype == np.uint8
    assert sample_image.flags.writeable and np.array_equal(sample_image, sample())
    for other in (sample_image[..., ::-1], sample_image[::-1], sample_image[:, ::-1]):
        assert np.abs(sample_image.astype(int) - other).mean() > 10  # a mix-up shows
    # The same on every machine: by arithmetic, not by luck.
    assert sample_image[0, 0].tolist() == [40, 60, 200]
    assert int(sample_image.sum()) == int(sample().sum())
    assert encode_png(sample_image)[:4] == b"\x89PNG"
    for size in ((1, 1), (1, 50), (50, 1)):
        assert sample(*size).shape == (*size, 3)


# --- fake_backend -----------------------------------------------------------------------------------------------------


def test_fake_backend_runs_a_model_and_records_its_feeds(isolated_registry, fake_backend, sample_image):
    isolated_registry.add_plugin(spots.plugin())
    fake_backend.formats = ("spots",)
    fake_backend.inputs = spots.Session.inputs
    fake_backend.outputs = spots.Session.outputs
    fake_backend.answers = {"light": np.array([[0.9, 0.05, 0.7, 0.05]])}
    isolated_registry.add_plugin(fake_backend.plugin)
    with isolated_registry.load("spots-object-detection") as model:
        assert model.backend == "fake"  # of the highest preference
        results = model([sample_image, sample_image[::-1].copy()])
    assert all(result.confidence.tolist() == pytest.approx([0.9, 0.7]) for result in results)
    assert len(results) == 2
    (fed,) = fake_backend.feeds
    assert fed["images"].shape == (2, 3, 32, 32) and fed["images"].dtype == np.float32
    assert fake_backend.requests[0].package.format == "spots"


def test_fake_backend_computes(isolated_registry, fake_backend, sample_image):
    isolated_registry.add_plugin(spots.plugin())
    fake_backend.formats, fake_backend.inputs, fake_backend.outputs = ("spots",), *_spots_io()
    fake_backend.answers = lambda feeds: {"light": feeds["images"].mean(axis=(2, 3))[:, [0, 1, 2, 2]]}
    isolated_registry.add_plugin(fake_backend.plugin)
    (result,) = isolated_registry.load("spots-classification")(sample_image)
    expected = sample_image.mean(axis=(0, 1))[[2, 1, 0, 0]]
    np.testing.assert_allclose(
        result.probabilities, expected / expected.sum(), atol=5e-3
    )  # shrinking keeps the mean roughly


def test_fake_backend_is_a_backend(fake_backend):
    import types

    descriptor = fake_backend.descriptor
    assert isinstance(descriptor, Backend)
    module = importlib.import_module(descriptor.opener.partition(":")[0])
    request = types.SimpleNamespace(device="cpu")
    session = module.open_session(request)
    assert isinstance(session, Session)
    with pytest.raises(BackendError):
        session.run({"images": np.zeros((1, 3, 64, 64))})
    first = session.run({"images": np.zeros((3, 3, 64, 64), np.float32)})["output"]
    assert first.shape == (3, 1)
    first[...] = 7
    assert session.run({"images": np.zeros((1, 3, 64, 64), np.float32)})["output"].tolist() == [[0.0]]
    session.close()
    session.close()
    with pytest.raises(ClosedError):
        session.run({"images": np.zeros((1, 3, 64, 64), np.float32)})
    with pytest.raises(DeviceError):
        module.open_session(types.SimpleNamespace(device="cuda:0"))


def test_fake_backend_is_gone_afterwards(isolated_registry):
    from lensmount_testing.fake_backend import FakeBackend

    with FakeBackend() as backend:
        isolated_registry.add_plugin(spots.plugin())
        backend.formats = ("spots",)
        isolated_registry.add_plugin(backend.plugin)
    with pytest.warns(PluginWarning, match="does not exist"), pytest.raises(NoPackageError, match="does not exist"):
        isolated_registry.load("spots-classification", backend="fake")


def _spots_io():
    return spots.Session.inputs, spots.Session.outputs


# --- tmp_plugin -------------------------------------------------------------------------------------------------------


def test_tmp_plugin_is_found_and_works(tmp_plugin, isolated_registry):
    files = {"cache.py": "def make(**settings):\n    return dict(settings)\n"}
    written = tmp_plugin("lensmount-thrown", HOOKS, files=files)
    (status,) = isolated_registry.discover("lensmount-thrown")
    assert (status.state, status.version, status.hooks) == ("active", "1.0", ("lensmount_caches",)), status.error
    assert isolated_registry.index.caches["thrown-away"].factory == "lensmount_thrown.cache:make"
    assert importlib.import_module("lensmount_thrown.cache").make(a=1) == {"a": 1}
    listed = {str(path) for path in metadata.distribution("lensmount-thrown").files}
    assert {"lensmount_thrown/plugin.py", "lensmount_thrown/cache.py", "lensmount_thrown/py.typed"} <= listed
    assert (written.folder / "plugin.py").is_file() and (written.metadata / "METADATA").is_file()


def test_tmp_plugin_written_anew_is_new(tmp_plugin, isolated_registry):
    tmp_plugin("lensmount-thrown", HOOKS)
    isolated_registry.discover("lensmount-thrown")
    tmp_plugin("lensmount-thrown", HOOKS.replace("thrown-away", "another"))
    isolated_registry.refresh()
    assert "another" in isolated_registry.index.caches and "thrown-away" not in isolated_registry.index.caches


@pytest.mark.parametrize(
    ("options", "stage"),
    [
        ({"requires": ["lensmount>=99"]}, "requirements"),
        ({"hooks": "raise ImportError('broken')"}, "import"),
        ({"hooks": HOOKS.replace("lensmount_caches", "lensmount_cache")}, "register"),
    ],
)
def test_tmp_plugin_that_is_broken_is_left_out(tmp_plugin, isolated_registry, options, stage):
    tmp_plugin("lensmount-thrown", **{"hooks": HOOKS, **options})
    with pytest.warns(match="was left out"):
        (status,) = isolated_registry.discover("lensmount-thrown")
    assert (status.state, status.stage) == ("broken", stage)


def test_tmp_plugin_is_gone_afterwards(tmp_path, isolated_registry):
    from lensmount_testing.throwaway import Throwaway

    before = list(sys.path)
    with Throwaway(tmp_path / "here") as write:
        write("lensmount-thrown", HOOKS)
        assert len(isolated_registry.discover("lensmount-thrown")) == 1
        assert "lensmount_thrown.plugin" in sys.modules
    assert sys.path == before
    assert not [name for name in sys.modules if name.startswith("lensmount_thrown")]
    isolated_registry.refresh()
    assert [status.name for status in isolated_registry.plugins()] == ["builtin"]


def test_a_hook_object_needs_no_distribution(isolated_registry):
    """The short way, for tests of a hook alone."""

    class Plugin:
        @hookimpl
        def lensmount_backends(self):
            yield Backend(name="mine", formats=("mine",), probe="spots:probe", opener="spots:open_spots")

    assert isolated_registry.add_plugin(Plugin()).state == "active"
    assert TensorSpec("x", (1,), "float32") is not None
    assert "mine" in isolated_registry.index.backends
