"""Pictures whose pixels lie on a device and stay there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack as _exchange

from lensmount.errors import ImageError
from lensmount_vision.images.image import Color, Image
from lensmount_vision.images.torch_streams import Marker, runtime_for

__all__ = ["DeviceImage", "from_dlpack", "from_tensor"]


class DeviceImage(Image):
    """A picture on a device; only what asks for `pixels` (drawing, content keys) brings it to the host.

    Args:
        tensor: `(H, W, 3)` uint8 on any device, of any strides. It shares the caller's memory, which must not change
            while a call uses it.
        color: Order of the channels.
        path: Where it came from.

    Attributes:
        tensor: As given.
        ready: The place in the stream on which the picture was loaded, behind whatever made it.
    """

    __slots__ = ("_host", "ready", "tensor")

    tensor: Tensor
    ready: Marker
    _host: NDArray[np.uint8] | None

    def __init__(self, tensor: Tensor, color: Color = "rgb", path: str | None = None) -> None:
        runtime = runtime_for(tensor.device)
        with runtime.current():
            ready = runtime.mark()
        values = {"tensor": tensor, "color": color, "path": path, "reduced": None, "ready": ready, "_host": None}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """`(H, W, 3)` uint8 on the host, a read-only copy made at first use."""
        if self._host is None:
            host = np.ascontiguousarray(self.tensor.cpu().numpy())
            host.flags.writeable = False
            object.__setattr__(self, "_host", host)
        assert self._host is not None
        return self._host

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.tensor.shape[0])

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.tensor.shape[1])

    @property
    def channels(self) -> int:
        """Channels of the pixels."""
        return int(self.tensor.shape[2])

    def on_host(self) -> Image:
        """The same picture as a plain `Image`."""
        return Image(self.pixels, self.color, self.path)

    def __repr__(self) -> str:
        return f"<DeviceImage of {self.width}x{self.height} on {self.tensor.device}>"


def from_tensor(tensor: Tensor, color: Color, channels: int = 3) -> DeviceImage:
    """Takes a tensor as a picture, without moving it.

    Args:
        tensor: `(H, W)` or `(C, H, W)` with 1, 3 or 4 channels, uint8 or floating in 0..1.
        color: Order of the channels.
        channels: As for `lensmount_vision.images.arrays.from_array`.

    Raises:
        ImageError: Its dtype, range or shape is another.
    """
    from lensmount_vision.images.arrays import check_tensor, is_plain, wrong_range

    tensor = check_tensor(tensor.detach(), channels)
    if tensor.is_floating_point():
        low, high = (float(value) for value in torch.aminmax(tensor)) if tensor.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):  # also true of NaN
            raise wrong_range(tensor, low, high)
        tensor = (tensor.float() * 255).round().to(torch.uint8)
    tensor = tensor.permute(1, 2, 0)
    return DeviceImage(_three(tensor) if is_plain(channels) else tensor, color)


def from_dlpack(source: Any, color: Color, channels: int = 3) -> DeviceImage:
    """Takes another library's array on a device (CuPy, JAX, …) as a picture, sharing its memory.

    The DLPack exchange makes torch's current stream wait for whatever makes the array.

    Args:
        source: `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)` uint8, as numpy's arrays are taken.
        color: Order of the channels.
        channels: As for `lensmount_vision.images.arrays.from_array`.

    Raises:
        ImageError: Its dtype or shape is another, or torch cannot take it.
    """
    try:
        tensor = _exchange(source)
    except (RuntimeError, BufferError, TypeError, ValueError) as error:
        raise ImageError(
            f"torch cannot take an array of {type(source).__module__} through DLPack",
            found=str(error)[:200],
            expected="uint8 (H, W, 3) on a device that this torch runs on",
        ) from error
    if tensor.ndim == 2:
        tensor = tensor[..., None]
    from lensmount_vision.images.arrays import is_plain

    plain = is_plain(channels)
    taken = (1, 3, 4) if plain else (channels,)
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[2] not in taken or not tensor.numel():
        raise ImageError(
            f"the array of {type(source).__module__} is no picture",
            found=f"{tensor.dtype} {tuple(tensor.shape)}",
            expected="uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)" if plain else f"uint8 (H, W, {channels})",
        )
    return DeviceImage(_three(tensor) if plain else tensor, color)


def _three(tensor: Tensor) -> Tensor:
    """Exactly three channels: grey is shown thrice, alpha is dropped; neither copies."""
    return tensor.expand(-1, -1, 3) if tensor.shape[2] == 1 else tensor[..., :3]
