"""TFLite graphs of one step or two: each operator that becomes ONNX, in the forms in which files have it."""

from __future__ import annotations

import numpy as np

from lensmount_mediapipe.operators import windows
from tflite_bytes import Graph, Ints, Scalar, i8, i32
from tiny_faces import VARIANTS, tiny_face

TRUE = Scalar("?", True)


class Steps:
    """A graph of one picture, built step by step."""

    def __init__(self, shape, seed=0):
        self.rng = np.random.default_rng(seed)
        self.graph = Graph()
        self.x = self.graph.tensor(shape, name="x")
        self.graph.inputs = [self.x]
        self.shape = shape

    def constant(self, shape):
        return self.graph.constant(self.rng.normal(size=shape).astype(np.float32))

    def add(self, code, inputs, shape, options=None, kind=1):
        y = self.graph.tensor(shape)
        self.graph.operator(code, inputs, [y], options, kind=kind)
        return y

    def bytes(self, *outputs):
        for number in outputs:
            self.graph.tensors[number][3] = f"y{number}"
        self.graph.outputs = list(outputs)
        return self.graph.write()


def convolutions(deep, same, stride, gap, kernel, activation):
    height, width, channels, made = 11, 14, 3, 6
    steps = Steps((1, height, width, channels))
    rows, columns = (windows(size, k, stride, gap, same)[0] for size, k in ((height, kernel), (width, kernel + 1)))
    shape = (1, kernel, kernel + 1, made) if deep else (made, kernel, kernel + 1, channels)
    inputs = [steps.x, steps.constant(shape), steps.constant((made,))]
    options = {0: i8(0 if same else 1), 1: i32(stride), 2: i32(stride)}
    options |= (
        {3: i32(2), 4: i8(activation), 5: i32(gap), 6: i32(gap)}
        if deep
        else {3: i8(activation), 4: i32(gap), 5: i32(gap)}
    )
    return steps.bytes(steps.add(4 if deep else 3, inputs, (1, rows, columns, made), options, 2 if deep else 1))


def pools(code, same, kernel, stride):
    steps = Steps((1, 9, 12, 4))
    rows, columns = (windows(size, kernel, stride, 1, same)[0] for size in (9, 12))
    options = {0: i8(0 if same else 1), 1: i32(stride), 2: i32(stride), 3: i32(kernel), 4: i32(kernel)}
    return steps.bytes(steps.add(code, [steps.x], (1, rows, columns, 4), options, 5))


def resized(aligned, halves, size):
    steps = Steps((1, 5, 7, 2))
    to = steps.graph.constant(np.array(size, np.int32))
    options = {number: TRUE for number, wanted in ((2, aligned), (3, halves)) if wanted}
    return steps.bytes(steps.add(23, [steps.x, to], (1, *size, 2), options, 15))


def pair(code, kind, other, activation=0):
    steps = Steps((1, 5, 6, 3))
    y = steps.constant(other) if other else steps.x
    return steps.bytes(steps.add(code, [steps.x, y], (1, 5, 6, 3), {0: i8(activation)}, kind))


def after_a_convolution(code, kind, shape, options, *constants, to=None):
    """A step on what a convolution gives: in the order that ONNX's convolutions have."""
    steps = Steps((1, 8, 6, 3))
    inputs = [steps.x, steps.constant((8, 1, 1, 3)), steps.constant((8,))]
    y = steps.add(3, inputs, (1, 8, 6, 8), {0: i8(0), 1: i32(1), 2: i32(1)})
    more = [steps.graph.constant(array) for array in constants]
    return steps.bytes(steps.add(code, [y, *more], shape, options, kind))


def joined(axis):
    steps = Steps((1, 4, 5, 6))
    y = steps.add(19, [steps.x], (1, 4, 5, 6))
    inputs = [y, steps.constant((8, 1, 1, 6)), steps.constant((8,))]
    z = steps.add(3, inputs, (1, 4, 5, 8), {0: i8(0), 1: i32(1), 2: i32(1)}) if axis in (3, -1) else steps.x
    sizes = [1, 4, 5, 6]
    sizes[axis] = sizes[axis] * 2 if z == steps.x else 14
    return steps.bytes(steps.add(2, [y, z], tuple(sizes), {0: i32(axis)}, 10))


def stored(sparse):
    """Weights in half, and sparsely: what is undone before a run."""
    steps = Steps((1, 6, 6, 3))
    weights = steps.rng.normal(size=(4, 1, 1, 3)).astype(np.float16)
    fields = {}
    data = weights
    if sparse:
        kept = np.ones((4, 3), bool)
        kept[1, :2] = kept[3, 0] = False
        weights[:, 0, 0][~kept] = 0
        data = weights[:, 0, 0][kept]
        level = {0: i8(1), 2: Scalar("B", 1), 3: {0: Ints(np.r_[0, kept.sum(1).cumsum()].tolist())}}
        level |= {4: Scalar("B", 1), 5: {0: Ints(np.nonzero(kept)[1].tolist())}}
        flat = [{0: i8(0), 1: i32(size)} for size in (4, 1, 1)]
        fields = {"f6": {0: Ints([0, 1, 2, 3]), 2: [*flat, level]}}
    kernel = steps.graph.tensor(weights.shape, "float16", data=data, **fields)
    if sparse:
        dense = steps.graph.tensor(weights.shape, "float16")
        steps.graph.operator(124, [kernel], [dense], {}, kind=99)
        kernel = dense
    wide = steps.add(6, [kernel], weights.shape, {}, 38)
    inputs = [steps.x, wide, steps.constant((4,))]
    return steps.bytes(steps.add(3, inputs, (1, 6, 6, 4), {0: i8(0), 1: i32(1), 2: i32(1)}))


CASES = {
    **{
        f"{'depthwise' if deep else 'conv'} same={same} stride={stride} gap={gap} kernel={kernel} act={act}": (
            convolutions(deep, same, stride, gap, kernel, act)
        )
        for deep in (False, True)
        for same in (False, True)
        for stride, gap, kernel, act in ((1, 1, 1, 0), (2, 1, 3, 1), (2, 1, 4, 3), (1, 2, 3, 0), (3, 1, 5, 2))
    },
    **{
        f"pool {code} same={same} {kernel}/{stride}": pools(code, same, kernel, stride)
        for code in (1, 17)
        for same in (False, True)
        for kernel, stride in ((2, 2), (3, 2), (3, 1))
    },
    **{
        f"resize aligned={aligned} halves={halves} {size}": resized(aligned, halves, size)
        for aligned, halves in ((False, False), (True, False), (False, True))
        for size in ((10, 14), (8, 9), (3, 4))
    },
    "add": pair(0, 11, None),
    "add one for each channel": pair(0, 11, (3,), activation=1),
    "add a picture": pair(0, 11, (1, 5, 6, 3), activation=2),
    "add a column": pair(0, 11, (1, 5, 1, 1)),
    "mul": pair(18, 21, (3,)),
    "mul a number": pair(18, 21, (1,), activation=3),
    "sub": pair(41, 28, (6, 3)),
    "relu": after_a_convolution(19, 1, (1, 8, 6, 8), None),
    "relu6": after_a_convolution(21, 1, (1, 8, 6, 8), None),
    "logistic": after_a_convolution(14, 1, (1, 8, 6, 8), None),
    "tanh": after_a_convolution(28, 1, (1, 8, 6, 8), None),
    "add after a convolution": after_a_convolution(0, 11, (1, 8, 6, 8), {}, np.arange(8, dtype=np.float32)),
    "prelu": after_a_convolution(54, 1, (1, 8, 6, 8), None, np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 1, 8)),
    "pad": after_a_convolution(34, 22, (1, 9, 9, 11), {}, np.array([[0, 0], [0, 1], [2, 1], [0, 3]], np.int32)),
    "reshape": after_a_convolution(22, 17, (1, 96, 4), {0: Ints([1, 96, 4])}, np.array([1, 96, 4], np.int32)),
    "depth to space": after_a_convolution(5, 94, (1, 16, 12, 2), {0: i32(2)}),
    **{f"join along {axis}": joined(axis) for axis in (1, 2, 3, -1)},
    "stored in half": stored(sparse=False),
    "stored sparsely": stored(sparse=True),
    **{f"tiny {variant}": tiny_face(variant) for variant in VARIANTS},
}
