"""Export of the networks of a two-tower model to ONNX graphs, compared with the networks before they are kept."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import InputError, MissingDependencyError, ModelFileError, UnsupportedModelError
from lensmount.specs import Artifact, ModelPackage
from lensmount_vision.towers.recognise import COMPANIONS, CONTEXT, TOKENISERS, VOCABULARY
from lensmount_vision.towers.vocabulary import MERGES_FILE, packaged_merges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import ExportContext
    from lensmount.contracts.session import TorchNetwork
    from lensmount.specs import Preprocess

OPSET = 17
#: Largest difference from the network in float32, as a share of an output's magnitude.
TOLERANCE = 1e-4
#: Beyond this, weights do not fit into the graph's own file (protobuf's limit is 2 GB).
EMBEDDED_BYTES = 1_900_000_000


def export_graphs(
    context: ExportContext,
    build: Callable[[], Mapping[str, TorchNetwork]],
    *,
    fixed: Collection[str],
    preprocess: Preprocess | None,
    magnitude: Callable[[NDArray[Any]], float],
) -> Path:
    """Writes a folder with one graph for each network, the tokeniser's files and `lensmount.json`.

    The batch is free in all graphs, and the length of texts too; `context.batch` above 1 fixes the batch of the graphs
    in `fixed` unless `context.dynamic`.

    Args:
        context: What to export, and where to; `output` is the folder (an ending `.onnx` is dropped).
        build: Makes the networks, by the names of the graphs without `.onnx`.
        fixed: Networks whose batch `context.batch` fixes.
        preprocess: How images become the input, for the card.
        magnitude: What a difference from the network is divided by: a figure of an output's size.

    Returns:
        The folder, for `registry.load`.

    Raises:
        UnsupportedModelError: Another target than `onnx`, or another precision than `fp32`.
        ModelFileError: A graph does not give what its network gives.
        InputError: The folder is there already and not empty, or cannot be written.
        MissingDependencyError: torch, onnx or onnxruntime is not installed.
    """
    if context.target != "onnx" or context.precision != "fp32":
        raise UnsupportedModelError(
            f"{context.card.id!r} is exported to onnx in fp32 alone",
            found=f"{context.target}, {context.precision}",
            fix="lensmount export MODEL --to onnx --precision fp32",
        )
    folder = context.output.with_suffix("") if context.output.suffix == ".onnx" else context.output
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already", fix="name a folder that does not exist yet: --output FOLDER")
    batch = None if context.dynamic or context.batch == 1 else context.batch
    networks = build()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
            building = Path(made) / "graphs"
            building.mkdir()
            for name, network in networks.items():
                path, size = building / f"{name}.onnx", batch if name in fixed else None
                _write(network, path, size)
                _compare(network, path, size, magnitude)
            _write_tokenizer(context, building)
            _write_card(context, building, preprocess)
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


def _example(network: TorchNetwork, batch: int, length: int) -> NDArray[Any]:
    """Input of a network: float32 `(batch, 3, H, W)`, or int64 ids `(batch, length)`, at most the context's length."""
    import numpy as np

    random = np.random.default_rng(0)
    shape = network.inputs[0].shape
    if len(shape) == 4:
        return random.standard_normal((batch, *shape[1:])).astype(np.float32)
    highest, length = int(network.metadata[VOCABULARY]) - 1, min(length, int(network.metadata[CONTEXT]))
    tokens = random.integers(1, highest, (batch, length))
    tokens[np.arange(batch), random.integers(2, length, batch)] = highest
    return tokens.astype(np.int64)


def _write(network: TorchNetwork, path: Path, batch: int | None) -> None:
    import torch

    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("exporting needs onnx", found=str(error), fix="pip install onnx") from error
    (spec,) = network.inputs
    axes = {i: name for i, name in enumerate(spec.shape) if isinstance(name, str) and (i or batch is None)}
    outputs = [output.name for output in network.outputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own age, and of constants that are meant to be
        torch.onnx.export(
            network.module,
            (torch.from_numpy(_example(network, batch or 2, 7)),),
            str(path),
            input_names=[spec.name],
            output_names=outputs,
            dynamic_axes={spec.name: axes} | ({name: {0: "batch"} for name in outputs} if batch is None else {}),
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    for declared, output in zip(model.graph.output, network.outputs, strict=True):
        for dimension, size in zip(declared.type.tensor_type.shape.dim[1:], output.shape[1:], strict=True):
            dimension.ClearField("dim_param")
            dimension.dim_value = size  # the exporter loses some behind a gather
    onnx.helper.set_model_props(model, dict(network.metadata))
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EMBEDDED_BYTES
    for stale in path.parent.glob("*"):
        if stale.suffix != ".onnx" and not stale.name.endswith(".onnx.data"):
            stale.unlink()  # the exporter's own external data
    onnx.save(model, path, save_as_external_data=large, location=path.name + ".data" if large else None)


def _compare(network: TorchNetwork, path: Path, batch: int | None, magnitude: Callable[[NDArray[Any]], float]) -> None:
    import numpy as np
    import torch

    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "the exported graph is checked with onnxruntime", found=str(error), fix='pip install "lensmount[onnx]"'
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count, length in ((batch or 1, 7), (batch or 3, int(network.metadata.get(CONTEXT, 0)))):
        example = _example(network, count, length)
        with torch.inference_mode():
            given = network.module(torch.from_numpy(example))
        expected = [given] if isinstance(given, torch.Tensor) else list(given)
        found = session.run(None, {network.inputs[0].name: example})
        for spec, tensor, got in zip(network.outputs, expected, found, strict=True):
            wanted = tensor.numpy()
            same = got.shape == wanted.shape
            off = float(np.abs(got - wanted).max()) / (magnitude(wanted) or 1.0) if same else float("inf")
            if not off <= TOLERANCE:
                raise ModelFileError(
                    f"the exported {path.name} does not give what the network gives",
                    found=f"{spec.name}: a relative difference of {off:.1e}",
                    expected=f"at most {TOLERANCE:.0e}",
                )


def _write_tokenizer(context: ExportContext, folder: Path) -> None:
    """Copies the configuration and tokeniser of the package; CLIP's merges where the package has no tokeniser."""
    copied = [name for name in COMPANIONS if name in context.files]
    for name in copied:
        shutil.copyfile(context.files[name], folder / name)
    if not any(name in TOKENISERS for name in copied):
        (folder / MERGES_FILE).write_bytes(packaged_merges())


def _write_card(context: ExportContext, folder: Path, preprocess: Preprocess | None) -> None:
    from lensmount.store.manifests import write_manifest

    artifacts = tuple(
        Artifact(
            name=path.name,
            uri=f"file:///{path.name}",
            role="graph" if path.suffix == ".onnx" else "data",
            size=path.stat().st_size,
        )
        for path in sorted(folder.iterdir())
    )
    package = ModelPackage(name="onnx-fp32", format="onnx", artifacts=artifacts, preprocess=preprocess)
    write_manifest(replace(context.card, packages=(package,), aliases=()), folder)
