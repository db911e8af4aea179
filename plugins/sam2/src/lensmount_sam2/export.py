"""ONNX graphs of the image encoder and of the mask decoder, checked against the networks they were made from."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.contracts.model import ExportContext, NetworkContext
from lensmount.errors import BackendError, InputError, MissingDependencyError, OptionError
from lensmount.specs import Artifact, BatchPolicy, ModelPackage
from lensmount_sam2.checkpoint import network, specs
from lensmount_sam2.options import LoadOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

OPSET = 17
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
        MissingDependencyError: `onnx` or `onnxruntime` is not installed.
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
    for name in ("onnx", "onnxruntime"):
        _require(name)
    output = context.output
    output = output.with_suffix("") if output.suffix == ".onnx" else output
    if output.exists() and not (output / "lensmount.json").is_file():
        raise InputError(f"{output} exists and is no export of a model", fix="name another folder, or remove it")
    options = LoadOptions(**context.settings)
    built = network(NetworkContext(card=context.card, package=context.package, files=context.files, options=options))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        folder = Path(temporary) / "export"
        folder.mkdir()
        side = int(built["encoder"].metadata["image_size"])
        batch = None if context.dynamic else context.batch
        for name in ("encoder", "decoder"):
            module = built[name].module if name == "encoder" else built[name].module.decoder
            _write(folder / f"{name}.onnx", name, module, side, batch, built[name].metadata)
        _describe(context, folder, batch)
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)
    return output


def _require(name: str) -> None:
    from importlib.util import find_spec

    if find_spec(name) is None:
        raise MissingDependencyError(
            f"export to ONNX needs {name}",
            fix=f"pip install {name}" if name == "onnx" else 'pip install "lensmount[onnx]"',
        )


def _write(path: Path, name: str, module: Any, side: int, batch: int | None, metadata: Mapping[str, str]) -> None:
    import torch

    inputs, outputs = specs(name, side)
    example = _example(name, side, batch or 2, 3)
    axes = {
        spec.name: {i: size for i, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in (*inputs, *outputs)
    }
    if batch is not None:
        axes = {key: {i: size for i, size in named.items() if size != "batch"} for key, named in axes.items()}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracer warns of sizes that are fixed here on purpose
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(array) for array in example.values()),
            str(path),
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            dynamic_axes={key: named for key, named in axes.items() if named},
            opset_version=OPSET,
            dynamo=False,
        )
    _stamp(path, metadata)
    _check(path, module, name, side, batch)


def _stamp(path: Path, metadata: Mapping[str, str]) -> None:
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"architecture": "sam2", **metadata})
    onnx.save(model, str(path))


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


def _check(path: Path, module: Any, name: str, side: int, batch: int | None) -> None:
    """Runs graph and network on other sizes than those of the trace."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    cases = [(batch or 1, 0)] if name == "encoder" else [(1, 4), (4, 5), (3, 0)]
    for first, points in cases:
        feeds = _example(name, side, first, points)
        if name == "decoder" and not points:  # one mask that does not count serves any number of prompts
            feeds |= {"masks": feeds["masks"][:1], "has_mask": np.zeros(1, np.int64)}
        with torch.inference_mode():
            expected = module(*(torch.from_numpy(array) for array in feeds.values()))
        for value, wanted in zip(session.run(None, feeds), (part.numpy() for part in expected), strict=True):
            extent = max(float(np.ptp(wanted)), float(np.abs(wanted).max()), 1e-6)  # one number has no range
            worst = float(np.abs(value - wanted).max()) / extent
            if value.shape != wanted.shape or not worst <= TOLERANCE:
                raise BackendError(
                    f"{path.name} does not answer as the network it was made from",
                    found=f"{value.shape}, off by {worst:.1e} of the range",
                    expected=f"{wanted.shape}, within {TOLERANCE:.0e}",
                )


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
