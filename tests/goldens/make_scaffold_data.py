"""Makes the data files of the template of a model: `python tests/goldens/make_scaffold_data.py`.

The graph is made by the template's own `tools/make_graph.py`; the picture is drawn here.
"""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path

import cv2
import numpy as np

TEMPLATE = Path(__file__).resolve().parents[2] / "libraries/testing/src/lensmount_testing/scaffold/templates/model"
WEIGHTS = TEMPLATE / "src/PACKAGE/data/weights.onnx"
PICTURE = TEMPLATE / "picture.png"


def graph() -> bytes:
    """What the template's tool makes."""
    with tempfile.TemporaryDirectory() as folder:
        tool = Path(folder) / "tools" / "make_graph.py"
        tool.parent.mkdir()
        tool.write_text((TEMPLATE / "tools/make_graph.py.tmpl").read_text(encoding="utf-8"), encoding="utf-8")
        return runpy.run_path(str(tool))["make"]()


def picture() -> bytes:
    """A PNG file, 480x320: balloons in red, green and blue, and things of duller colours between them."""
    rows, columns = np.mgrid[:320, :480]
    drawn = np.stack([205 - rows / 8, 190 - rows / 6, 170 + columns / 16], axis=2).round().astype(np.uint8)
    cv2.rectangle(drawn, (0, 250), (479, 319), (96, 128, 112), -1)
    cv2.rectangle(drawn, (205, 170), (285, 290), (70, 90, 130), -1)
    cv2.circle(drawn, (410, 55), 34, (120, 220, 245), -1)
    balloons = [((80, 90), (42, 52), (25, 25, 225)), ((150, 185), (34, 42), (30, 190, 20)),
                ((245, 80), (38, 47), (215, 50, 10)), ((340, 165), (40, 50), (35, 15, 240)),
                ((430, 190), (30, 37), (40, 205, 45))]  # fmt: skip
    for (x, y), axes, colour in balloons:
        cv2.line(drawn, (x, y + axes[1]), (x + 12, 300), (60, 60, 60), 1)
        cv2.ellipse(drawn, (x, y), axes, 0, 0, 360, colour, -1)
    good, data = cv2.imencode(".png", drawn, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert good
    return data.tobytes()


if __name__ == "__main__":
    for path, content in ((WEIGHTS, graph()), (PICTURE, picture())):
        path.write_bytes(content)
        print(f"{path.name}: {len(content)} bytes")
