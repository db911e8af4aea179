"""Arrays from what callers and sessions give: lists, numpy arrays, torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backend.tensors import is_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_array(value: Any) -> NDArray[Any]:
    """A host array of a list, an array or a tensor on any device; bfloat16 becomes float32.

    Raises:
        ValueError: A list's rows differ in length.
    """
    if is_tensor(value):
        value = value.detach()
        value = value.float() if value.is_floating_point() else value
        return np.asarray(value.cpu().numpy())
    if isinstance(value, list | tuple) and any(is_tensor(item) for item in value):
        return np.stack([to_array(item) for item in value])
    return np.asarray(value)
