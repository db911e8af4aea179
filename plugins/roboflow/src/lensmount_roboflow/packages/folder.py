"""A package folder of inference-models as a `ModelCard` with one package. Only listed files are ever read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lensmount.errors import ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount.specs import Artifact, BatchPolicy, ModelCard, ModelPackage, Preprocess, Requirements

if TYPE_CHECKING:
    from lensmount.contracts import ReadRequest
    from lensmount_roboflow.packages.config import Identity
    from lensmount_roboflow.packages.schema import InferenceConfig, ModelConfig

CONFIG_NAME = "model_config.json"
INFERENCE_CONFIG = "inference_config.json"
CLASS_NAMES = "class_names.txt"
TRT_CONFIG = "trt_config.json"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a kind of package."""

    name: str
    role: Literal["graph", "weights", "data"] = "data"
    required: bool = True


_DETECTOR = (File(INFERENCE_CONFIG), File(CLASS_NAMES))
#: (architecture, format) -> files.
FILES: dict[tuple[str, str], tuple[File, ...]] = {
    ("yolo", "onnx"): (File("weights.onnx", "graph"), *_DETECTOR),
    ("yolo", "engine"): (File("engine.plan", "graph"), File(TRT_CONFIG), *_DETECTOR),
    ("yolo", "torchscript"): (File("weights.torchscript", "graph"), *_DETECTOR),
    ("rfdetr", "onnx"): (File("weights.onnx", "graph"), *_DETECTOR),
    ("rfdetr", "engine"): (File("engine.plan", "graph"), File(TRT_CONFIG), *_DETECTOR),
    ("rfdetr", "torch"): (File("weights.pth", "weights"), File("model_type.json"), *_DETECTOR),
    ("sam2", "torch"): (File("model.pt", "weights"), File("sam_configuration.json")),
    ("clip", "torch"): (File("model.pt", "weights"),),
    ("clip", "onnx"): (File("visual.onnx", "graph"), File("textual.onnx", "graph")),
    ("perception_encoder", "torch"): (File("model.pt", "weights"), File("config.json")),
    ("owlv2", "torch"): (
        File("config.json"),
        File("preprocessor_config.json"),
        File("model.safetensors", "weights"),
        *(
            File(name, required=False)
            for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json")
        ),
        File("merges.txt", required=False),
    ),
}
#: File that names the network's variant, and the key in it.
VARIANTS = {
    "rfdetr": ("model_type.json", "model_type"),
    "sam2": ("sam_configuration.json", "version"),
    "perception_encoder": ("config.json", "vision_encoder_config"),
}
#: onnx keeps tensors beyond 2 GB, or by choice, in a file next to the graph under one of these endings.
EXTERNAL_DATA = (".data", "_data")


def read(request: ReadRequest) -> ModelCard:
    """The reader of folders with a `model_config.json`; see `read_inference_models_folder`."""
    return read_inference_models_folder(request.given)


def read_inference_models_folder(path: Path | str) -> ModelCard:
    """Reads a package folder. No code of it is run and no weights are read.

    Args:
        path: The folder that holds `model_config.json`.

    Returns:
        A card with one package, whose artifacts are `file://` addresses inside the folder. The card's id is the
        package's `model_id`, else the folder's name. `recommended_parameters` become `recommended`.

    Raises:
        ModelFileError: A file is missing or malformed; the message names the file and the key.
        UnsafeFileError: The package brings its own code, or a file lies outside the folder.
        UnsupportedModelError: The architecture, the backend or their combination is not known.
    """
    from lensmount_roboflow.packages import config as mapping
    from lensmount_roboflow.packages import schema

    folder = _Folder(path)
    where = f"{folder.root}/{CONFIG_NAME}"
    model = schema.parse(schema.ModelConfig, schema.read_json(folder.find(CONFIG_NAME), where), where)
    identity = mapping.identify(model, where)
    artifacts = folder.artifacts(identity, where)
    names = {artifact.name for artifact in artifacts}
    details = _Details(settings=[*identity.settings])
    if INFERENCE_CONFIG in names:
        label = f"{folder.root}/{INFERENCE_CONFIG}"
        data = schema.read_json(folder.find(INFERENCE_CONFIG), label)
        details.add_inference_config(schema.parse(schema.InferenceConfig, data, label), model, label)
    else:
        details.batch = mapping.batch_of(None, model)
    if TRT_CONFIG in names:
        label = f"{folder.root}/{TRT_CONFIG}"
        engine = schema.parse(schema.TrtConfig, schema.read_json(folder.find(TRT_CONFIG), label), label)
        details.batch, extra, details.requirements = mapping.engine_of(engine, label)
        details.settings += extra
    if identity.architecture in VARIANTS and VARIANTS[identity.architecture][0] in names:
        details.settings.append(("variant", _variant(folder, *VARIANTS[identity.architecture])))
    recommended = mapping.recommended_of(model.recommended_parameters)
    precision = mapping.precision_of(model.quantization)
    package = ModelPackage(
        name=identity.format if precision == "unknown" else f"{identity.format}-{precision}",
        format=identity.format,
        artifacts=artifacts,
        precision=precision,
        batch=details.batch,
        preprocess=details.preprocess,
        requirements=details.requirements,
        settings=tuple(details.settings),
        recommended=recommended,
    )
    return ModelCard(
        id=_model_id(model.model_id, folder.root),
        architecture=identity.architecture,
        task=identity.task,
        packages=(package,),
        classes=_classes(folder) if CLASS_NAMES in names else (),
        settings=identity.settings,
        recommended=recommended,
        description=f"inference-models package in {folder.root.name}",
    )


@dataclass(slots=True)
class _Details:
    """What the files of a folder add to the package."""

    settings: list[tuple[str, Any]]
    batch: BatchPolicy | None = None
    preprocess: Preprocess | None = None
    requirements: Requirements = field(default_factory=Requirements)

    def add_inference_config(self, config: InferenceConfig, model: ModelConfig, where: str) -> None:
        from lensmount_roboflow.packages import config as mapping

        self.preprocess = mapping.preprocess_of(config, where)
        self.settings += mapping.settings_of(config)
        self.batch = mapping.batch_of(config.forward_pass, model)


class _Folder:
    """The folder's files, each confined to it."""

    def __init__(self, path: Path | str) -> None:
        try:
            self.root = Path(path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelFileError(
                f"package folder {str(path)!r} does not exist", found=str(error), fix="check the path"
            ) from error
        self.allowed = [self.root]
        # The cache of inference-models keeps files once, in `shared-blobs` next to `models-cache/<model>/<package>`.
        if len(self.root.parents) > 2 and self.root.parents[1].name == "models-cache":
            self.allowed.append(self.root.parents[2] / "shared-blobs")

    def find(self, name: str) -> Path:
        """The file's real path, checked to lie in the folder."""
        path = self.root / name
        try:
            real = path.resolve(strict=True)
        except FileNotFoundError as error:
            listing = ", ".join(sorted(p.name for p in self.root.iterdir())[:20]) or "an empty folder"
            raise ModelFileError(
                f"package folder {self.root} lacks {name}",
                found=listing,
                expected=name,
                fix="export or download the package again",
            ) from error
        except (OSError, RuntimeError) as error:  # a loop of links
            raise ModelFileError(f"{path} cannot be read", found=str(error)) from error
        if not any(real.is_relative_to(folder) for folder in self.allowed):
            raise UnsafeFileError(
                f"{path} is a link that leaves the package folder",
                found=str(real),
                expected=f"a file inside {self.root}",
                fix="copy the folder with its links resolved (cp -rL), if you trust where they lead",
            )
        if not real.is_file():
            raise ModelFileError(f"{path} is not a file", found="a folder or a device", expected="a regular file")
        return real

    def has(self, name: str) -> bool:
        path = self.root / name
        return path.is_symlink() or path.exists()

    def artifacts(self, identity: Identity, where: str) -> tuple[Artifact, ...]:
        """The package's files, in the order of the table, with external data of onnx graphs behind them."""
        files = FILES.get((identity.architecture, identity.format))
        if files is None:
            known = ", ".join(form for name, form in FILES if name == identity.architecture)
            raise UnsupportedModelError(
                f"{where} is of a form that lensmount does not know",
                found=f"{identity.architecture} as {identity.format}",
                expected=f"{identity.architecture} as {known}",
            )
        listed = [file for file in files if file.required or self.has(file.name)]
        external = [
            File(file.name + ending)
            for file in listed
            for ending in EXTERNAL_DATA
            if file.name.endswith(".onnx") and self.has(file.name + ending)
        ]
        found = []
        for file in (*listed, *external):
            real = self.find(file.name)
            found.append(
                Artifact(
                    name=file.name,
                    # The name in the folder, not the blob behind it: backends go by file endings.
                    uri=(self.root / file.name).as_uri(),
                    role=file.role,
                    size=real.stat().st_size,
                    confidence="official",
                )
            )
        return tuple(found)


def _classes(folder: _Folder) -> tuple[str, ...]:
    from lensmount_roboflow.packages import config as mapping
    from lensmount_roboflow.packages import schema

    where = f"{folder.root}/{CLASS_NAMES}"
    try:
        text = schema.read_bytes(folder.find(CLASS_NAMES), where).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{where} is not text", found=str(error), expected="UTF-8") from error
    return mapping.classes_of(text, where)


def _variant(folder: _Folder, name: str, key: str) -> str:
    from lensmount_roboflow.packages import schema

    where = f"{folder.root}/{name}"
    data = schema.read_json(folder.find(name), where)
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, str) or not value:
        raise ModelFileError(f"{where} is malformed at {key}", found=repr(value), expected="a name")
    return value


def _model_id(model_id: str | None, root: Path) -> str:
    from lensmount.specs import MODEL_ID

    if model_id and MODEL_ID.fullmatch(model_id):
        return model_id
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model_id or root.name).strip("-._") or "model"
