"""ONNX graphs of the image encoder and of the mask decoder, checked against the networks they were made from."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.contracts.model import ExportContext, NetworkContext
from lensmount.errors import BackendError, InputError, OptionError
from lensmount.specs import Artifact, BatchPolicy, ModelPackage
from lensmount_sam2.checkpoint import networks
from lensmount_sam2.options import LoadOptions
from lensmount_vision.models.exporting import require_packages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from lensmount_networks import Network

    Feeds = Mapping[str, NDArray[Any]]
    Answer = Callable[[Feeds], list[Any]]

TOLERANCE = 1e-3
"""Of each output's range: what graphs may differ from the networks they were made from."""


def export(context: ExportContext) -> Path:
    """Writes a folder with `encoder.onnx`, `decoder.onnx` and a `lensmount.json`, which `registry.load` opens.

    The decoder takes any number of prompts with any number of points; the encoder any number of pictures where
    `dynamic` is asked for. Tracking has no ONNX form.

    Args:
        context: `settings` may have `image_size`.

    Raises:
        OptionError: Another target, precision or setting than there is.
        MissingDependencyError: `onnxruntime` is not installed.
        InputError: The output is there already and is no export.
        BackendError: A graph does not answer as its network does; nothing is written.
    """
    if context.target != "onnx":
        raise OptionError("SAM 2 is not exported to this format", found=context.target, expected="onnx")
    if context.precision != "fp32":
        raise OptionError("SAM 2 is exported in fp32 only", found=context.precision, expected="fp32")
    unknown = sorted(set(context.settings) - {"image_size"})
    if unknown:
        raise OptionError("SAM 2's export has no such setting", found=", ".join(unknown), expected="image_size")
    require_packages("onnxruntime", fix='pip install "lensmount[onnx]"')
    output = context.output
    output = output.with_suffix("") if output.suffix == ".onnx" else output
    if output.exists() and not (output / "lensmount.json").is_file():
        raise InputError(f"{output} exists and is no export of a model", fix="name another folder, or remove it")
    options = LoadOptions(**context.settings)
    built = networks(NetworkContext(card=context.card, package=context.package, files=context.files, options=options))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        folder = Path(temporary) / "export"
        folder.mkdir()
        side = int(built["encoder"].metadata["image_size"])
        batch = None if context.dynamic else context.batch
        for name, network in built.items():
            path = folder / f"{name}.onnx"
            written = replace(network, metadata={"architecture": "sam2", **network.metadata})
            written.save(path, {} if batch is None else {"batch": batch})
            _check(path, network, name, side, batch)
        _describe(context, folder, batch)
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)
    return output


def _example(name: str, side: int, first: int, points: int) -> dict[str, NDArray[Any]]:
    """Inputs by name, in order: a batch of pictures, or `first` prompts of so many points."""
    rng = np.random.default_rng(0)
    if name == "encoder":
        return {"images": rng.standard_normal((first, 3, side, side), np.float32)}
    cells = side // 16
    return {
        "embedding": rng.standard_normal((1, 256, cells, cells), np.float32),
        "high_res_0": rng.standard_normal((1, 32, 4 * cells, 4 * cells), np.float32),
        "high_res_1": rng.standard_normal((1, 64, 2 * cells, 2 * cells), np.float32),
        "points": (rng.random((first, points, 2)) * side).astype(np.float32),
        "labels": rng.integers(-1, 4, (first, points)),
        "masks": rng.standard_normal((first, 1, 4 * cells, 4 * cells), np.float32),
        "has_mask": np.arange(first) % 2,
    }


def _check(path: Path, network: Network, name: str, side: int, batch: int | None) -> None:
    """Runs the file and the network on several sizes: in torch where it is installed, else as a graph in memory."""
    answer, expect = _on_onnxruntime(str(path), {}), _expected(network)
    cases = [(batch or 1, 0)] if name == "encoder" else [(1, 4), (4, 5), (3, 0)]
    for first, points in cases:
        feeds = _example(name, side, first, points)
        if name == "decoder" and not points:  # one mask that does not count serves any number of prompts
            feeds |= {"masks": feeds["masks"][:1], "has_mask": np.zeros(1, np.int64)}
        for value, wanted in zip(answer(feeds), expect(feeds), strict=True):
            extent = max(float(np.ptp(wanted)), float(np.abs(wanted).max()), 1e-6)  # one number has no range
            worst = float(np.abs(value - wanted).max()) / extent
            if value.shape != wanted.shape or not worst <= TOLERANCE:
                raise BackendError(
                    f"{path.name} does not answer as the network it was made from",
                    found=f"{value.shape}, off by {worst:.1e} of the range",
                    expected=f"{wanted.shape}, within {TOLERANCE:.0e}",
                )


def _expected(network: Network) -> Answer:
    if find_spec("torch") is None:
        made = network.graph()
        return _on_onnxruntime(made.model, made.initializers)
    import torch

    module = network.torch().module

    def answer(feeds: Feeds) -> list[Any]:
        with torch.inference_mode():
            return [part.numpy() for part in module(*(torch.from_numpy(array) for array in feeds.values()))]

    return answer


def _on_onnxruntime(model: str | bytes, initializers: Feeds) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in initializers.values()]
    if values:
        options.add_external_initializers(list(initializers), values)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda feeds: list(session.run(None, dict(feeds)))


def _describe(context: ExportContext, folder: Path, batch: int | None) -> None:
    from lensmount.store.manifests import write_manifest

    names = ("encoder.onnx", "decoder.onnx")
    package = ModelPackage(
        name="onnx-fp32",
        format="onnx",
        artifacts=tuple(
            Artifact(name=name, uri=(folder / name).absolute().as_uri(), confidence="official") for name in names
        ),
        precision="fp32",
        batch=BatchPolicy(static=batch),
        recommended=context.package.recommended,
    )
    write_manifest(replace(context.card, packages=(package,)), folder)
