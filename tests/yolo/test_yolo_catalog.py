"""The catalogue of the YOLO plugin: what it must hold, and that it is quick to read."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lensmount_yolo
import lensmount_yolo.plugin
from lensmount.host.discovery import collect, given
from lensmount.specs import read_catalog

#: Model ids that inference-models documents for architectures of this plugin.
PEER_IDS = [
    *(f"yolov8{s}-{size}" for s in "nsmlx" for size in (640, 1280)),
    *(f"yolov8{s}-seg-{size}" for s in "nsmlx" for size in (640, 1280)),
    *(f"yolov8{s}-pose-640" for s in "nsmlx"),
    *(f"yolov10{s}-640" for s in "nsmblx"),
    *(f"{name}{s}-{size}" for name in ("yolov11", "yolo11") for s in "nsmlx" for size in (640, 1280)),
    *(f"{name}{s}-seg-640" for name in ("yolov11", "yolo11") for s in "nsmlx"),
    *(f"yolo26{s}-640" for s in "nsmlx"),
]
#: Names of ultralytics' weight files.
FIELD_IDS = [
    *(f"yolov5{s}{six}u" for s in "nsmlx" for six in ("", "6")),
    *(f"yolov8{s}{kind}" for s in "nsmlx" for kind in ("", "-seg", "-pose", "-obb", "-cls")),
    *(f"yolov9{s}" for s in "tsmce"),
    "yolov9c-seg",
    "yolov9e-seg",
    *(f"yolov10{s}" for s in "nsmblx"),
    *(f"yolo11{s}{kind}" for s in "nsmlx" for kind in ("", "-seg", "-pose", "-obb", "-cls")),
    *(f"yolo12{s}" for s in "nsmlx"),
    *(f"yolo26{s}{kind}" for s in "nsmlx" for kind in ("", "-cls")),
]


@pytest.fixture(scope="module")
def cards():
    return read_catalog("lensmount_yolo")


@pytest.fixture(scope="module")
def by_name(cards):
    return {name: card for card in cards for name in (card.id, *card.aliases)}


def test_no_name_is_given_twice(cards, by_name):
    assert len(by_name) == sum(1 + len(card.aliases) for card in cards)


@pytest.mark.parametrize("names", [PEER_IDS, FIELD_IDS], ids=["inference-models", "ultralytics"])
def test_known_ids_are_there(by_name, names):
    assert [name for name in names if name not in by_name] == []


def test_every_card_is_complete(cards):
    for card in cards:
        assert card.architecture == "yolo"
        assert card.licence == "AGPL-3.0"
        assert "AGPL-3.0" in (card.licence_notice or "")
        assert card.description
        assert card.packages
        assert {"family", "scale"} <= dict(card.settings).keys()
        for package in card.packages:
            for artifact in package.artifacts:
                assert "{" not in artifact.uri + artifact.name
                assert artifact.role == ("weights" if package.format == "torch" else "graph")
                assert artifact.uri.endswith("/" + artifact.name)
                if artifact.sha256 is None:
                    assert any("hash" in n or "pinned" in n for n in card.notes), card.id


def test_ids_and_sizes_agree(cards):
    for card in cards:
        size = re.search(r"-(\d+)$", card.id)
        for package in card.packages:
            found = package.preprocess.size[0] if package.preprocess else 640
            expected = int(size[1]) if size else {"oriented-object-detection": 1024, "classification": 224}[card.task]
            assert found == expected, card.id


def test_ids_and_tasks_agree(cards):
    suffixes = {
        "seg": "instance-segmentation",
        "pose": "keypoint-detection",
        "obb": "oriented-object-detection",
        "cls": "classification",
    }
    for card in cards:
        part = re.search(r"-(seg|pose|obb|cls)", card.id)
        assert card.task == (suffixes[part[1]] if part else "object-detection")


def test_classes(by_name):
    coco = by_name["yolov8n"].classes
    assert len(coco) == len(set(coco)) == 80
    assert (coco[0], coco[5], coco[15], coco[79]) == ("person", "bus", "cat", "toothbrush")
    assert by_name["yolov8n-pose"].classes == ("person",)
    assert by_name["yolov8n-cls"].classes == ()


def test_nothing_is_offered_to_be_refused(cards):
    """The torch form of some heads of 26 is not known, and nobody publishes their graphs at an address that is."""
    (architecture,) = lensmount_yolo.plugin.lensmount_architectures()
    for card in cards:
        assert card.task in architecture.tasks
        assert card.setting("family") != "yolo26" or card.task in ("object-detection", "classification"), card.id
        assert not any("refused" in note or "not supported" in note for note in card.notes), card.id


def test_the_plugin_registers():
    index = collect([given(lensmount_yolo.plugin, "yolo")], {})
    assert [status.error for status in index.statuses] == [None]
    assert index.cards["yolov8n"][0].card.id == "yolov8n-640"
    assert "yolo" in index.architectures


def test_the_hook_module_is_small_and_light():
    source = Path(lensmount_yolo.plugin.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 80
    code = (
        "import sys, lensmount_yolo.plugin as p; list(p.lensmount_architectures()); p.lensmount_model_cards();"
        "print([m for m in ('pydantic', 'numpy', 'torch', 'cv2', 'onnxruntime', 'packaging') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_is_quick():
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        read_catalog("lensmount_yolo")
        best = min(best, time.perf_counter() - start)
    assert best < 0.06  # measured 0.011 s; a busy machine is several times slower
