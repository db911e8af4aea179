"""A BlazeFace of one convolution for each of its maps: bright squares are faces. Written byte by byte, as TFLite."""

from __future__ import annotations

import numpy as np

from tflite_bytes import Graph, Ints, i8, i32

#: By variant: the input's side, and of each map stride and anchors at a cell.
VARIANTS = {"short": (128, ((8, 2), (16, 6))), "back": (256, ((16, 2), (32, 6))), "full": (192, ((4, 1),))}


def tiny_face(variant="short", *, threshold=0.5):
    """A graph with the inputs and outputs of a BlazeFace, whose scores follow the mean brightness of each cell.

    Only the first anchor of a cell answers; its box is two cells wide, its six points lie at the cell's centre and to
    the right of it, one pixel apart.
    """
    side, maps = VARIANTS[variant]
    graph = Graph()
    x = graph.tensor((1, side, side, 3), name="input")
    values, scores = [], []
    for stride, each in maps:
        cells = side // stride
        for width, parts in ((16, values), (1, scores)):
            kernel = np.zeros((each * width, stride, stride, 3), np.float32)
            bias = np.zeros(each * width, np.float32)
            if width == 1:
                kernel[0] = 8 / (stride * stride * 3)
                bias[:] = -30
                bias[0] = -8 * (2 * threshold - 1)
            else:
                bias[2:4] = 2 * stride
                bias[4:16:2] = np.arange(6)
            y = graph.tensor((1, cells, cells, each * width))
            inputs = [x, graph.constant(kernel), graph.constant(bias)]
            graph.operator(3, inputs, [y], {0: i8(1), 1: i32(stride), 2: i32(stride)}, kind=1)
            shape = (1, cells * cells * each, width)
            z = graph.tensor(shape)
            graph.operator(22, [y, graph.constant(np.array(shape, np.int32))], [z], {0: Ints(shape)}, kind=17)
            parts.append(z)
    graph.inputs = [x]
    graph.outputs = []
    count = sum((side // stride) ** 2 * each for stride, each in maps)
    for parts, width, name in ((values, 16, "regressors"), (scores, 1, "classificators")):
        joined = graph.tensor((1, count, width), name=name)
        graph.operator(2, parts, [joined], {0: i32(1)}, kind=10)
        graph.outputs.append(joined)
    return graph.write()
