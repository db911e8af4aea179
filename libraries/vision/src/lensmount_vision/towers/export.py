"""Export of two towers to a pair of ONNX graphs, compared with the networks before they are kept."""

from __future__ import annotations

import pkgutil
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.contracts.model import NetworkContext
from lensmount.errors import InputError, MissingDependencyError, ModelFileError, UnsupportedModelError
from lensmount.specs import Artifact, ModelCard, ModelPackage
from lensmount.specs.options import build_options
from lensmount_vision.towers.build import MERGES
from lensmount_vision.towers.recognise import COMPANIONS, GRAPHS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import ExportContext
    from lensmount.contracts.session import TorchNetwork

OPSET = 17
#: Largest difference from the network, as a share of the vector's largest component, in float32.
TOLERANCE = 1e-4


def export_pair(
    context: ExportContext,
    build: Callable[[NetworkContext], Mapping[str, TorchNetwork]],
    options: type,
    *,
    vocabulary_package: str,
) -> Path:
    """Writes a folder with `visual.onnx`, `textual.onnx`, the tokeniser and `lensmount.json`.

    The batch is dynamic in both graphs, and the length of texts too; `context.batch` fixes the batch unless
    `context.dynamic`.

    Args:
        context: What to export, and where to; `output` is the folder (an ending `.onnx` is dropped).
        build: Makes the towers `visual` and `textual`.
        options: The architecture's load options; settings are those that say what the files leave open.
        vocabulary_package: Plugin whose wheel holds the tokeniser, where the package brings none.

    Returns:
        The folder.

    Raises:
        UnsupportedModelError: Another target than `onnx`, or another precision than `fp32`.
        UnknownOptionError: A setting that is no load option.
        OptionError: A setting has a wrong value.
        ModelFileError: A graph does not give what its network gives.
        InputError: The folder is there already and not empty, or cannot be written.
        MissingDependencyError: torch or onnx is not installed.
    """
    if context.target != "onnx" or context.precision != "fp32":
        raise UnsupportedModelError(
            f"{context.card.id!r} is exported to onnx in fp32 alone",
            found=f"{context.target}, {context.precision}",
            fix="lensmount export MODEL --to onnx --precision fp32",
        )
    chosen: Any = build_options(options, context.settings, f"the export of {context.card.id!r}")
    folder = context.output.with_suffix("") if context.output.suffix == ".onnx" else context.output
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already", fix="name a folder that does not exist yet: --output FOLDER")
    networks = build(NetworkContext(card=context.card, package=context.package, files=context.files, options=chosen))
    batch = None if context.dynamic or context.batch == 1 else context.batch
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
            building = Path(made) / "pair"
            building.mkdir()
            for graph in GRAPHS:
                network = networks[graph.removesuffix(".onnx")]
                _write(network, building / graph, batch)
                _compare(network, building / graph, batch)
            _write_tokenizer(context, building, vocabulary_package)
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


def _examples(network: TorchNetwork, batch: int) -> list[NDArray[Any]]:
    import numpy as np

    random = np.random.default_rng(0)
    shape = network.inputs[0].shape
    if len(shape) == 4:
        return [random.standard_normal((n, *shape[1:])).astype(np.float32) for n in (batch, batch + 1)]
    highest = int(network.metadata["lensmount.vocabulary"]) - 1
    found = []
    for count, length in ((batch, 7), (batch + 1, int(network.metadata["lensmount.context_length"]))):
        tokens = random.integers(1, highest, (count, length))
        ends = random.integers(2, length, count)
        tokens[np.arange(count), ends] = highest
        found.append(tokens.astype(np.int64))
    return found


def _write(network: TorchNetwork, path: Path, batch: int | None) -> None:
    import torch

    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("exporting needs onnx", found=str(error), fix="pip install onnx") from error
    (spec,), (output,) = network.inputs, network.outputs
    axes = {i: name for i, name in enumerate(spec.shape) if isinstance(name, str) and (i or batch is None)}
    dynamic = {spec.name: axes, output.name: {0: "batch"} if batch is None else {}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own age, and of constants that are meant to be
        torch.onnx.export(
            network.module,
            (torch.from_numpy(_examples(network, batch or 2)[0]),),
            str(path),
            input_names=[spec.name],
            output_names=[output.name],
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    dimension = model.graph.output[0].type.tensor_type.shape.dim[1]
    dimension.ClearField("dim_param")
    dimension.dim_value = output.shape[1]  # the exporter loses it behind a gather
    onnx.helper.set_model_props(model, dict(network.metadata))
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > 1_900_000_000
    for stale in path.parent.glob("*"):
        if stale.suffix != ".onnx":
            stale.unlink()
    onnx.save(model, path, save_as_external_data=large, location=path.name + ".data" if large else None)


def _compare(network: TorchNetwork, path: Path, batch: int | None) -> None:
    import numpy as np
    import torch

    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "the exported graph is checked with onnxruntime", found=str(error), fix='pip install "lensmount[onnx]"'
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    examples = _examples(network, batch or 2)
    for example in examples if batch is None else examples[:1]:
        with torch.inference_mode():
            expected = network.module(torch.from_numpy(example)).numpy()
        (found,) = session.run(None, {network.inputs[0].name: example})
        distance = float(np.abs(found - expected).max() / np.abs(expected).max())
        if found.shape != expected.shape or not distance <= TOLERANCE:
            raise ModelFileError(
                f"the exported {path.name} does not give what the network gives",
                found=f"a relative difference of {distance:.1e}",
                expected=f"at most {TOLERANCE:.0e}",
            )


def _write_tokenizer(context: ExportContext, folder: Path, package: str) -> None:
    copied = [name for name in COMPANIONS if name in context.files]
    for name in copied:
        shutil.copyfile(context.files[name], folder / name)
    if not any(name in ("tokenizer.json", "vocab.json", "bpe_simple_vocab_16e6.txt.gz") for name in copied):
        (folder / MERGES).write_bytes(pkgutil.get_data(package, MERGES) or b"")


def _write_card(context: ExportContext, folder: Path) -> None:
    from lensmount.store.manifests import write_manifest

    artifacts = tuple(
        Artifact(
            name=path.name,
            uri=f"file:///{path.name}",
            role="graph" if path.name in GRAPHS else "data",
            size=path.stat().st_size,
        )
        for path in sorted(folder.iterdir())
    )
    package = ModelPackage(
        name="onnx-fp32", format="onnx", artifacts=artifacts, preprocess=context.package.preprocess, precision="fp32"
    )
    card: ModelCard = replace(context.card, packages=(package,), aliases=())
    write_manifest(card, folder)
