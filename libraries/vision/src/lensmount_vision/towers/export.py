"""Export of the networks of a two-tower model to ONNX graphs, which are run before they are kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import InputError, MissingDependencyError, ModelFileError, UnsupportedModelError
from lensmount.specs import Artifact, ModelPackage
from lensmount_vision.towers.recognise import COMPANIONS, CONTEXT, TOKENISERS, VOCABULARY
from lensmount_vision.towers.vocabulary import MERGES_FILE, packaged_merges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import ExportContext
    from lensmount.specs import Preprocess
    from lensmount_networks import Network

#: Largest difference from the network in float32, as a share of an output's magnitude.
TOLERANCE = 1e-4


def export_graphs(
    context: ExportContext,
    build: Callable[[], Mapping[str, Network]],
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
        ModelFileError: A graph does not give what its network gives in torch, where torch is installed; else, finite
            numbers that do not depend on what shares the batch.
        InputError: The folder is there already and not empty, or cannot be written.
        MissingDependencyError: onnxruntime is not installed.
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
                network.save(path, {} if size is None else {"batch": size})
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


def _example(network: Network, batch: int, length: int) -> NDArray[Any]:
    """Input of a network: float32 `(batch, 3, H, W)`, or int64 ids `(batch, length)`, at most the context's length."""
    import numpy as np

    random = np.random.default_rng(0)
    shape = network.inputs[0].shape
    if len(shape) == 4:
        sides = (size for size in shape[1:] if isinstance(size, int))
        return random.standard_normal((batch, *sides)).astype(np.float32)
    highest, length = int(network.metadata[VOCABULARY]) - 1, min(length, int(network.metadata[CONTEXT]))
    tokens = random.integers(1, highest, (batch, length))
    tokens[np.arange(batch), random.integers(2, length, batch)] = highest
    return tokens.astype(np.int64)


def _compare(network: Network, path: Path, batch: int | None, magnitude: Callable[[NDArray[Any]], float]) -> None:
    import numpy as np

    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "the exported graph is checked with onnxruntime", found=str(error), fix='pip install "lensmount[onnx]"'
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = network.inputs[0].name
    module = network.torch().module if find_spec("torch") else None
    for count, length in ((batch or 1, 7), (batch or 3, int(network.metadata.get(CONTEXT, 0)))):
        example = _example(network, count, length)
        found = session.run(None, {name: example})
        turned = [values[::-1] for values in session.run(None, {name: np.ascontiguousarray(example[::-1])})]
        expected = turned if module is None else _in_torch(module, example)
        for spec, wanted, got in zip(network.outputs, expected, found, strict=True):
            same = got.shape == wanted.shape and np.isfinite(got).all()
            off = float(np.abs(got - wanted).max()) / (magnitude(wanted) or 1.0) if same else float("inf")
            if not off <= TOLERANCE:
                raise ModelFileError(
                    f"the exported {path.name} does not give what the network gives",
                    found=f"{spec.name}: a relative difference of {off:.1e}",
                    expected=f"at most {TOLERANCE:.0e}",
                )


def _in_torch(module: Any, example: NDArray[Any]) -> list[NDArray[Any]]:
    import torch

    with torch.inference_mode():
        given = module(torch.from_numpy(example))
    return [tensor.numpy() for tensor in ([given] if isinstance(given, torch.Tensor) else given)]


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
