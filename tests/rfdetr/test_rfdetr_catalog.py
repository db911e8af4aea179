"""The catalogue: what is published, under which names and licences."""

from __future__ import annotations

import pytest

from lensmount import registry
from lensmount_rfdetr.layout import VARIANTS


@pytest.fixture
def cards():
    return {card.id: card for card in registry.models(architecture="rfdetr")}


def test_every_variant_has_a_card(cards):
    promised = {card.setting("variant") for card in cards.values()}
    assert promised == {variant.name for variant in VARIANTS}
    for variant in VARIANTS:
        card = cards[variant.name]
        assert card.setting("resolution") == variant.resolution
        assert card.task == ("instance-segmentation" if variant.masks else "object-detection")


def test_names_of_others(cards):
    for name in ("rf-detr-nano", "rfdetr-xl", "rfdetr-seg-2xl", "rf-detr-seg-medium", "rf-detr-base"):
        assert registry.describe(name).architecture == "rfdetr"
    assert registry.describe("rfdetr-seg-nano").task == "instance-segmentation"


def test_licences(cards):
    platform = {id for id, card in cards.items() if card.licence != "Apache-2.0"}
    assert platform == {"rfdetr-xlarge", "rfdetr-2xlarge"}
    assert all(cards[id].licence_notice for id in platform)


def test_artifacts(cards):
    for card in cards.values():
        for package in card.packages:
            (artifact,) = package.artifacts
            assert artifact.role == "weights"
            assert artifact.uri.startswith(("https://storage.googleapis.com/rfdetr/", "hf://Roboflow/rf-detr-"))
            if artifact.uri.startswith("https"):
                assert len(artifact.md5) == 32
    assert dict(cards["rfdetr-large"].published) == {"coco_ap": 56.5, "t4_tensorrt_fp16_ms": 6.8}
