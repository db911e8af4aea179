"""Recognises SAM 2 files by their content: names and shapes of tensors, a graph's inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.specs import Artifact, ModelCard, ModelPackage
from lensmount_reading import first_stranger
from lensmount_sam2 import meta_yaml
from lensmount_sam2.checkpoint import CONFIG, check_folder, official_names, read_official
from lensmount_sam2.geometry import IMAGE_SIZE, read_geometry, variant
from lensmount_sam2.hf_keys import is_hf
from lensmount_sam2.strangers import STRANGERS
from lensmount_vision.models.processors import PROCESSOR_FILES

if TYPE_CHECKING:
    from lensmount.contracts import NotRunnable
    from lensmount_reading import FileFacts

_WANTED = ("image_encoder.trunk.pos_embed_window", "sam_mask_decoder.obj_score_token.weight", "no_mem_embed")


def recognise(facts: FileFacts) -> ModelCard | NotRunnable | None:
    """A card for a bare weights file, or the folder of one; why a file near it is not run; None for anything else.

    Raises:
        UnsupportedModelError: It is a SAM 2, but of another size than the released ones, without a configuration.
    """
    tensors = official_names(facts.tensors)
    if facts.kind not in ("torch", "safetensors") or any(key not in tensors for key in _WANTED):
        return first_stranger(facts, STRANGERS)
    config = facts.path.parent / CONFIG
    shapes = {key: fact.shape for key, fact in tensors.items()}
    artifacts = [
        Artifact(name="weights.bin", uri=facts.path.absolute().as_uri(), role="weights", confidence="official")
    ]
    notes: tuple[str, ...] = ()
    if is_hf(facts.tensors) and config.is_file():
        from lensmount_sam2.checkpoint import read_config_file

        configured = read_config_file(config)
        geometry = read_geometry(shapes, configured[0] if configured else None)
        side = configured[1] if configured else IMAGE_SIZE
        beside = {CONFIG: config, **{name: config.with_name(name) for name in PROCESSOR_FILES}}
        beside = {name: path for name, path in beside.items() if path.is_file()}
        notes = check_folder(beside, geometry, side)
        artifacts += [
            Artifact(name=name, uri=path.absolute().as_uri(), role="data", confidence="official")
            for name, path in beside.items()
        ]
    elif is_hf(facts.tensors):
        geometry = read_geometry(shapes)
    else:
        path, notes = meta_yaml.find(facts.path.parent, shapes)
        geometry, more = read_official(shapes, path)
        notes += more
        if path is not None:
            artifacts.append(
                Artifact(name=meta_yaml.YAML, uri=path.absolute().as_uri(), role="data", confidence="official")
            )
    name = variant(shapes)
    package = ModelPackage(
        name=f"torch-{facts.precision}", format="torch", precision=facts.precision, artifacts=tuple(artifacts)
    )
    version = f"SAM {geometry.version}" if geometry.tracking else "SAM 2 for images"
    return ModelCard(
        id="file",
        architecture="sam2",
        task="interactive-segmentation",
        packages=(package,),
        description=f"{version}, {name or 'of a size of its own'}",
        settings=(("version", geometry.version), ("variant", name or "custom")),
        notes=notes if geometry.tracking else ("the file has no parts for video", *notes),
    )
