"""Export of both towers to ONNX, compared with the networks before they are kept."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.contracts.model import NetworkContext
from lensmount.errors import InputError, MissingDependencyError, ModelFileError, OptionError, UnsupportedModelError
from lensmount.specs import Artifact, ModelPackage
from lensmount_owlv2.checkpoint import CONTEXT, VOCABULARY, network
from lensmount_owlv2.queries import resolve_preprocess
from lensmount_vision.towers.recognise import COMPANIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import ExportContext
    from lensmount.contracts.session import TorchNetwork

OPSET = 17
#: Largest difference from the network, as a share of an output's range, in float32.
TOLERANCE = 1e-4
#: Beyond this, weights do not fit into the graph's own file (protobuf's limit is 2 GB).
_LARGE = 1_900_000_000


def export(context: ExportContext) -> Path:
    """Writes a folder with `image.onnx`, `text.onnx`, the tokeniser's files and `lensmount.json`.

    The batch is dynamic in both graphs, and the length of texts too; `context.batch` above 1 fixes the pictures' batch
    unless `context.dynamic`.

    Args:
        context: What to export, and where to; `output` is the folder (an ending `.onnx` is dropped).

    Returns:
        The folder, for `registry.load`.

    Raises:
        UnsupportedModelError: Another target than `onnx`, or another precision than `fp32`.
        OptionError: An export setting, of which there are none.
        ModelFileError: A graph does not give what its network gives.
        InputError: The folder is there already and not empty, or cannot be written.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """
    if context.target != "onnx" or context.precision != "fp32":
        raise UnsupportedModelError(
            f"{context.card.id!r} is exported to onnx in fp32 alone",
            found=f"{context.target}, {context.precision}",
            fix="lensmount export MODEL --to onnx --precision fp32",
        )
    if context.settings:
        raise OptionError("this export has no settings of its own", found=", ".join(context.settings))
    folder = context.output.with_suffix("") if context.output.suffix == ".onnx" else context.output
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already", fix="name a folder that does not exist yet: --output FOLDER")
    batch = None if context.dynamic or context.batch == 1 else context.batch
    networks = network(NetworkContext(card=context.card, package=context.package, files=context.files))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
            building = Path(made) / "graphs"
            building.mkdir()
            for name, found in networks.items():
                fixed = batch if name == "image" else None
                _write(found, building / f"{name}.onnx", fixed)
                _compare(found, building / f"{name}.onnx", fixed)
            for name in COMPANIONS:
                if name in context.files:
                    shutil.copyfile(context.files[name], building / name)
            _write_card(context, building)
            if folder.exists():
                folder.rmdir()
            building.rename(folder)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}",
            found=str(error),
            fix="check that the folder exists and may be written, and that there is room",
        ) from error
    return folder


def _example(found: TorchNetwork, batch: int, length: int) -> NDArray[Any]:
    import numpy as np

    random = np.random.default_rng(0)
    shape = found.inputs[0].shape
    if len(shape) == 4:
        return random.standard_normal((batch, *shape[1:])).astype(np.float32)
    highest = int(found.metadata[VOCABULARY]) - 1
    tokens = random.integers(1, highest, (batch, length))
    tokens[np.arange(batch), random.integers(2, length, batch)] = highest
    return tokens.astype(np.int64)


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("exporting needs onnx", found=str(error), fix="pip install onnx") from error
    return onnx


def _write(found: TorchNetwork, path: Path, batch: int | None) -> None:
    import torch

    onnx = _import_onnx()
    (spec,) = found.inputs
    axes = {i: name for i, name in enumerate(spec.shape) if isinstance(name, str) and (i or batch is None)}
    outputs = [output.name for output in found.outputs]
    dynamic = {spec.name: axes} | ({name: {0: "batch"} for name in outputs} if batch is None else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own age, and of constants that are meant to be
        torch.onnx.export(
            found.module,
            (torch.from_numpy(_example(found, batch or 2, 7)),),
            str(path),
            input_names=[spec.name],
            output_names=outputs,
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    for declared, output in zip(model.graph.output, found.outputs, strict=True):
        for dimension, size in zip(declared.type.tensor_type.shape.dim[1:], output.shape[1:], strict=True):
            dimension.ClearField("dim_param")
            dimension.dim_value = size  # the exporter loses some behind a gather
    onnx.helper.set_model_props(model, dict(found.metadata))
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGE
    for stale in path.parent.glob("*"):
        if stale.suffix != ".onnx" and not stale.name.endswith(".onnx.data"):
            stale.unlink()  # the exporter's own external data
    onnx.save(model, path, save_as_external_data=large, location=path.name + ".data" if large else None)


def _compare(found: TorchNetwork, path: Path, batch: int | None) -> None:
    import numpy as np
    import torch

    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "the exported graph is checked with onnxruntime", found=str(error), fix='pip install "lensmount[onnx]"'
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    context = int(found.metadata[CONTEXT])
    for count, length in ((batch or 1, 7), (batch or 3, context)):
        example = _example(found, count, min(length, context))
        with torch.inference_mode():
            given = found.module(torch.from_numpy(example))
        expected = [given] if isinstance(given, torch.Tensor) else list(given)
        for spec, want, got in zip(
            found.outputs, expected, session.run(None, {found.inputs[0].name: example}), strict=True
        ):
            wanted = want.numpy()
            span = float(np.ptp(wanted)) or 1.0
            off = float(np.abs(got - wanted).max()) / span if got.shape == wanted.shape else float("inf")
            if not off <= TOLERANCE:
                raise ModelFileError(
                    f"{spec.name} of the exported {path.name} is not what the network gives",
                    found=f"a difference of {off:.1e} of its range",
                    expected=f"at most {TOLERANCE:.0e}",
                )


def _write_card(context: ExportContext, folder: Path) -> None:
    from lensmount.store.manifests import write_manifest

    artifacts = tuple(
        Artifact(name=path.name, uri=f"file:///{path.name}", role="graph" if path.suffix == ".onnx" else "data")
        for path in sorted(folder.iterdir())
    )
    package = ModelPackage(
        name="onnx-fp32",
        format="onnx",
        artifacts=artifacts,
        preprocess=context.package.preprocess or resolve_preprocess(context.files),
    )
    write_manifest(replace(context.card, packages=(package,), aliases=()), folder)
