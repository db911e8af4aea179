"""What a model promises of the results that it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lensmount_testing.comparing import Tolerance, require_same
from lensmount_testing.model_base import RESULTS, ModelBase, finds_boxes
from lensmount_testing.pictures import Picture, encode_png
from lensmount_vision.results.kinds import (
    Classification,
    Detections,
    Embeddings,
    InstanceSegmentation,
    Keypoints,
    OrientedDetections,
    PromptedMasks,
    from_dict,
)

_EXACT = Tolerance(pixels=1e-4, score=1e-6, mask=0.0, vector=1e-6)  # numbers go through text and back


class ModelResults(ModelBase):
    """Tests of what comes out."""

    def test_answers_something(self, model: Any, picture: Picture) -> None:
        """It finds something in the picture of these tests, else they would test nothing."""
        (result,) = self.results(model, picture)
        sized = hasattr(result, "__len__")
        assert not sized or len(result), (
            "it finds nothing: give a fixture `picture` in which it does, or a lower confidence in `call_options`"
        )

    def test_result_type(self, model: Any, picture: Picture) -> None:
        """The result is of the type of its task."""
        wanted = RESULTS.get(model.card.task)
        if wanted is None:
            pytest.skip(f"task {model.card.task!r} has no type of result of its own here")
        (result,) = self.results(model, picture)
        assert isinstance(result, wanted), f"{model.card.task} gives {type(result).__name__}, not {wanted.__name__}"

    def test_boxes(self, model: Any, picture: Picture) -> None:
        """Boxes are float32 `(N, 4)` corners in pixels of the original picture, inside it, the smaller first."""
        result = self._boxes(model, picture)
        boxes = result.xyxy
        assert boxes.dtype == np.float32, f"boxes are {boxes.dtype}, not float32"
        assert boxes.shape == (len(result.confidence), 4), f"boxes have shape {boxes.shape}"
        height, width = picture.shape[:2]
        inside = (boxes >= 0).all() and (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all()
        assert np.isfinite(boxes).all() and inside, f"a box is not inside the picture of {width}x{height}"
        assert (boxes[:, :2] <= boxes[:, 2:]).all(), "a box has its corners the wrong way round"

    def test_scores(self, model: Any, picture: Picture) -> None:
        """Confidences are float32 in 0..1, the best first; scores and probabilities are float32 and finite."""
        (result,) = self.results(model, picture)
        if isinstance(result, Embeddings):
            pytest.skip("embeddings have no scores")
        scores = result.scores if isinstance(result, PromptedMasks) else result.confidence
        assert scores.dtype == np.float32, f"scores are {scores.dtype}, not float32"
        assert scores.ndim == 1 and np.isfinite(scores).all(), "scores are not one finite number per object"
        if isinstance(result, PromptedMasks):
            return
        assert ((scores >= 0) & (scores <= 1)).all(), f"a confidence is outside 0..1: {scores.min()}..{scores.max()}"
        assert (np.diff(scores) <= 0).all(), "the best is not first"

    def test_classes(self, model: Any, picture: Picture) -> None:
        """Class ids are int64 numbers into the class names, which are those of the card where it has any."""
        (result,) = self.results(model, picture)
        if not isinstance(result, Detections | Classification):
            pytest.skip("it tells no classes")
        assert result.class_id.dtype == np.int64, f"class ids are {result.class_id.dtype}, not int64"
        names = result.class_names
        assert (result.class_id >= 0).all(), "a class id is negative"
        within = not names or (result.class_id < len(names)).all()  # bare weights may come without names
        assert within, f"a class id is not among the {len(names)} class names"
        if model.card.classes:
            assert names == model.card.classes, "the result's class names are not those of the card"

    def test_what_the_task_adds(self, model: Any, picture: Picture) -> None:
        """Masks fit the picture and their boxes, keypoints are points, vectors have length 1, and so on."""
        (result,) = self.results(model, picture)
        height, width = picture.shape[:2]
        if isinstance(result, InstanceSegmentation | PromptedMasks):
            masks = result.masks
            assert masks.image_size == (height, width), f"masks are of {masks.image_size}, the picture is not"
            assert len(masks) == len(result), "there is not one mask per object"
            assert masks.dense().shape == (len(result), height, width), "masks cannot be made dense"
        if isinstance(result, Keypoints):
            points = result.keypoints
            assert points.dtype == np.float32 and points.ndim == 3 and points.shape[2] in (2, 3), (
                "keypoints are no (N, K, 3), and no (N, K, 2) without visibility"
            )
            visible = points[..., 2:]
            assert ((visible >= 0) & (visible <= 1)).all(), "a keypoint's visibility is outside 0..1"
        if isinstance(result, OrientedDetections):
            assert result.xywhr.dtype == np.float32 and result.xywhr.shape == (len(result), 5)
            upright = result.corners.min(axis=1).clip(0, (width, height))
            apart = np.abs(result.xyxy[:, :2] - upright).max(initial=0)
            assert apart < 1, "the upright boxes are not those around the rotated ones"
        if isinstance(result, Classification):
            assert result.probabilities.shape == (len(result.class_names),), "there is not one probability per class"
        if isinstance(result, Embeddings):
            assert len(result) == 1 and result.vectors.dtype == np.float32, "an embedding is not one float32 row"
            assert result.normalized, "embeddings are not of length 1 by default"

    def test_nothing_found(self, model: Any, picture: Picture) -> None:
        """Where nothing is found, boxes are `(0, 4)` and all else is as empty, not None and not an error."""
        if not finds_boxes(model):
            pytest.skip("it always answers")
        (result,) = self.results(model, picture, **self.nothing)
        assert isinstance(result, Detections), f"where nothing is found it gives {type(result).__name__}"
        assert len(result) == 0, (
            f"it still finds {len(result)} objects: set `nothing` to options under which it does not"
        )
        assert result.xyxy.shape == (0, 4), f"no boxes have shape {result.xyxy.shape}, not (0, 4)"
        assert result.confidence.shape == (0,) and result.class_id.shape == (0,)
        assert result.image_size == picture.shape[:2], "the picture's size is lost where nothing is found"

    def test_tells_the_picture(self, model: Any, picture: Picture, tmp_path: Path) -> None:
        """A result says how large the original picture is and which file it came from."""
        path = tmp_path / "picture.png"
        path.write_bytes(encode_png(picture))
        (result,) = self.results(model, path, picture)
        if not hasattr(result, "image_size"):
            pytest.skip("its results are not of a picture")
        assert result.image_size == picture.shape[:2], f"the picture is {picture.shape[:2]}, not {result.image_size}"
        assert result.path == str(path), f"the picture came from {path}, the result says {result.path!r}"

    def test_to_dict(self, model: Any, picture: Picture) -> None:
        """`to_dict` is JSON, and `from_dict` makes the same result of it."""
        (result,) = self.results(model, picture)
        text = json.dumps(result.to_dict(), allow_nan=False)
        require_same([from_dict(json.loads(text))], [result], _EXACT, "a result and its JSON")

    def test_to_coco(self, model: Any, picture: Picture) -> None:
        """`to_coco` has one annotation per object, as JSON, with boxes x, y, width, height."""
        (result,) = self.results(model, picture)
        if not hasattr(result, "to_coco"):
            pytest.skip("its results have no form in COCO")
        rows = result.to_coco(image_id=7)
        json.dumps(rows, allow_nan=False)
        assert len(rows) == len(result), f"{len(result)} objects give {len(rows)} annotations"
        assert all(row["image_id"] == 7 and row["score"] <= 1.5 for row in rows)
        if isinstance(result, Detections):
            found = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
            found[:, 2:] += found[:, :2]
            assert np.abs(found - result.xyxy).max(initial=0) < 0.01, "COCO's boxes are not x, y, width, height"

    def test_draw(self, model: Any, picture: Picture) -> None:
        """`draw` gives a BGR picture of the same size and leaves the given one alone."""
        (result,) = self.results(model, picture)
        if not hasattr(result, "draw"):
            pytest.skip("its results cannot be drawn")
        before = picture.copy()
        drawn = result.draw(picture)
        assert drawn.shape == picture.shape and drawn.dtype == np.uint8, f"drawn is {drawn.dtype} {drawn.shape}"
        assert np.array_equal(picture, before), "drawing changes the picture that was given"

    def _boxes(self, model: Any, picture: Picture) -> Detections:
        if not finds_boxes(model):
            pytest.skip("it finds no boxes")
        (result,) = self.results(model, picture)
        assert isinstance(result, Detections), f"{model.card.task} gives {type(result).__name__}"
        return result
