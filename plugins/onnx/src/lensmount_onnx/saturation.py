"""Whether onnxruntime's int8 kernels saturate on this processor, and the setting that keeps them from it.

x86 processors without VNNI add two products of uint8 and int8 in 16 bits: weights beyond -64..64 can saturate, and a
graph that finds everything where it was made loses objects there. `session.x64quantprecision` makes onnxruntime take
kernels that are exact, for weights beyond -64..64 alone: yolov8n then takes 1.4 times as long. Where nothing saturates
it would cost twice the time for nothing, so the kernel is asked first, which holds for every system and release.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

EXACT = "session.x64quantprecision"

# MatMulInteger, opset 13, of an input "a" uint8 (1, 4) and four weights of 127, to "y" int32 (1, 1). As bytes, since
# who only runs graphs has no onnx to make one with.
_GRAPH = (
    b'\x08\x08:X\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01g*\x0f\x08\x04\x08\x01\x10\x03*\x04\x7f\x7f\x7f\x7f'
    b"B\x01bZ\x13\n\x01a\x12\x0e\n\x0c\x08\x02\x12\x08\n\x02\x08\x01\n\x02\x08\x04"
    b"b\x13\n\x01y\x12\x0e\n\x0c\x08\x06\x12\x08\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\r"
)


@lru_cache(maxsize=1)
def saturates() -> bool:
    """Multiplies the largest numbers that there are; takes a millisecond or two."""
    import numpy as np
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(_GRAPH, options, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"a": np.full((1, 4), 255, np.uint8)})
    except Exception:  # a build with few operators: right rather than fast
        return True
    return int(found[0, 0]) != 4 * 255 * 127
