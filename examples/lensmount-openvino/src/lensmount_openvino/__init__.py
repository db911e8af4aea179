"""A backend for lensmount: graphs of format `onnx` on OpenVINO."""
