"""Programs for inference-models, as their authors type them, run without an edit."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount.errors import LensmountError, OptionError, UnknownOptionError

# --- the programs that most people start from -------------------------------------------------------------------------


def test_basic_usage(run):
    names = run("""
        import cv2
        import supervision as sv
        from inference_models import AutoModel

        model = AutoModel.from_pretrained("MODEL")
        image = cv2.imread("image.jpg")
        predictions = model(image)
        detections = predictions[0].to_supervision()
        annotated = sv.BoxAnnotator().annotate(image.copy(), detections)
        annotated = sv.MaskAnnotator().annotate(annotated, detections)
        annotated = sv.LabelAnnotator().annotate(annotated, detections)
    """)
    assert len(names["detections"]) == 2 and (names["annotated"] != names["image"]).any()


def test_sam2_point(run):
    names = run("""
        import cv2
        import numpy as np
        from inference_models import AutoModel

        model = AutoModel.from_pretrained("SAM2_ID")
        image = cv2.cvtColor(cv2.imread("image.jpg"), cv2.COLOR_BGR2RGB)
        results = model.segment_images(
            image, point_coordinates=np.array([[80, 80]]), point_labels=np.array([1])
        )
        best = int(results[0].scores.argmax())
        mask = results[0].masks[best].cpu().numpy()
    """)
    assert names["mask"].shape == (240, 320) and names["mask"].dtype == bool
    assert names["results"][0].logits.shape[0] == len(names["results"][0].scores) == 3


def test_sam2_embed_once_and_prompt_often(run):
    names = run("""
        import cv2
        import numpy as np
        from inference_models import AutoModel

        model = AutoModel.from_pretrained("SAM2_ID")
        image = cv2.imread("image.jpg")
        embeddings = model.embed_images(images=image)
        point = model.segment_images(
            embeddings=embeddings, point_coordinates=[np.array([[80, 80]])], point_labels=[np.array([1])]
        )[0]
        box = model.segment_images(
            embeddings=embeddings, boxes=[np.array([40, 40, 120, 120])], multi_mask_output=False
        )[0]
        best = point.logits[int(point.scores.argmax())][None]
        refined = model.segment_images(
            embeddings=embeddings,
            point_coordinates=[np.array([[80, 80], [100, 60]])],
            point_labels=[np.array([1, 0])],
            mask_input=[best],
            multi_mask_output=False,
        )[0]
        size = embeddings[0].image_size_hw
    """)
    assert names["size"] == (240, 320) and names["embeddings"][0].image_hash
    assert names["box"].masks.shape == names["refined"].masks.shape == (1, 240, 320)
    assert names["embeddings"][0].embeddings.ndim == 4 and len(names["embeddings"][0].high_resolution_features) == 2


def test_sam2_several_pictures(run):
    names = run("""
        import cv2
        import numpy as np
        from inference_models import AutoModel

        model = AutoModel.from_pretrained("SAM2_ID")
        images = [cv2.imread("image.jpg"), cv2.imread("other.jpg")[:200]]
        results = model.segment_images(
            images,
            point_coordinates=[np.array([[80, 80]]), np.array([[200, 80]])],
            point_labels=[np.array([1]), np.array([1])],
        )
        shapes = [tuple(result.masks.shape) for result in results]
    """)
    assert names["shapes"] == [(3, 240, 320), (3, 200, 320)]


def test_sam2_both_caches(run):
    names = run("""
        import cv2
        import numpy as np
        from inference_models import AutoModel
        from inference_models.models.sam2.cache import (
            Sam2ImageEmbeddingsInMemoryCache,
            Sam2LowResolutionMasksInMemoryCache,
        )

        embeddings_cache = Sam2ImageEmbeddingsInMemoryCache.init(size_limit=10)
        masks_cache = Sam2LowResolutionMasksInMemoryCache.init(size_limit=50, send_to_cpu=True)
        model = AutoModel.from_pretrained(
            "SAM2_ID",
            sam2_image_embeddings_cache=embeddings_cache,
            sam2_low_resolution_masks_cache=masks_cache,
        )
        image = cv2.imread("image.jpg")
        first = model.segment_images(
            image, point_coordinates=np.array([[80, 80]]), point_labels=np.array([1]),
            use_embeddings_cache=True, use_mask_input_cache=True,
        )[0]
        more = dict(point_coordinates=np.array([[80, 80], [100, 60]]), point_labels=np.array([1, 0]))
        refined = model.segment_images(image, **more)[0]
        fresh = model.segment_images(image, **more, use_mask_input_cache=False)[0]
        read = model.segment_images(image, **more, load_from_mask_input_cache=False)[0]
    """)
    assert len(names["embeddings_cache"]) == 1 and len(names["masks_cache"]) > 0
    refined, fresh, read = (np.asarray(names[name].logits) for name in ("refined", "fresh", "read"))
    assert not np.array_equal(refined, fresh), "the earlier mask was not used by default"
    assert np.array_equal(fresh, read)


def test_sam2_takes_arrays_as_rgb(run):
    names = run("""
        import cv2
        import numpy as np
        from inference_models import AutoModel

        model = AutoModel.from_pretrained("SAM2_ID")
        image = cv2.imread("image.jpg")
        ask = dict(point_coordinates=np.array([[80, 80]]), point_labels=np.array([1]), use_mask_input_cache=False)
        plain = model.segment_images(image, **ask)[0].logits
        rgb = model.segment_images(image, input_color_format="rgb", **ask)[0].logits
        bgr = model.segment_images(image[..., ::-1].copy(), input_color_format="bgr", **ask)[0].logits
        wrong = model.segment_images(image, input_color_format="bgr", **ask)[0].logits
    """)
    plain, rgb, bgr, wrong = (np.asarray(names[name]) for name in ("plain", "rgb", "bgr", "wrong"))
    assert (
        np.array_equal(plain, rgb) and np.allclose(plain, bgr, atol=1e-4) and not np.allclose(plain, wrong, atol=1e-4)
    )


# --- further ones -----------------------------------------------------------------------------------------------------

FURTHER = {
    "backend by enum": """
        import numpy as np
        from inference_models import AutoModel, BackendType
        model = AutoModel.from_pretrained("MODEL", backend=BackendType.ONNX, device="cpu")
        result = model(np.zeros((64, 64, 3), np.uint8))
    """,
    "several backends": """
        import numpy as np
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL", backend=["trt", "onnx"])
        result = model(np.zeros((64, 64, 3), np.uint8))
    """,
    "torch device and precision": """
        import numpy as np, torch
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL", device=torch.device("cpu"), quantization="fp32")
        result = model(np.zeros((64, 64, 3), np.uint8))
    """,
    "providers": """
        import numpy as np
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL", onnx_execution_providers=["CPUExecutionProvider"])
        result = model(np.zeros((64, 64, 3), np.uint8))
    """,
    "a batch of arrays": """
        import cv2
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL")
        result = model([cv2.imread("image.jpg"), cv2.imread("other.jpg")])
        assert len(result) == 2 and len(result[1]) == 2
    """,
    "a tensor": """
        import cv2, torch
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL")
        tensor = torch.from_numpy(cv2.cvtColor(cv2.imread("image.jpg"), cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
        result = model(tensor)
        assert len(result[0]) == 2
    """,
    "colour": """
        import cv2
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL")
        result = model(cv2.cvtColor(cv2.imread("image.jpg"), cv2.COLOR_BGR2RGB), input_color_format="rgb")
        assert len(result[0]) == 2
    """,
    "options of a call": """
        import cv2
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL")
        result = model(
            cv2.imread("image.jpg"), confidence=0.6, iou_threshold=0.45, max_detections=1, class_agnostic_nms=True
        )
        assert len(result[0]) == 1
    """,
    "the three stages": """
        import cv2
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL")
        inputs, metadata = model.pre_process(cv2.imread("image.jpg"))
        raw = model.forward(inputs)
        result = model.post_process(raw, metadata, confidence=0.5)
        assert len(result[0]) == 2
    """,
    "values of a prediction": """
        import cv2
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL")
        result = model.infer(cv2.imread("image.jpg"))
        boxes = result[0].xyxy.cpu().numpy()
        names = [model.class_names[i] for i in result[0].class_id.tolist()]
        scores = [float(score) for score in result[0].confidence]
        assert boxes.shape == (2, 4) and len(names) == len(scores) == 2
    """,
    "a loop over a prediction": """
        import cv2
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL")
        result = model(cv2.imread("image.jpg"))
        for xyxy, mask, class_id, confidence, _, data, _ in result[0]:
            x1, y1, x2, y2 = xyxy.tolist()
            assert x2 > x1 and mask.sum() > 0 and 0 < float(confidence) <= 1
    """,
    "masks as run lengths": """
        import cv2
        from inference_models import AutoModel, InstancesRLEMasks
        model = AutoModel.from_pretrained("MODEL")
        result = model(cv2.imread("image.jpg"), mask_format="rle")
        assert isinstance(result[0].mask, InstancesRLEMasks)
        assert result[0].mask.to_coco_rle_masks()[0]["size"] == [240, 320]
    """,
    "kinds of models and results": """
        import cv2
        from inference_models import AutoModel, InstanceDetections, InstanceSegmentationModel
        model = AutoModel.from_pretrained("MODEL")
        assert isinstance(model, InstanceSegmentationModel)
        result = model(cv2.imread("image.jpg"))
        assert all(isinstance(one, InstanceDetections) for one in result)
    """,
    "filtering in supervision": """
        import cv2
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL")
        result = model(cv2.imread("image.jpg"))
        detections = result[0].to_supervision()
        assert len(detections[detections.confidence > 0.99]) <= len(detections)
        assert len(detections[detections.class_id == detections.class_id[0]]) >= 1
    """,
    "tracks in metadata": """
        import cv2
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL")
        result = model(cv2.imread("image.jpg"))
        for number, row in enumerate(result[0].bboxes_metadata):
            row["tracker_id"] = number
        assert result[0].to_supervision().tracker_id.tolist() == [0, 1]
    """,
    "frames of a video": """
        import cv2
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("MODEL")
        result = []
        for frame in [cv2.imread("image.jpg")] * 3:
            result += model(frame, confidence=0.4)
        assert [len(one) for one in result] == [2, 2, 2]
    """,
    "a class of one family": """
        import cv2
        import numpy as np
        from inference_models.models.sam2.sam2_torch import SAM2Torch
        model = SAM2Torch.from_pretrained("SAM2_ID", device="cpu")
        result = model.segment_images(cv2.imread("image.jpg"), boxes=np.array([40, 40, 120, 120]))
        assert result[0].masks.shape == (3, 240, 320)
    """,
    "errors by their names": """
        from inference_models import AutoModel
        from inference_models.errors import BaseInferenceModelsError, ModelNotFoundError
        result = None
        try:
            AutoModel.from_pretrained("no-such-model-at-all", weights_provider="local-disk")
        except BaseInferenceModelsError as error:
            result = error
    """,
    "describing": """
        from inference_models import AutoModel
        AutoModel.describe_model("MODEL")
        AutoModel.describe_compute_environment()
        result = True
    """,
    "caches that keep nothing": """
        import cv2
        import numpy as np
        from inference_models import AutoModel
        from inference_models.models.sam2.cache import Sam2ImageEmbeddingsCacheNullObject
        model = AutoModel.from_pretrained("SAM2_ID", sam2_image_embeddings_cache=Sam2ImageEmbeddingsCacheNullObject())
        result = model.embed_images(cv2.imread("image.jpg"), use_embeddings_cache=False)
    """,
}


@pytest.mark.parametrize("name", FURTHER)
def test_further_snippets(run, name):
    if "torch" in FURTHER[name]:
        pytest.importorskip("torch")
    assert run(FURTHER[name])["result"] is not None


REFUSED = {
    "a provider with settings": (
        """
        from inference_models import AutoModel
        provider = ("TensorrtExecutionProvider", {"trt_fp16_enable": True})
        AutoModel.from_pretrained("MODEL", onnx_execution_providers=[provider])
        """,
        OptionError,
        "precision=",
    ),
    "an access manager": (
        """
        from inference_models import AutoModel
        AutoModel.from_pretrained("MODEL", model_access_manager=object())
        """,
        OptionError,
        "plugin",
    ),
    "logits at full size": (
        """
        import cv2
        import numpy as np
        from inference_models import AutoModel
        model = AutoModel.from_pretrained("SAM2_ID")
        model.segment_images(cv2.imread("image.jpg"), boxes=np.array([40, 40, 120, 120]), return_logits=True)
        """,
        OptionError,
        ".logits",
    ),
    "hashes of the caller": (
        """
        import cv2
        from inference_models import AutoModel
        AutoModel.from_pretrained("SAM2_ID").embed_images(cv2.imread("image.jpg"), image_hashes=["a"])
        """,
        OptionError,
        "content",
    ),
    "a misspelt parameter": (
        """
        from inference_models import AutoModel
        AutoModel.from_pretrained("MODEL", quantisation="fp16")
        """,
        UnknownOptionError,
        "quantisation",
    ),
    "a model of another family": (
        """
        from inference_models.models.sam2.sam2_torch import SAM2Torch
        SAM2Torch.from_pretrained("MODEL")
        """,
        LensmountError,
        "AutoModel",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_had_is_refused_by_name(run, name):
    snippet, kind, says = REFUSED[name]
    with pytest.raises(kind) as caught:
        run(snippet)
    assert says in str(caught.value)
