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


def tiny_mesh():
    """A graph with the inputs and outputs of MediaPipe's face landmarks: bright pictures are faces.

    Its points lie on a grid of 26 by 18, which the picture's brightness widens.
    """
    graph = Graph()
    x = graph.tensor((1, 192, 192, 3), name="input_1")
    mean = graph.tensor((1, 1, 1, 3))
    graph.operator(1, [x], [mean], {0: i8(1), 1: i32(192), 2: i32(192), 3: i32(192), 4: i32(192)}, kind=5)
    places = np.zeros((468, 3), np.float32)
    places[:, 0], places[:, 1] = 40 + np.arange(468) % 26 * 4, 40 + np.arange(468) // 26 * 4
    weights, bias = np.zeros((1404, 1, 1, 3), np.float32), places.reshape(-1)
    weights[:, 0, 0, :] = (places.reshape(-1, 1) - 40) / 12
    score = np.full((1, 1, 1, 3), 5.0, np.float32)
    graph.inputs, graph.outputs = [x], []
    for kernel, offset, name in ((weights, bias, "conv2d_20"), (score, np.full(1, -0.5, np.float32), "conv2d_30")):
        y = graph.tensor((1, 1, 1, len(offset)), name=name)
        inputs = [mean, graph.constant(kernel), graph.constant(offset)]
        graph.operator(3, inputs, [y], {0: i8(1), 1: i32(1), 2: i32(1)}, kind=1)
        graph.outputs.append(y)
    return graph.write()
