"""Pictures to network input, and outputs to results, in torch on the device that runs the network.

The same results as the host's transforms, boxes and masks; what differs, and by how much, stands in docs/gpu.md.
Nothing here is imported before a session says where its tensors lie (`Session.tensor_device`). `models` and plugins
import it; it imports `images`, `results` and the core.
"""
