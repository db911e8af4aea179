"""YOLO networks as torch modules, with the tensor names of the official layout.

Written from the published descriptions of the architectures and from the names and shapes of tensors in released
files. `build.build_network` makes a network from a declarative layer list; tensors of an official file load by name.
"""
