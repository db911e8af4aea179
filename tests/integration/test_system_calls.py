"""Every command, offline, as the system sees it: no socket, no name looked up, only the store and named files written.

Sockets of Python's own are watched in `test_no_network`; native code, child processes and threads are seen here
alone (strace). The home folder of the user stays empty: libraries keep identifiers of devices there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

RUN = """
import sys, time
from lensmount.cli import main
sys.argv = ["lensmount", *sys.argv[1:]]
try:
    main()
finally:
    time.sleep(1)  # for threads that send later
"""
CALLS = "%network,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,truncate"
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
#: What the kernel offers to be written to; nothing stays there.
_DEVICES = ("/dev/null", "/dev/tty", "/dev/shm/", "/proc/self/", "/proc/thread-self/")


class Place:
    """Folders of one run: what may be written to, and what may not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("user", "store", "out", "scratch", "inputs"):
            (root / name).mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path[1:] if path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(root / "user"),
            "LENSMOUNT_HOME": str(root / "store"),
            "TMPDIR": str(root / "scratch"),
            "LENSMOUNT_OFFLINE": "1",
            "NO_COLOR": "1",
        }

    def trace(self, code: str, *arguments: object, fails: bool = False) -> None:
        """Runs Python code under strace and judges what it asked of the system."""
        seen = self.root / "calls"
        done = subprocess.run(
            ["strace", "-f", "-qq", "-s", "400", "-e", f"trace={CALLS}", "-o", str(seen),
             sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True, text=True, timeout=600, env=self.environment, cwd=self.root / "out",
        )  # fmt: skip
        if re.search("ptrace.*(not permitted|denied)", done.stderr.lower()):
            pytest.skip("strace may not trace here")
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        lines = seen.read_text(errors="replace").splitlines()
        assert any("lensmount" in line for line in lines), "nothing was seen"
        sent, written = [list(filter(judge, lines)) for judge in (self._sends, self._writes)]
        assert not sent, "it sent: " + "\n".join(sent[:20])
        assert not written, "it wrote: " + "\n".join(written[:20])
        left = [
            *(self.root / "user").rglob("*"),
            *(path for path in (self.root / "scratch").rglob("*") if path.is_file()),
        ]
        assert not left, f"it left: {left}"

    def _sends(self, line: str) -> bool:
        if re.search(r"/etc/(resolv\.conf|hosts|host\.conf|gai\.conf)\"", line):
            return True
        if "nscd/socket" in line and "= -1 ENOENT" in line:  # whose home a user's is, where no such service runs
            return False
        # A pair of connected sockets leads nowhere but to the process itself and its children.
        found = re.search(r"\b(socket|connect|bind|sendto|sendmsg|sendmmsg)\((\S+)", line)
        return found is not None and not (found[1] == "socket" and found[2].startswith("AF_UNIX"))

    def _writes(self, line: str) -> bool:
        found = re.search(r"\b(openat|open|creat|mkdir|mkdirat|rename\w*|link|linkat|symlink\w*|truncate)\(", line)
        if found is None or re.search(r"= -1 E", line):
            return False
        if found[1] in ("openat", "open") and not re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND", line):
            return False
        path = Path(os.path.normpath(self.root / "out" / _PATH.findall(line)[-1]))
        inside = any(path.is_relative_to(self.root / name) for name in ("store", "out", "scratch"))
        return not inside and not str(path).startswith(_DEVICES)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def module(path: Path):
    spec = importlib.util.spec_from_file_location(f"made_by_{path.parent.name}_{path.stem}", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


ROOT = Path(__file__).resolve().parents[2]


# --- what the commands are given --------------------------------------------------------------------------------------


def needs(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def scene(folder: Path) -> Path:
    spec = importlib.util.find_spec("lensmount_shapes")
    assert spec is not None
    shutil.copy(Path(str(spec.submodule_search_locations[0]), "data", "scene.jpg"), folder / "scene.jpg")
    return folder / "scene.jpg"


def checkpoint(folder: Path) -> Path:
    spec = importlib.util.find_spec("lensmount_shapes")
    assert spec is not None
    return Path(str(spec.submodule_search_locations[0]), "data", "shapes-nano.safetensors")


def truth(folder: Path) -> list[object]:
    image = {"id": 1, "file_name": scene(folder).name, "height": 480, "width": 640}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "circle"}]}
    (folder / "truth.json").write_text(json.dumps(content))
    return ["--images", folder, "--annotations", folder / "truth.json"]


def clip(folder: Path) -> Path:
    needs("torch", "tokenizers", "ftfy")
    import torch

    goldens = ROOT / "tests/goldens/embeddings"
    recipe = module(goldens / "recipe.py")
    shapes = json.loads(str(np.load(goldens / "towers.npz")["shapes"]))["open_clip-vit"]
    shapes["token_embedding.weight"] = [49408, 64]
    torch.save({name: torch.from_numpy(value) for name, value in recipe.weights(shapes).items()}, folder / "clip.pt")
    return folder / "clip.pt"


def embed(folder: Path) -> list[list[object]]:
    pictures = [scene(folder)]
    line = ["embed", clip(folder), *pictures, "--out", "vectors.npz", "--backend", "torch"]
    return [line, ["search", "vectors.npz", "a red circle", "--save", "grid.png", "--backend", "torch"]]


def track(folder: Path) -> list[list[object]]:
    needs("torch", "safetensors")
    tiny = module(ROOT / "tests/support/sam2_tiny.py").write_folder(folder / "sam2")
    writer = cv2.VideoWriter(str(folder / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (128, 128))
    for number in range(3):
        writer.write(np.full((128, 128, 3), 60 * number, np.uint8))
    writer.release()
    return [["track", tiny, folder / "in.avi", "--box", "70,50,110,110", "--save", "t.mp4", "--json", "t.json"]]


def few_shot(folder: Path) -> list[list[object]]:
    needs("torch", "safetensors", "tokenizers")
    tiny = module(ROOT / "tests/owlv2/conftest.py").write_folder(folder / "owl")
    boxes = [{"image": scene(folder).name, "boxes": [{"x": 90, "y": 90, "w": 60, "h": 60, "cls": "a"}]}]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    line = ["few-shot", tiny, scene(folder), "-r", folder / "boxes.json", "--backend", "torch", "--confidence", 0.0]
    return [[*line, "--on-unmatched", "nearest", "--json", "found.json", "--save-detector", "kept"]]


def predict(folder: Path, backend: str) -> list[list[object]]:
    needs({"onnx": "onnxruntime"}.get(backend, backend))
    output = ["--save", "drawn", "--json", "all.json", "--coco", "coco.json"]
    return [["predict", "shapes-nano", scene(folder), "--backend", backend, *output]]


def store(folder: Path) -> list[list[object]]:
    add = ["cache", "add", scene(folder), "https://example.org/scene.jpg"]
    parts = [["cache", name] for name in ("ls", "size", "verify")]
    lines = [["pull", "shapes-nano"], ["pull", "shapes-nano", "--to", "bundle"], ["lock", "shapes-nano"], add, *parts]
    forget = ["cache", "rm", "--address", "https://example.org/scene.jpg", "--yes"]
    return [*lines, forget, ["cache", "rm", "shapes-nano", "--yes"], ["cache", "prune", "--yes"]]


LIGHT: list[list[object]] = [
    ["--help"], ["models"], ["models", "--json"], ["describe", "shapes-nano"], ["explain", "shapes-nano"],
    ["plugins"], ["doctor"], ["errors"], ["errors", "ImageError"],
]  # fmt: skip
MEASURE = ["--seconds", 1, "--rounds", 2]

COMMANDS: dict[str, Callable[[Path], list[list[object]]]] = {
    "lists": lambda folder: LIGHT,
    "predict onnx": lambda folder: predict(folder, "onnx"),
    "predict torch": lambda folder: predict(folder, "torch"),
    "predict openvino": lambda folder: predict(folder, "openvino"),
    "store": store,
    "files": lambda folder: [
        ["inspect", checkpoint(folder)],
        ["convert", checkpoint(folder), "--to", "safetensors", "--output", "made.safetensors"],
        ["new-plugin", "lensmount-mine", "--kind", "model"],
    ],
    "embed and search": embed,
    "track": track,
    "few-shot": few_shot,
    "export": lambda folder: [["export", "shapes-nano", "--to", "onnx", "--output", "exported.onnx"]],
    "bench": lambda folder: [["bench", "shapes-nano", *MEASURE, "--cold", 1, "--json", "times.json"]],
    "tune": lambda folder: [["tune", "shapes-nano", *MEASURE, "--json", "tuned.json"], ["tune", "--list"]],
    "eval": lambda folder: [["eval", "shapes-nano", *truth(folder), "--task", "object-detection", "--json", "ap.json"]],
}
FAST = {"predict onnx"}
CODE = {
    "openvino": """
from lensmount import registry
with registry.load("shapes-nano", backend="openvino") as model:
    model("{scene}")
    list(model.stream(["{scene}"]))
""",
    "tune": """
from lensmount_bench import tune
assert tune("shapes-nano", seconds=1, rounds=2).path
from lensmount import registry
with registry.load("shapes-nano", backend="fastest") as model:
    model("{scene}")
""",
    "all backends": """
from lensmount import registry
from lensmount.errors import LensmountError
for backend, _ in registry.backends():
    try:
        with registry.load("shapes-nano", backend=backend.name) as model:
            model("{scene}")
    except LensmountError:
        pass
""",
}


def tier(name: str):
    return name if name in FAST else pytest.param(name, marks=pytest.mark.nightly)


@pytest.mark.parametrize("name", [tier(name) for name in COMMANDS])
def test_no_command_sends_or_writes_elsewhere(name, place):
    for line in COMMANDS[name](place.root / "inputs"):
        place.trace(RUN, *line, fails=line[0] == "doctor" and not _healthy())


@pytest.mark.nightly
@pytest.mark.parametrize("name", CODE)
def test_no_call_from_python_sends_or_writes_elsewhere(name, place):
    needs(*({"openvino"} if name == "openvino" else {"onnxruntime"}))
    place.trace(CODE[name].replace("{scene}", str(scene(place.root / "inputs"))) + "\nimport time; time.sleep(1)")


def _healthy() -> bool:
    return (
        subprocess.run([sys.executable, "-m", "lensmount", "doctor"], capture_output=True, check=False).returncode == 0
    )


def test_every_command_is_watched(tmp_path, monkeypatch):
    """A new command is added to `COMMANDS`, or this fails."""
    from lensmount import registry
    from lensmount.host.builtin import lensmount_commands

    monkeypatch.setattr(sys.modules[__name__], "needs", lambda *packages: None)
    installed = {command.name for command in lensmount_commands()}
    installed |= set(registry.default().site.index_of("lensmount_commands").commands)
    watched = {"track", "few-shot", "embed", "search"}  # made of networks, which is slow
    watched.add("serve")  # it listens until it is stopped; tests/serve says to whom it answers and what it asks for
    light = [name for name in COMMANDS if name not in ("track", "few-shot", "embed and search")]
    watched |= {str(line[0]) for name in light for line in COMMANDS[name](tmp_path)}
    assert installed == watched - {"--help"}


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "import socket\ntry: socket.getaddrinfo('example.invalid', 80)\nexcept OSError: pass",
        "import pathlib; (pathlib.Path.home() / 'deviceid').write_text('1')",
        "import pathlib; pathlib.Path('../elsewhere').write_text('1')",
        "import os; os.mkdir(os.path.expanduser('~/.cache'))",
        "import threading, socket\nt = threading.Thread(target=socket.socket); t.start(); t.join()",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'open(\"../child\", \"w\")'])",
    ],
)
def test_what_is_forbidden_is_seen(code, place):
    with pytest.raises(AssertionError, match=r"^it (sent|wrote): "):
        place.trace("import lensmount\n" + code)
