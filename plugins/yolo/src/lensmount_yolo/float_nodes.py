"""Which part of a YOLO graph an int8 export leaves in float: what turns the last maps into boxes, scores and masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from lensmount_vision.models.exporting import tail_nodes


def float_nodes(model: Any) -> frozenset[str]:
    """Everything below the last convolutions with learned weights.

    There, in one tensor, boxes count in hundreds of pixels and scores in hundredths; and the mean of the distance bins
    (`DFL`) is a convolution too, though its weights are the bins' numbers.

    Args:
        model: The graph (`onnx.ModelProto`), its constants folded.

    Returns:
        Names of nodes.
    """
    from onnx import numpy_helper

    weights = {item.name: item for item in model.graph.initializer}

    def learned(node: Any) -> bool:
        if node.op_type not in ("Conv", "ConvTranspose"):
            return False
        kernel = weights.get(node.input[1])
        if kernel is None or len(node.input) > 2 or kernel.dims[0] != 1:
            return True
        values = numpy_helper.to_array(kernel).ravel()
        return not np.array_equal(values, np.arange(values.size))

    return tail_nodes(model, learned)
