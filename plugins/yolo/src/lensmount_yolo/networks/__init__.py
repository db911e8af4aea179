"""YOLO networks, written once for torch and for ONNX, with the tensor names of the official layout.

Written from the published descriptions of the architectures and from the names and shapes of tensors in released
files. A tree of `nodes` says what a network is made of; `fuse` folds it and its tensors for use; `assemble` makes the
layers, of which `lensmount_networks` makes a torch module or an ONNX graph.
"""
