"""Runs the networks on whatever backend they were opened on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backend.batching import batch_policy, run_batched
from lensmount.backend.tensors import is_tensor
from lensmount.contracts.model import NetworkContext
from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_sam2.arrays import to_array
from lensmount_sam2.settings import PREPROCESS
from lensmount_vision.models.loaded import closed_error
from lensmount_vision.models.processors import with_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import BuildContext
    from lensmount.contracts.session import Session
    from lensmount.specs import Preprocess
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Image

    Maps = tuple[Any, Any, Any]
    Floats = NDArray[np.float32]

MAPS = ("embedding", "high_res_0", "high_res_1")
BATCH = 4
"""Pictures encoded at once: enough for a GPU, little enough for its memory."""


class Runner:
    """Encoder and decoder behind one face: maps stay on a torch device, and lie on the host with other backends.

    Args:
        context: What the core hands to a factory.

    Attributes:
        card: The model's card.
        package: The package that runs.
        name: The model's id, for messages.
        image_size: Side of the square that pictures are squashed to, in pixels.
        preprocess_spec: How pictures become that square.

    Raises:
        ModelFileError: The package lacks a graph, or its graphs are of other pictures.
    """

    def __init__(self, context: BuildContext) -> None:
        self.card, self.package = context.card, context.package
        self.name = context.card.id
        named = {name.rpartition("/")[2].partition(".")[0]: session for name, session in context.sessions.items()}
        missing = {"encoder", "decoder"} - set(named)
        if missing:
            raise ModelFileError(
                f"package {context.package.name!r} of {context.card.id!r} lacks graphs",
                found=", ".join(sorted(context.sessions)) or "none",
                expected="encoder.onnx and decoder.onnx",
            )
        self.encoder: Session = named["encoder"]
        self.decoder: Session = named["decoder"]
        self.memory: Session | None = named.get("memory")
        self._context = context
        self._parts: dict[str, Any] = {}
        self.sessions = tuple(context.sessions.values())
        self.torch = self.encoder.backend == "torch"
        self._batch = batch_policy(self.encoder, context.package.batch)
        shape, masks = self.encoder.inputs[0].shape, self._input("masks").shape
        side = shape[2] if len(shape) == 4 else None
        if not isinstance(side, int) or side != shape[3] or side % 32 or masks[2:] != (side // 4, side // 4):
            raise ModelFileError(
                f"the graphs of {context.card.id!r} do not fit",
                found=f"pictures {shape}, masks {masks}",
                expected="square pictures (batch, 3, S, S), S a multiple of 32, and masks (prompts, 1, S/4, S/4)",
            )
        self.image_size = side
        spec = context.package.preprocess or with_pixels(PREPROCESS, self.encoder.metadata)
        self.preprocess_spec = replace(spec, size=(side, side))
        self._closed = False
        self._preparers: dict[Preprocess, Any] = {}
        self._points = self._input("points").dtype
        self._no_mask = np.zeros((1, 1, side // 4, side // 4), np.float32)

    def _input(self, name: str) -> Any:
        return next(spec for spec in self.decoder.inputs if spec.name == name)

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self.encoder.backend

    @property
    def device(self) -> str:
        """Device that the encoder runs on."""
        return self.encoder.device

    @property
    def precision(self) -> str:
        """Precision that the encoder computes in."""
        return self.encoder.precision

    @property
    def mask_size(self) -> tuple[int, int]:
        """`(h, w)` of low-resolution logits."""
        return self.image_size // 4, self.image_size // 4

    def check_open(self) -> None:
        """Raises `ClosedError` once the sessions were freed."""
        if self._closed:
            raise closed_error(self.name)

    def require_tracking(self) -> None:
        """Checks that the parts for video are there, without importing torch where its backend runs.

        Where torch weights run as graphs on a CPU, tracking makes torch networks of the same file when it is first
        asked for.

        Raises:
            ClosedError: The sessions were freed.
            UnsupportedModelError: There is no torch that could run the memory, or the weights have no parts for video.
        """
        self.check_open()
        if not self.torch and not self._parts:
            weights = self.package.format == "torch" and self.device == "cpu"
            if not weights or find_spec("torch") is None:
                raise UnsupportedModelError(
                    f"{self.name!r} cannot track here: only torch runs the memory",
                    found=f"backend {self.encoder.backend}" + ", torch is not installed" * weights,
                    expected="torch",
                    fix='pip install "lensmount[torch]"'
                    if weights
                    else 'load the model\'s torch weights: registry.load(…, backend="torch")',
                )
            from lensmount_sam2.checkpoint import network

            own = self._context
            asked = NetworkContext(card=own.card, package=own.package, files=own.files, options=own.options)
            self._parts = {name: made.module for name, made in network(asked).items()}
        if "memory" not in self._parts and self.memory is None:
            raise UnsupportedModelError(
                f"the weights of {self.name!r} have no parts for video",
                expected="memory_attention, memory_encoder, …",
                fix="load the official checkpoint, or a folder saved by transformers' Sam2VideoModel",
            )

    def module(self, name: str) -> Any:
        """A network for tracking, once `require_tracking` had no objection: `encoder`, `decoder` or `memory`.

        Raises:
            ClosedError: The sessions were freed.
        """
        self.check_open()
        session: Any = getattr(self, name)
        return self._parts[name] if self._parts else session.module

    def groups(self, count: int) -> list[range]:
        """Pictures to prepare and encode together."""
        step = self._batch.static or min(BATCH, self._batch.maximum or BATCH)
        return [range(start, min(start + step, count)) for start in range(0, count, step)]

    def prepare(self, pictures: Sequence[Image], spec: Preprocess) -> tuple[Any, list[Geometry]]:
        """Pictures to the encoder's input `(B, 3, S, S)`: on its device where it takes tensors, else on the host."""
        device = getattr(self.encoder, "tensor_device", None)
        if device is None:
            from lensmount_vision.images.transforms import prepare

            return prepare(pictures, spec)
        preparer = self._preparers.get(spec)
        if preparer is None:
            from lensmount_vision.device.preparing import DevicePreparer
            from lensmount_vision.images.torch_streams import runtime_for

            # Two specs at most, of pictures and of frames; two threads that make one at once do no harm.
            preparer = self._preparers[spec] = DevicePreparer(spec, runtime_for(device), "float32")
        batch, geometries = preparer(pictures)
        return batch, geometries

    def encode(self, batch: Any) -> list[Maps]:
        """Maps of each picture of a batch `(B, 3, S, S)`; each owns its memory, so that a cache counts it right."""
        if not self.torch:
            on_device = is_tensor(batch)
            run = self.encoder.run_tensors if on_device else None  # type: ignore[attr-defined]  # it takes tensors
            raw = run_batched(self.encoder, {"images": batch}, self._batch, run)
            copy = (lambda part: part.clone()) if on_device else np.copy
            return [self._row(raw, index, copy) for index in range(len(batch))]
        made = self.encoder.run_on_device({"images": batch})  # type: ignore[attr-defined]  # torch sessions have it
        return [self._row(made, index, lambda part: part.clone()) for index in range(len(batch))]

    @staticmethod
    def _row(raw: Any, index: int, copy: Any) -> Maps:
        first, second, third = (raw[name][index : index + 1] for name in MAPS)
        return (first, second, third) if len(raw[MAPS[0]]) == 1 else (copy(first), copy(second), copy(third))

    @property
    def on_device(self) -> bool:
        """Whether masks are finished on the decoder's device, in torch."""
        return getattr(self.decoder, "tensor_device", None) is not None

    def decode(
        self, maps: Maps, points: Floats, labels: NDArray[np.int64], masks: Floats | None, given: NDArray[Any] | None
    ) -> tuple[Any, Any]:
        """Masks of P prompts, where they are finished: tensors if that is `on_device`, else host arrays.

        Args:
            maps: Of one picture.
            points: `(P, N, 2)` network pixels.
            labels: `(P, N)`.
            masks: `(P, 1, h, w)` logits, or None.
            given: `(P,)` which of the masks count; None for all.

        Returns:
            float32 logits `(P, 4, h, w)` and scores `(P, 4)`.
        """
        made = self._decode(maps, points, labels, masks, given)
        logits, scores = made["logits"], made["scores"]
        if self.on_device:
            return logits.float(), scores.float()
        return to_array(logits).astype(np.float32, copy=False), to_array(scores).astype(np.float32, copy=False)

    def _decode(
        self, maps: Maps, points: Floats, labels: NDArray[np.int64], masks: Floats | None, given: NDArray[Any] | None
    ) -> dict[str, Any]:
        """The decoder's outputs as its session gives them."""
        if masks is None:
            masks, given = self._no_mask, np.zeros(1, np.int64)
        elif given is None:
            given = np.ones(len(masks), np.int64)
        feeds: dict[str, Any] = {
            "points": points.view(np.int32) if self._points == "int32" else points,
            "labels": labels,
            "masks": masks,
            "has_mask": given.astype(np.int64),
        }
        if self.torch:
            tensors = dict(zip(MAPS, (self._to_device(part) for part in maps), strict=True))
            made = self.decoder.run_on_device(tensors | feeds)  # type: ignore[attr-defined]
        elif self.on_device:
            inputs = dict(zip(MAPS, maps, strict=True)) | feeds
            there = {name: self._to_device(part).to(self.decoder.tensor_device) for name, part in inputs.items()}  # type: ignore[attr-defined]
            made = self.decoder.run_tensors(there)  # type: ignore[attr-defined]
        else:
            made = self.decoder.run(dict(zip(MAPS, map(to_array, maps), strict=True)) | feeds)
        outputs: dict[str, Any] = made
        return outputs

    def _to_device(self, part: Any) -> Any:
        """A map as a tensor; a cache on disk gives it back on the host, and the session moves it."""
        if is_tensor(part):
            return part
        import torch

        return torch.from_numpy(np.array(part))

    def close(self) -> None:
        """Frees the sessions."""
        self._closed, self._parts = True, {}
        for session in self.sessions:
            session.close()
