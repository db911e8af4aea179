"""Networks written once: on torch tensors they run, on values of a graph they become ONNX. See `layers` for how.

Public are the names below and, as modules, `ops` (operations) and `layers` (building blocks). Of lensmount, the core
alone is below it; numpy and torch are imported where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_networks.graph": ("Graph",),
    "lensmount_networks.layers": ("Layer",),
    "lensmount_networks.network": ("Network", "fitting"),
    "lensmount_networks.sizes": ("Size",),
    "lensmount_networks.torch_adapter": ("torch_module",),
    "lensmount_networks.values": ("Value",),
    "lensmount_networks.writer": ("TYPES", "Node", "model_bytes"),
}

if TYPE_CHECKING:
    from lensmount_networks.graph import Graph
    from lensmount_networks.layers import Layer
    from lensmount_networks.network import Network, fitting
    from lensmount_networks.sizes import Size
    from lensmount_networks.torch_adapter import torch_module
    from lensmount_networks.values import Value
    from lensmount_networks.writer import TYPES, Node, model_bytes

__all__ = ["TYPES", "Graph", "Layer", "Network", "Node", "Size", "Value", "fitting", "model_bytes", "torch_module"]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
