"""`pull`, `lock`, `cache`, `inspect`, `convert`, `plugins`: what they say, leave behind, and exit with."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import IntegrityError
from lensmount.specs import hookimpl
from tiny_plugin import COMMIT, artifact, card, plugin, sha

W, SHARED, OTHER = b"weights" * 999, b"shared" * 500, b"other" * 200


@pytest.fixture
def models(hub, known):
    """`tiny` and `twin` share a file; `pinned` lies on the hub."""
    hub.put_repo("owner/tiny", {"w.bin": W})
    shared = hub.put("/shared.bin", SHARED)
    known(
        plugin(
            card(
                "tiny",
                ("one", [artifact("w.bin", hub.put("/w.bin", W), W), artifact("s.bin", shared, SHARED)]),
                ("two", [artifact("w.bin", hub.put("/other.bin", OTHER))]),
            ),
            card("twin", ("one", [artifact("v.bin", hub.put("/v.bin", OTHER * 2)), artifact("s.bin", shared, SHARED)])),
            card("pinned", ("one", [artifact("w.bin", f"hf://owner/tiny@{COMMIT}/w.bin", W)])),
        )
    )
    return hub


# --- pull and lock ----------------------------------------------------------------------------------------------------


def test_pull_says_what_came(models, lensmount, home):
    done = lensmount("pull", "tiny", "--allow-insecure")
    assert done.status == 0
    assert f"sha256 {sha(W)}" in done.out
    assert f"sha256 {sha(SHARED)}" in done.out
    assert sha(OTHER) not in done.out
    assert models.count(containing="/w.bin") == 1
    assert lensmount("pull", "tiny", "--allow-insecure").status == 0
    assert models.count(containing="/w.bin") == 1  # it is here
    assert sha(OTHER) in lensmount("pull", "tiny", "--all", "--allow-insecure").out


def test_pull_fails_with_one_message(models, lensmount):
    done = lensmount("pull", "tiny")
    assert done.status == 1
    assert "SourceError" in done.err
    assert "--allow-insecure" in done.err
    assert "Traceback" not in done.err
    done = lensmount("pull", "tinny")
    assert (done.status, "did you mean tiny" in done.err) == (1, True)


def test_pull_to_a_folder_and_load_it_offline(models, lensmount, tmp_path, monkeypatch, no_sockets_after):
    done = lensmount("pull", "tiny", "--all", "--to", tmp_path / "one", "--allow-insecure")
    assert done.status == 0
    assert f"bundle {tmp_path / 'one'}" in done.out
    assert lensmount("pull", "pinned", "twin", "--to", tmp_path / "both", "--allow-insecure").status == 0
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["pinned", "twin"]
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "new"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with no_sockets_after():
        assert registry.load(tmp_path / "one").contents == {"w.bin": W, "s.bin": SHARED}
        assert registry.load(tmp_path / "one", package="two").contents == {"w.bin": OTHER}
        assert registry.load(tmp_path / "both" / "pinned").contents == {"w.bin": W}
    monkeypatch.delenv("HF_HUB_OFFLINE")
    done = lensmount("pull", "tiny", "--to", tmp_path / "one", "--allow-insecure")
    assert (done.status, "not empty" in done.err) == (1, True)


def test_lock_and_locked_loads(models, lensmount, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = lensmount("lock", "pinned")
    assert (done.status, done.out.strip()) == (0, "lensmount.lock")
    first = (tmp_path / "lensmount.lock").read_bytes()
    assert json.loads(first)["models"]["pinned"]["one"]["w.bin"]["revision"] == COMMIT
    assert lensmount("lock", "pinned", "-o", "again.lock").status == 0
    assert (tmp_path / "again.lock").read_bytes() == first
    assert registry.load("pinned", locked=True).contents == {"w.bin": W}
    (tmp_path / "lensmount.lock").write_bytes(first.replace(sha(W).encode(), b"0" * 64))
    with pytest.raises(IntegrityError):
        registry.load("pinned", locked=True)


def test_lock_of_plain_http_needs_the_flag(models, lensmount, tmp_path):
    target = tmp_path / "l.lock"
    done = lensmount("lock", "tiny", "-o", target)
    assert (done.status, "plain http" in done.err, target.exists()) == (1, True, False)
    assert lensmount("lock", "tiny", "-o", target, "--allow-insecure").status == 0
    assert registry.load("tiny", locked=target, allow_insecure=True).contents["w.bin"] == W


# --- cache ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(models, lensmount):
    for name in ("tiny", "twin"):
        assert lensmount("pull", name, "--allow-insecure").status == 0
    return models


def blobs(home):
    return {path.name for path in (home / "blobs" / "sha256").rglob("*") if path.is_file()}


def test_cache_ls_and_size(filled, lensmount, home):
    done = lensmount("cache", "ls")
    assert done.status == 0
    rows = [line.split() for line in done.out.splitlines() if "one" in line]
    assert [(row[0], row[1]) for row in rows] == [("tiny", "one"), ("twin", "one")]
    done = lensmount("cache", "size")
    assert str(home) in done.out
    assert f"files {(len(W) + len(SHARED) + 2 * len(OTHER)) / 1000:.1f} kB" in done.out


def test_an_empty_store_is_no_error(home, lensmount, known):
    known()
    for command in ("ls", "size", "verify", "prune"):
        assert lensmount("cache", command).status == 0


def test_cache_verify_finds_and_removes_damage(filled, lensmount, home):
    assert lensmount("cache", "verify").status == 0
    (bad,) = (path for path in (home / "blobs").rglob(sha(W)) if path.is_file())
    bad.chmod(0o644)
    bad.write_bytes(W[:-1] + b"X")
    done = lensmount("cache", "verify")
    assert done.status == 1
    assert str(bad) in done.out
    assert "damaged" in done.out
    assert bad.exists()
    assert lensmount("cache", "verify", "--remove").status == 1
    assert not bad.exists()
    assert lensmount("cache", "verify").status == 0
    assert registry.load("tiny", allow_insecure=True).contents["w.bin"] == W  # brought again


def test_cache_rm_says_before_it_does(filled, lensmount, home):
    before = blobs(home)
    done = lensmount("cache", "rm", "tiny")
    assert done.status == 0
    assert "would remove" in done.out
    assert "--yes" in done.out
    assert blobs(home) == before
    done = lensmount("cache", "rm", "tiny", "--yes")
    assert done.status == 0
    assert before - blobs(home) == {sha(W)}  # what twin shares stays
    assert "tiny" not in lensmount("cache", "ls").out
    assert registry.load("twin", allow_insecure=True, offline=True).contents["s.bin"] == SHARED
    for arguments in (("tiny",), ("nonsense", "--yes"), ()):
        assert lensmount("cache", "rm", *arguments).status == 1


def test_cache_rm_forgets_an_address(filled, lensmount):
    address = filled.url + "/v.bin"
    assert "would forget" in lensmount("cache", "rm", "--address", address).out
    assert "forgot" in lensmount("cache", "rm", "--address", address, "--yes").out
    assert lensmount("cache", "rm", "--address", address).status == 1


def test_cache_prune_says_before_it_does(filled, lensmount, home, monkeypatch):
    stray = home / "blobs" / "sha256" / "ff" / ("f" * 64)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"nobody's")
    monkeypatch.setattr("lensmount.store.cachetool._age", lambda path: 1e9)
    done = lensmount("cache", "prune")
    assert done.status == 0
    assert f"would remove {stray}" in done.out
    assert stray.exists()
    assert lensmount("cache", "prune", "--yes").status == 0
    assert blobs(home) == {sha(W), sha(SHARED), sha(OTHER * 2)}


# --- inspect and convert ----------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (os.system, ("echo lensmount-was-here > ran",))


class Clever:
    def __reduce__(self):
        return (eval, ("open('ran', 'w')",))


@pytest.fixture
def hostile(tmp_path):
    path = tmp_path / "hostile.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({"w": Evil(), "x": Clever(), "\x1b]0;title\x07": 1}, protocol=2))
        archive.writestr("m/version", "3\n")
    return path


@pytest.mark.parametrize("options", [(), ("--json",), ("--all",)])
def test_inspect_names_what_it_refuses(hostile, lensmount, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = lensmount("inspect", hostile, *options)
    assert done.status == 1
    system = f"{os.system.__module__}.system"
    if options == ("--json",):
        said = json.loads(done.out)
        assert set(said["refused_globals"]) == {system, "builtins.eval"}
        assert "\x1b" not in done.out
    else:
        for name in (system, "builtins.eval"):
            assert f"refused   {name}" in done.out
        assert "cannot be loaded" in done.out
        assert "\x1b" not in done.out  # a file does not get to write to the terminal
    assert not (tmp_path / "ran").exists()


def test_inspect_writes_no_control_characters(lensmount, tmp_path):
    """Names and texts of a file are shown as text: a file does not get to steer the terminal."""
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "title.safetensors"
    path.write_bytes(
        safetensors.save({"a\x1b[2Jb": np.ones(2)}, {"k\x1b]0;x\x07": "v\x1b[31m\r\nmetadata  forged: yes"})
    )
    done = lensmount("inspect", path)
    assert done.status in (0, 1)
    assert not [c for c in done.out if c != "\n" and not c.isprintable()]
    assert "\nmetadata  forged" not in done.out


def test_inspect_of_what_is_no_model(lensmount, tmp_path):
    path = tmp_path / "x.pt"
    for content in (b"", b"hello", b"PK\x03\x04broken"):
        path.write_bytes(content)
        done = lensmount("inspect", path)
        assert done.status == 1
        assert "Traceback" not in done.err
    assert lensmount("inspect", tmp_path / "missing.pt").status == 1


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "ultralytics", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from lensmount.cli import main
main()
"""


def without_torch(*arguments):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip


def test_inspect_and_convert_a_yolo_checkpoint_without_torch(reference_data, tmp_path):
    path = reference_data / "weights" / "yolov9t_volleyball_nc1.pt"
    done = without_torch("inspect", path, "--json")
    said = json.loads(done.stdout)
    assert said["kind"] == "torch"
    assert "ultralytics.nn.tasks.DetectionModel" in said["globals"]
    assert len(said["tensors"]) > 500
    assert all(dtype and isinstance(shape, list) for dtype, shape in said["tensors"].values())
    assert (done.returncode, said["refused_globals"], said["problem"]) == (0, [], None)
    plain = without_torch("inspect", path)
    assert plain.returncode == 0
    assert f"{len(said['tensors'])} tensors" in plain.stdout
    assert "global    ultralytics.nn.tasks.DetectionModel" in plain.stdout
    done = without_torch("convert", path, "-o", tmp_path / "out.safetensors")
    assert done.returncode == 0, done.stderr
    written = json.loads(without_torch("inspect", tmp_path / "out.safetensors", "--json").stdout)
    assert written["kind"] == "safetensors"
    assert written["tensors"] == said["tensors"]


def test_convert_gives_the_same_tensors(lensmount, tmp_path):
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    tensors = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(3).bfloat16(), "c.d": torch.zeros(0, 4).half()}
    torch.save(tensors, tmp_path / "m.pt")
    done = lensmount("convert", tmp_path / "m.pt")
    assert (done.status, done.out.strip()) == (0, str(tmp_path / "m.safetensors"))
    read = safetensors.load_file(tmp_path / "m.safetensors")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_convert_of_a_hostile_file_leaves_nothing(hostile, lensmount, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = lensmount("convert", hostile)
    assert done.status == 1
    assert "UnsafeFileError" in done.err
    assert "system" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.pt"]


def test_convert_refuses_what_it_cannot_do(lensmount, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors.save({"a": np.ones(2)}))
    assert lensmount("convert", path).status == 1  # over itself
    assert lensmount("convert", path, "--to", "pickle").status == 1
    assert safetensors.load(path.read_bytes())["a"].tolist() == [1, 1]


# --- plugins ----------------------------------------------------------------------------------------------------------


class Broken:
    @hookimpl
    def lensmount_model_cards(self):
        raise RuntimeError("it broke")


def test_plugins_are_shown_with_what_became_of_them(lensmount, known, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_BLOCK_PLUGINS", "plugin-2")
    known(plugin(card("tiny", ("one", [artifact("w", "hf://a/b/c")]))), Broken(), types.SimpleNamespace())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        done = lensmount("plugins", "--json")
    assert "PluginWarning" in done.err
    found = {status["name"]: status for status in json.loads(done.out)}
    builtin = found["builtin"]
    assert (builtin["distribution"], builtin["state"]) == ("lensmount", "active")
    assert {"lensmount_readers", "lensmount_sources", "lensmount_commands"} <= set(builtin["hooks"])
    assert builtin["module"] == "lensmount.host.builtin"
    assert (found["plugin-0"]["state"], found["plugin-0"]["version"]) == ("active", "added by add_plugin")
    assert (found["plugin-1"]["state"], found["plugin-1"]["stage"]) == ("broken", "hooks")
    assert "it broke" in found["plugin-1"]["error"]
    assert found["plugin-2"]["state"] == "blocked"
    table = lensmount("plugins").out
    for column in ("plugin", "distribution", "version", "state", "hooks", "from"):
        assert column in table.splitlines()[1]
    told = table.partition("broken plugin plugin-1 (plugin-1 added by add_plugin), stage hooks: ")[2]
    assert "it broke\n  fix: mend it, or LENSMOUNT_BLOCK_PLUGINS=plugin-1\n" in told


def test_installed_plugins_are_shown_with_where_they_are_from(lensmount):
    done = subprocess.run(
        [sys.executable, "-m", "lensmount", "plugins", "--json"], capture_output=True, text=True, check=True
    )
    yolo = next(status for status in json.loads(done.stdout) if status["name"] == "yolo")
    assert yolo["distribution"] == "lensmount-yolo"
    assert yolo["version"][0].isdigit()
    assert yolo["module"] == "lensmount_yolo.plugin"
    assert Path(yolo["location"]).is_dir()
    assert yolo["state"] == "active"
    assert {"lensmount_architectures", "lensmount_model_cards"} <= set(yolo["hooks"])


def test_strict_makes_a_broken_plugin_an_error(lensmount, known, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_STRICT", "1")
    known(Broken())
    done = lensmount("models")
    assert done.status == 1
    assert "PluginError" in done.err
    assert "it broke" in done.err
    assert "LENSMOUNT_BLOCK_PLUGINS=plugin-0" in done.err
