"""How the contract of models loads and calls a model; the promises are in `model_inputs`, `…_results`, `…_use`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from lensmount_testing.comparing import Tolerance
from lensmount_testing.pictures import Picture, sample
from lensmount_vision.results.kinds import (
    Classification,
    Detections,
    Embeddings,
    InstanceSegmentation,
    Keypoints,
    OrientedDetections,
    PromptedMasks,
)

LoadModel = Callable[..., Any]

RESULTS: Mapping[str, type] = {
    "object-detection": Detections,
    "open-vocabulary-detection": Detections,
    "instance-segmentation": InstanceSegmentation,
    "keypoint-detection": Keypoints,
    "oriented-object-detection": OrientedDetections,
    "classification": Classification,
    "embedding": Embeddings,
    "interactive-segmentation": PromptedMasks,
}
"""Type of a result by task. Models of another task keep the promises that hold for all."""

_MODELS = pytest.StashKey[dict[str, Any]]()


class ModelBase:
    """What the tests of a model need; see `ModelContract`."""

    model_id: ClassVar[Any] = ""
    backends: ClassVar[tuple[str, ...]] = ()
    load_options: ClassVar[Mapping[str, Any]] = {}
    call_options: ClassVar[Mapping[str, Any]] = {}
    nothing: ClassVar[Mapping[str, Any]] = {"confidence": 1.0}
    tolerance: ClassVar[Tolerance] = Tolerance()
    parity: ClassVar[Tolerance] = Tolerance(pixels=0.5, score=5e-3, mask=0.03, vector=2e-3)

    @pytest.fixture
    def registry(self) -> Any:
        """Where models are loaded from."""
        from lensmount.registry import default

        return default()

    @pytest.fixture
    def model_name(self) -> Any:
        """Id or path of the model; override it where a file has to be made first."""
        if not self.model_id:
            pytest.skip("set `model_id`, or give a fixture `model_name`: this test loads the model itself")
        return self.model_id

    @pytest.fixture
    def model_names(self, model_name: Any) -> Mapping[str, Any]:
        """Id or path by backend; override it where one file does not serve them all."""
        return dict.fromkeys(self.backends, model_name)

    @pytest.fixture
    def load_model(self, registry: Any, model_name: Any) -> Iterator[LoadModel]:
        """Loads the model with further options; what it loads is closed after the test."""
        loaded: list[Any] = []

        def load(name: Any = None, **options: Any) -> Any:
            loaded.append(registry.load(model_name if name is None else name, **{**self.load_options, **options}))
            return loaded[-1]

        yield load
        for model in loaded:
            model.close()

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest, registry: Any, model_name: Any) -> Any:
        """The model, loaded once for all tests of the class."""
        place = request.node.getparent(pytest.Class)
        models = place.stash.setdefault(_MODELS, {})
        if str(model_name) not in models:
            models[str(model_name)] = made = registry.load(model_name, **self.load_options)
            place.addfinalizer(made.close)
        return models[str(model_name)]

    @pytest.fixture
    def picture(self) -> Picture:
        """A picture in which the model finds something, uint8 `(H, W, 3)` BGR."""
        return sample()

    def options(self, model: Any, *pictures: Picture) -> dict[str, Any]:
        """Options of a call: `call_options`, or what the task cannot do without.

        Args:
            model: The model.
            *pictures: The pictures that the options have to fit.
        """
        if self.call_options:
            return dict(self.call_options)
        if model.card.task == "interactive-segmentation":
            height, width = (min(picture.shape[axis] for picture in pictures) for axis in (0, 1))
            return {"point_coordinates": np.array([[(width - 1) / 2, (height - 1) / 2]])}
        if model.card.task == "open-vocabulary-detection":
            return {"classes": ["a disc", "a box"], "confidence": 0.0}
        return {}

    def call(self, model: Any, images: Any, *pictures: Picture, **more: Any) -> Any:
        """Calls the model on images with the options that fit the pictures (those that the images are of)."""
        given = pictures or ((images,) if isinstance(images, np.ndarray) else tuple(images))
        return model(images, **{**self.options(model, *given), **more})

    def results(self, model: Any, images: Any, *pictures: Picture, **more: Any) -> list[Any]:
        """As `call`, for tests that are about something else than what comes back."""
        found = self.call(model, images, *pictures, **more)
        assert isinstance(found, list), f"a call gives {type(found).__name__}, not a list with one result per picture"
        return found


def finds_boxes(model: Any) -> bool:
    """Whether the task's results have boxes."""
    return issubclass(RESULTS.get(model.card.task, object), Detections)
