"""Backends: `base` holds what one promises; onnx, torch and tensorrt register through the same hooks as others."""

from lensmount.backends.base import BackendOptions, OpenRequest, Session, TensorSpec, check_feeds

__all__ = ["BackendOptions", "OpenRequest", "Session", "TensorSpec", "check_feeds"]
