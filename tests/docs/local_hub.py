"""A hub on this machine with small seeded weights under the catalogues' own ids, for the pages that need a network."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fault_server import FaultServer

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
WARM = HERE / "warm.py"
FAMILIES = ("clip", "owlv2", "perception_encoder", "rfdetr", "sam2", "yolo")
NOWHERE = "http://127.0.0.1:9"  # the discard port: what asks anything but the local hub fails


def helper(path: str) -> ModuleType:
    """A module of the tests, by its file."""
    spec = importlib.util.spec_from_file_location("docs_" + path.replace("/", "_").removesuffix(".py"), TESTS / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# --- weights ----------------------------------------------------------------------------------------------------------


def yolo(folder: Path) -> dict[str, list[Path]]:
    """Graphs that find a person and a bus in every picture."""
    import numpy as np

    from lensmount import registry
    from yolo_graphs import make_graph, raw_output

    names = registry.describe("yolov8n-640").classes
    found = [(24, 30, 20, 40, 0, 0.9), (44, 40, 30, 24, 5, 0.7)]
    facts = {"names": str(dict(enumerate(names))), "stride": "32", "imgsz": "[64, 64]"}
    boxes = make_graph(
        folder / "detect.onnx", {"output0": raw_output(found, len(names))}, metadata={**facts, "task": "detect"}
    )
    coefficients = [(*row, *([1.0] + [0.0] * 31)) for row in found]
    masks = make_graph(
        folder / "segment.onnx",
        {
            "output0": raw_output(coefficients, len(names), extra=32),
            "output1": np.ones((32, 16, 16), np.float32),
        },
        metadata={**facts, "task": "segment"},
    )
    return {"object-detection": [boxes], "instance-segmentation": [masks]}


def rfdetr(folder: Path) -> dict[str, list[Path]]:
    """COCO's 91 columns on a small network."""
    kit = helper("rfdetr/conftest.py")
    boxes = kit.write_checkpoint(folder / "detect.pth", kit.tensors(classes=90), kit.ARGS)
    settings = {**kit.ARGS, "segmentation_head": True}
    masks = kit.write_checkpoint(folder / "segment.pth", kit.tensors(classes=90, masks=2), settings)
    return {"object-detection": [boxes], "instance-segmentation": [masks]}


def sam2(folder: Path) -> dict[str, list[Path]]:
    """Pictures of 128 pixels."""
    import sam2_tiny

    sam2_tiny.write_folder(folder)
    return {"interactive-segmentation": [folder / "config.json", folder / "model.safetensors"]}


def owlv2(folder: Path) -> dict[str, list[Path]]:
    """Pictures of 96 pixels."""
    made = helper("owlv2/conftest.py").write_folder(folder / "tiny")
    return {"open-vocabulary-detection": [made / "config.json", made / "model.safetensors"]}


def clip(folder: Path) -> dict[str, list[Path]]:
    """OpenAI's layout with the real vocabulary."""
    import torch

    recipe = helper("goldens/embeddings/recipe.py")
    torch.save(helper("clip/test_clip_models.py").tiny_state(recipe), folder / "weights.pt")
    return {"embedding": [folder / "weights.pt"]}


def perception_encoder(folder: Path) -> dict[str, list[Path]]:
    """open_clip's layout with the real vocabulary and context."""
    import numpy as np
    import torch

    recipe = helper("goldens/embeddings/recipe.py")
    with np.load(TESTS / "goldens/embeddings/towers.npz", allow_pickle=False) as arrays:
        shapes = json.loads(str(arrays["shapes"]))["pe-timm"]
    width = shapes["text.token_embedding.weight"][1]
    shapes |= {"text.token_embedding.weight": [49408, width], "text.positional_embedding": [32, width]}
    torch.save({k: torch.from_numpy(v) for k, v in recipe.weights(shapes).items()}, folder / "weights.pt")
    return {"embedding": [folder / "weights.pt"]}


def tuned(path: Path) -> Path:
    """A fine-tuned YOLO of three classes, pickled with its trainer's classes as trainers do."""
    import torch

    networks = helper("support/tiny_networks.py")
    node, network = networks.lively(networks.pyramid())
    with networks.stand_ins() as make:
        tree = networks.official_tree(make, node, network, names={0: "nut", 1: "bolt", 2: "gear"})
        torch.save({"model": tree, "train_args": {"imgsz": 64}}, path)
    return path


# --- the hub ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalHub:
    """A running hub.

    Attributes:
        server: It; `requests` says what was asked.
        environ: What a page's process needs to talk to it, and to nothing else.
        files: Files that a page on it finds in its folder, by name.
        warm: Address of the warm process that runs pages (see warm.py); None where there is none.
        process: It.
    """

    server: FaultServer
    environ: dict[str, str]
    files: dict[str, Path]
    warm: str | None = None
    process: subprocess.Popen[str] | None = None

    def close(self) -> None:
        """Ends the server, the warm process and what it still runs."""
        self.server.close()
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start(folder: Path) -> LocalHub:
    """Makes the weights, serves them, and writes the distribution that puts them under the catalogues' ids."""
    server = FaultServer()
    packages: dict[str, dict[str, list[dict[str, Any]]]] = {}
    makers: tuple[Callable[[Path], dict[str, list[Path]]], ...] = (clip, owlv2, perception_encoder, rfdetr, sam2, yolo)
    for make in makers:
        place = folder / "weights" / make.__name__
        place.mkdir(parents=True)
        repo, served, by_task = f"lensmount-docs/{make.__name__}", {}, {}
        for task, paths in make(place).items():
            by_task[task] = [artifact(repo, path) for path in paths]
            served.update({path.name: path.read_bytes() for path in paths})
        server.put_repo(repo, served)
        packages[make.__name__] = by_task
    graph = folder / "weights/yolo/detect.onnx"
    server.put_repo("owner/repo", {"model.onnx": graph.read_bytes()})
    site = folder / "site"
    info = site / "lensmount_docs_hub-0.dist-info"
    info.mkdir(parents=True)
    shutil.copyfile(HERE / "hub_plugin.py", site / "lensmount_docs_hub.py")
    (site / "packages.json").write_text(json.dumps(packages), encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lensmount-docs-hub\nVersion: 0\n")
    points = "".join(f"{name} = lensmount_docs_hub:{name}\n" for name in FAMILIES)
    (info / "entry_points.txt").write_text(f"[lensmount]\n{points}")
    environ = {
        "PYTHONPATH": str(site),
        "LENSMOUNT_BLOCK_PLUGINS": ",".join(f"lensmount-{name.replace('_', '-')}" for name in FAMILIES),
        "HF_ENDPOINT": server.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # small networks gain nothing from more
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
    }
    files = {"best.pt": tuned(folder / "best.pt"), "yolo11n.onnx": graph}
    if not hasattr(os, "fork") or not hasattr(socket, "recv_fds"):
        return LocalHub(server, environ, files)
    address, process = start_warm(environ)
    commands = folder / "bin"
    commands.mkdir()
    (commands / "lensmount").write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{WARM}" "{address}" "$@"\n')
    (commands / "lensmount").chmod(0o755)
    return LocalHub(server, {**environ, "FIRST_IN_PATH": str(commands)}, files, address, process)


def start_warm(environ: dict[str, str]) -> tuple[str, subprocess.Popen[str]]:
    """Starts the warm process and waits until it has imported everything."""
    address = str(Path(tempfile.mkdtemp(prefix="lm-")) / "warm")  # the address of a socket has at most 100 characters
    process = subprocess.Popen(
        [sys.executable, WARM, address],
        env={**os.environ, "OMP_NUM_THREADS": environ["OMP_NUM_THREADS"], "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return address, process


def artifact(repo: str, path: Path) -> dict[str, Any]:
    """One file as a card names it."""
    content = path.read_bytes()
    role = "graph" if path.suffix == ".onnx" else "data" if path.suffix == ".json" else "weights"
    return {
        "name": path.name,
        "uri": f"hf://{repo}/{path.name}",
        "role": role,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "confidence": "official",
    }
