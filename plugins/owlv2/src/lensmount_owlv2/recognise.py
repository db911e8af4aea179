"""Recognises OWLv2 by tensor names, and exported graphs by what is embedded in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount_owlv2.checkpoint import IMAGE_OUTPUTS
from lensmount_owlv2.layout import is_owlv2, read_json, read_layout
from lensmount_owlv2.strangers import STRANGERS
from lensmount_reading import first_stranger
from lensmount_vision.models.settings import unknown_note
from lensmount_vision.towers.recognise import companions, weights_card

if TYPE_CHECKING:
    from lensmount.contracts import NotRunnable
    from lensmount.specs import ModelCard
    from lensmount_reading import FileFacts

TASK = "open-vocabulary-detection"


def recognise(facts: FileFacts) -> ModelCard | NotRunnable | None:
    """A card for bare weights (with the files next to them), why ones near them are not run, or None for others.

    Raises:
        ModelFileError: They are an OWLv2's, but do not fit together.
    """
    from dataclasses import replace

    if facts.kind == "onnx":
        if [value.name for value in facts.outputs] == list(IMAGE_OUTPUTS):
            from lensmount.errors import ModelFileError

            raise ModelFileError(
                f"{facts.path.name} is one part of an exported OWLv2",
                expected="the folder that it was exported to, with lensmount.json and text.onnx",
                fix=f"load the folder: {facts.path.parent}",
            )
        return first_stranger(facts, STRANGERS)
    if not is_owlv2(facts.tensors):
        return first_stranger(facts, STRANGERS)
    beside = {artifact.name for artifact in companions(facts.path)}
    config = read_json(facts.path.parent / "config.json") if "config.json" in beside else {}
    layout = read_layout({name: fact.shape for name, fact in facts.tensors.items()}, config, facts.path.name)
    if config:
        notes = unknown_note(layout.check(config, "config.json"), "config.json")
    else:
        notes = ("no config.json next to the weights: attention heads are taken to be 64 wide",)
    return replace(weights_card(facts, "owlv2", notes=notes), task=TASK)
