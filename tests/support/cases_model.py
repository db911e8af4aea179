"""Models that keep every promise, one for each task, and for each promise models that break it."""

from __future__ import annotations

import contextlib
import inspect
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import spots
from contract_cases import Case, classes
from lensmount_testing import ModelContract
from lensmount_testing.isolation import IsolatedRegistry
from lensmount_vision.images.loading import load_many
from lensmount_vision.results.kinds import Detections, Embeddings, Masks


def body(kind=None, task="object-detection", *, plugin=None, **more):
    """A class body that tests a model of this class, made by the registry as any other."""

    def registry(self):
        module = types.ModuleType("spots_case")
        module.build = spots.build if kind is None else kind
        sys.modules["spots_case"] = module
        made = IsolatedRegistry()
        status = made.add_plugin(plugin or spots.plugin("spots_case:build"))
        assert status.state == "active", status.error
        return made

    return {"model_id": f"spots-{task}", "registry": pytest.fixture(registry), **more}


def after(change, task="object-detection", **more):
    """What changes each result of a call."""

    class Broken(spots.Spots):
        def __call__(self, images, **options):
            found = super().__call__(images, **options)
            return [change(result) or result for result in found]

    Broken.__call__.__signature__ = inspect.signature(spots.Spots.__call__)
    return body(Broken, task, **more)


def put(**values):
    """Puts values into a result past its own checks."""

    def change(result):
        for name, value in values.items():
            object.__setattr__(result, name, value(result) if callable(value) else value)

    return change


# --- pictures ---------------------------------------------------------------------------------------------------------


class Single(spots.Spots):
    def __call__(self, images, *, confidence=0.1, max_detections=300, color=None):
        found = super().__call__(images, confidence=confidence, max_detections=max_detections, color=color)
        return found[0] if len(found) == 1 else found


class Sorted(spots.Spots):
    def __call__(self, images, *, confidence=0.1, max_detections=300, color=None):
        found = super().__call__(images, confidence=confidence, max_detections=max_detections, color=color)
        return found[::-1]


class NeedsOne(spots.Spots):
    def light(self, pictures):
        return self.infer_pictures(pictures)[0]["light"]


class Jpeg(spots.Spots):
    def load_images(self, images, color):
        import cv2

        found = super().load_images(images, color)
        return load_many([
            cv2.imdecode(cv2.imencode(".jpg", p.array(), [cv2.IMWRITE_JPEG_QUALITY, 20])[1], 1) if p.path else p
            for p in found
        ])  # fmt: skip


class BgrOnly(spots.Spots):
    def load_images(self, images, color):
        return super().load_images(images, None)


class LastGrey(spots.Spots):
    """Takes the first channel of grey pictures and leaves the others black."""

    def load_images(self, images, color):
        if isinstance(images, np.ndarray) and (images.ndim == 2 or images.shape[-1] == 1):
            grey = images.reshape(*images.shape[:2], 1)
            images = np.concatenate([grey, np.zeros_like(grey), np.zeros_like(grey)], axis=2)
        return super().load_images(images, color)


class BlendsAlpha(spots.Spots):
    def load_images(self, images, color):
        if isinstance(images, np.ndarray) and images.shape[-1] == 4:
            images = (images[..., :3] * (images[..., 3:] / 255)).astype(np.uint8)
        return super().load_images(images, color)


class Halves(spots.Spots):
    def load_images(self, images, color):
        found = super().load_images(images, color)
        for picture in found:
            if 0 in (picture.height // 2, picture.width // 2):
                raise ZeroDivisionError("nothing is left of half a pixel")
        return found


class Drops(spots.Spots):
    def load_images(self, images, color):
        return [picture for picture in super().load_images(images, color) if min(picture.size) > 2]


class OneSize(spots.Spots):
    """Coordinates of all pictures by the size of the first."""

    def answer(self, picture, *rest):
        return super().answer(picture, *rest)

    def quarters(self, size):
        self.first = getattr(self, "first", size)
        return super().quarters(self.first)

    def load_images(self, images, color):
        vars(self).pop("first", None)
        return super().load_images(images, color)


class Forgiving(spots.Spots):
    def load_images(self, images, color):
        if isinstance(images, np.ndarray) and images.dtype != np.uint8:
            images = np.nan_to_num(images).astype(np.uint8)
        return super().load_images(images, color)


class Raw(spots.Spots):
    def load_images(self, images, color):
        if isinstance(images, bytes | str | Path | list | tuple | types.GeneratorType):
            return super().load_images(images, color)
        return super().load_images(np.ascontiguousarray(images[..., :3]), color)


class Blurs(spots.Spots):
    def load_images(self, images, color):
        found = super().load_images(images, color)
        if isinstance(images, np.ndarray):
            images[:2] = 0
        return found


# --- results ----------------------------------------------------------------------------------------------------------


def without_image_size(result):
    if not len(result):
        object.__setattr__(result, "image_size", (1, 1))


def none_where_nothing(result):
    return result if len(result) else types.SimpleNamespace(xyxy=None)


class BadDict(Detections):
    def to_dict(self):
        return {**super().to_dict(), "image_size": np.array(self.image_size)}


class LossyDict(Detections):
    def to_dict(self):
        made = super().to_dict()
        made["objects"] = [{**item, "confidence": round(item["confidence"], 1)} for item in made["objects"]]
        return made


class CornersInCoco(Detections):
    def to_coco(self, **options):
        rows = super().to_coco(**options)
        return [{**row, "bbox": box} for row, box in zip(rows, self.xyxy.tolist(), strict=True)]


class FewInCoco(Detections):
    def to_coco(self, **options):
        return super().to_coco(**options)[1:]


class DrawsOver(Detections):
    def draw(self, image, **options):
        drawn = super().draw(image, **options)
        image[...] = drawn
        return drawn


class DrawsSmall(Detections):
    def draw(self, image, **options):
        return super().draw(image, **options)[::2, ::2]


def into(kind):
    def change(result):
        names = ("xyxy", "confidence", "class_id", "class_names", "image_size", "path")
        # `from_dict` gives what the type of the dict says, which is the parent's
        return kind(**{name: getattr(result, name) for name in names})

    return change


def masks_of_half(result):
    height, width = result.image_size
    half = Masks.from_dense(np.ones((len(result), height // 2, width // 2), bool))
    object.__setattr__(result, "masks", half)


# --- life -------------------------------------------------------------------------------------------------------------


class NoWarmup(spots.Spots):
    warmup = property()


class NoDevice(spots.Spots):
    device = None


class OtherCard(spots.Spots):
    @property
    def package(self):
        from dataclasses import replace

        return replace(self._package, name="another")


class Remembers(spots.Spots):
    """What it saw shifts what it sees."""

    seen = 0.0

    def light(self, pictures):
        self.seen += 0.002 * len(pictures)
        return np.minimum(super().light(pictures) + self.seen, 1)


class WarmupShifts(spots.Spots):
    warm = 0.0

    def warmup(self):
        self.warm = 0.01

    def light(self, pictures):
        return super().light(pictures) + self.warm


class Swallows(spots.Spots):
    def __call__(self, images, *, confidence=0.1, max_detections=300, color=None, **more):
        return super().__call__(images, confidence=confidence, max_detections=max_detections, color=color)


class Unchecked(spots.Spots):
    def __call__(self, images, *, confidence=0.1, max_detections=300, color=None):
        lowest = confidence if isinstance(confidence, float) and 0 <= confidence <= 1 else 0.5
        return super().__call__(images, confidence=lowest, max_detections=max_detections, color=color)


class NoColor(spots.Spots):
    def __call__(self, images, *, confidence=0.1, max_detections=300):
        return super().__call__(images, confidence=confidence, max_detections=max_detections)


class OnePicture(spots.Spots):
    """The picture at hand lies in the model."""

    def answer(self, picture, light, *rest):
        import time

        self.at_hand = light
        time.sleep(0.003)
        return super().answer(picture, self.at_hand, *rest)


def asks_the_network(method):
    def asked(self, *arguments):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=0.2)
        return method(self, *arguments)

    return asked


class Telemetry(spots.Spots):
    load_images = asks_the_network(spots.Spots.load_images)


class HiddenTelemetry(spots.Spots):
    def load_images(self, images, color):
        try:
            import urllib.request

            urllib.request.urlopen("http://127.0.0.1:9/", timeout=0.2)
        except Exception:
            return super().load_images(images, color)


class Journal(spots.Spots):
    def load_images(self, images, color):
        with tempfile.TemporaryFile() as file:
            file.write(b"called")
        return super().load_images(images, color)


class Shells(spots.Spots):
    def load_images(self, images, color):
        subprocess.run([sys.executable, "-c", ""], check=False)
        return super().load_images(images, color)


class RunsOn(spots.Spots):
    def close(self):
        return


class ClosesOnce(spots.Spots):
    def close(self):
        if self._closed:
            raise RuntimeError("closed twice")
        super().close()


class RawClosed(spots.Spots):
    def load_images(self, images, color):
        return load_many(images, color=color)

    def forward(self, batch):
        return {"light": self._session.light(batch)} if self._closed else super().forward(batch)


class OneForAll(spots.Spots):
    everyone: ClassVar[list] = []

    def __init__(self, context):
        super().__init__(context)
        self.everyone.append(self)

    def close(self):
        for model in self.everyone:
            spots.Spots.close(model)


def describing(**changes):
    class Other(IsolatedRegistry):
        def describe(self, name, **options):
            from dataclasses import replace

            return replace(super().describe(name, **options), **changes)

    def registry(self):
        made = Other()
        made.add_plugin(spots.plugin())
        return made

    return {**body(), "registry": pytest.fixture(registry)}


def unexplained():
    class Other(IsolatedRegistry):
        def explain(self, name, **options):
            return super().explain(name, device="cuda:7")

    def registry(self):
        made = Other()
        made.add_plugin(spots.plugin())
        return made

    return {**body(), "registry": pytest.fixture(registry)}


def wrong_backend(self, registry, model_name):
    def load(name=None, *, backend=None, **options):
        return registry.load(model_name, **options)

    return load


FLIP = {"xyxy": lambda r: r.xyxy[:, [2, 3, 0, 1]]}
CASES = [
    Case("test_one_result_for_each_picture", "else than a list of one result", body(Single)),
    Case("test_one_result_for_each_picture", "the first of two pictures", body(Sorted), "order"),
    Case("test_no_pictures_no_results", "Error", body(NeedsOne)),
    Case("test_path_bytes_and_array_agree", "differ", body(Jpeg)),
    Case("test_channel_order", "RGB and BGR differ", body(BgrOnly)),
    Case("test_grey_and_alpha", "three channels differ", body(LastGrey)),
    Case("test_grey_and_alpha", "with and without alpha", body(BlendsAlpha), "alpha"),
    Case("test_smallest_picture", "ZeroDivisionError", body(Halves)),
    Case("test_smallest_picture", "gives 0 results", body(Drops), "drops"),
    Case("test_batches_equal_single_pictures", "together and alone differ", body(OneSize)),
    Case("test_refuses_what_is_no_picture", "DID NOT RAISE", body(Forgiving)),
    Case("test_refuses_what_is_no_picture", "TypeError", body(Raw), "raw"),
    Case("test_leaves_pictures_alone", "was changed", body(Blurs)),
    Case("test_answers_something", "it finds nothing", body(call_options={"confidence": 1.0})),
    Case("test_result_type", "gives Detections, not InstanceSegmentation",
         after(lambda r: Detections(xyxy=r.xyxy, confidence=r.confidence, class_id=r.class_id,
                                    class_names=r.class_names, image_size=r.image_size), "instance-segmentation")),
    Case("test_boxes", "boxes are float64", after(put(xyxy=lambda r: r.xyxy.astype(np.float64)))),
    Case("test_boxes", "not inside the picture", after(put(xyxy=lambda r: r.xyxy + np.float32(3))), "outside"),
    Case("test_boxes", "wrong way round", after(put(**FLIP)), "flipped"),
    Case("test_boxes", "boxes have shape", after(put(xyxy=lambda r: r.xyxy[:1])), "count"),
    Case("test_scores", "outside 0..1", after(put(confidence=lambda r: r.confidence + np.float32(1)))),
    Case("test_scores", "best is not first", after(put(confidence=lambda r: r.confidence[::-1])), "order"),
    Case("test_scores", "scores are float64",
         after(put(confidence=lambda r: r.confidence.astype(np.float64))), "dtype"),
    Case("test_classes", "not among the", after(put(class_id=lambda r: r.class_id + 9))),
    Case("test_classes", "int32, not int64", after(put(class_id=lambda r: r.class_id.astype(np.int32))), "dtype"),
    Case("test_classes", "not those of the card",
         after(put(class_names=("a", "b", "c", "d"))), "names"),
    Case("test_what_the_task_adds", "masks are of", after(masks_of_half, "instance-segmentation")),
    Case("test_what_the_task_adds", "one mask per object",
         after(put(masks=lambda r: r.masks[[0]]), "instance-segmentation"), "count"),
    Case("test_what_the_task_adds", "outside 0..1",
         after(put(keypoints=lambda r: r.keypoints + np.float32(2)), "keypoint-detection"), "keypoints"),
    Case("test_what_the_task_adds", "are not those around",
         after(put(xywhr=lambda r: r.xywhr + np.float32(9)), "oriented-object-detection"), "oriented"),
    Case("test_what_the_task_adds", "one probability per class",
         after(put(probabilities=lambda r: r.probabilities[:2]), "classification"), "classification"),
    Case("test_what_the_task_adds", "not of length 1",
         after(lambda r: Embeddings(vectors=r.vectors * 2, normalized=False), "embedding"), "embedding"),
    Case("test_nothing_found", "gives SimpleNamespace", after(none_where_nothing)),
    Case("test_nothing_found", "not (0, 4)",
         after(lambda r: None if len(r) else put(xyxy=np.zeros(0, np.float32))(r)), "shape"),
    Case("test_nothing_found", "the picture's size is lost", after(without_image_size), "size"),
    Case("test_tells_the_picture", "the result says None", after(put(path=None))),
    Case("test_tells_the_picture", "the picture is (120, 160)", after(put(image_size=(32, 32))), "size"),
    Case("test_to_dict", "not JSON serializable", after(into(BadDict))),
    Case("test_to_dict", "its JSON differ", after(into(LossyDict)), "lossy"),
    Case("test_to_coco", "not x, y, width, height", after(into(CornersInCoco))),
    Case("test_to_coco", "annotations", after(into(FewInCoco)), "count"),
    Case("test_draw", "changes the picture", after(into(DrawsOver))),
    Case("test_draw", "drawn is", after(into(DrawsSmall)), "size"),
    Case("test_has_what_models_have", "returned the wrong thing", body(NoWarmup)),  # refused by the load itself
    Case("test_has_what_models_have", "device is None", body(NoDevice), "device"),
    Case("test_has_what_models_have", "not one of the card's", body(OtherCard), "package"),
    Case("test_describe_and_explain", "embedding", describing(task="embedding")),
    Case("test_describe_and_explain", "no package can run here", unexplained(), "explain"),
    Case("test_warms_up", "after warmup differ", body(WarmupShifts)),
    Case("test_refuses_unknown_options", "DID NOT RAISE", body(Swallows)),
    Case("test_checks_option_values", "confidence=1.5 is taken", body(Unchecked)),
    Case("test_checks_option_values", "no option `color`", body(NoColor), "color"),
    Case("test_same_again", "a later call differ", body(Remembers)),
    Case("test_threads", "among others and alone differ", body(OnePicture)),
    Case("test_opens_no_socket", "opens a socket", body(Telemetry)),
    Case("test_opens_no_socket", "opens a socket", body(HiddenTelemetry), "hidden"),
    Case("test_starts_no_process_and_writes_nothing", "more than compute", body(Journal)),
    Case("test_starts_no_process_and_writes_nothing", "more than compute", body(Shells), "process"),
    Case("test_closes", "DID NOT RAISE", body(RunsOn)),
    Case("test_closes", "closed twice", body(ClosesOnce), "twice"),
    Case("test_closes", "AttributeError", body(RawClosed), "raw"),
    Case("test_models_are_apart", "was closed", body(OneForAll)),
    Case("test_backends_agree", "backends spots-shifted and spots differ",
         body(backends=("spots-again", "spots-shifted"))),
    Case("test_backends_agree", "it runs on 'spots'",
         body(backends=("spots-again",), load_model=pytest.fixture(wrong_backend)), "other"),
]  # fmt: skip

for _task in spots.TASKS:
    _name = "TestKeeps_" + _task.replace("-", "_")
    globals()[_name] = type(_name, (ModelContract,), body(task=_task, backends=("spots", "spots-again")))


class TestKeepsGiven(ModelContract):
    """A fixture `model` in place of a name."""

    @pytest.fixture
    def model(self, isolated_registry):
        isolated_registry.add_plugin(spots.plugin())
        with isolated_registry.load("spots-object-detection") as model:
            yield model


globals().update(classes(ModelContract, CASES))
