"""Backends: `base` holds what one promises; onnx, torch and tensorrt register through the same hooks as others.

What a backend of one's own takes from here: the promise (`Session`, `OpenRequest`, `TensorSpec`), the words for devices
and threads (`split_device`, `session_threads`), the check that refuses the same feeds in the same words everywhere
(`check_feeds`), and for ONNX files what the file says of itself, with its data files checked (`inspect_graph`).
"""

from lensmount.backends.base import BackendOptions, OpenRequest, Session, TensorSpec, check_feeds
from lensmount.backends.devices import requested_threads, session_threads, split_device
from lensmount.backends.onnx_graph import GraphFile
from lensmount.backends.onnx_graph import inspect as inspect_graph

__all__ = [
    "BackendOptions",
    "GraphFile",
    "OpenRequest",
    "Session",
    "TensorSpec",
    "check_feeds",
    "inspect_graph",
    "requested_threads",
    "session_threads",
    "split_device",
]
