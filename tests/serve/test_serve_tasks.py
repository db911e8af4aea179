"""Masks from prompts, vectors, words and examples, classes and keypoints: each route with a small network."""

from __future__ import annotations

import base64
import io
import json
import lzma
import shutil

import numpy as np
import pytest

from serving import SCENE, serving

pytest.importorskip("torch")


def unpacked(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.decompress(source.read_bytes()))
    return target


# --- SAM 2 ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    import sam2_tiny
    from lensmount import registry

    folder = sam2_tiny.write_folder(tmp_path_factory.mktemp("sam2") / "tiny")
    with serving([f"sam2/hiera_tiny={folder}"]) as client, registry.load(folder) as model:
        client.direct = model
        yield client


PROMPTS = [
    {"points": [{"x": 880, "y": 200, "positive": True}]},
    {"box": {"x": 200, "y": 85, "width": 150, "height": 160}},
    {"points": [{"x": 600, "y": 350, "positive": True}, {"x": 10, "y": 10, "positive": False}]},
]


def segment(client, picture, **more):
    body = {"sam2_version_id": "hiera_tiny", "image": picture, **more}
    status, answer = client.post("/sam2/segment_image", body)
    assert status == 200, answer
    return answer["predictions"]


def best_of(model, scene, **prompt):
    return model.segment_images(scene, **prompt)[0].best


def test_one_best_mask_for_each_prompt_in_order(sam2, scene, picture):
    found = segment(sam2, picture, prompts={"prompts": PROMPTS}, format="rle")
    expected = [
        best_of(sam2.direct, scene, point_coordinates=[[880, 200]]),
        best_of(sam2.direct, scene, boxes=[125, 5, 275, 165]),
        best_of(sam2.direct, scene, point_coordinates=[[600, 350], [10, 10]], point_labels=[1, 0]),
    ]
    assert [item["format"] for item in found] == ["rle"] * 3
    for item, best in zip(found, expected, strict=True):
        assert item["confidence"] == pytest.approx(float(best.scores[0]), abs=1e-4)
        from lensmount_vision.results import Masks

        mask = Masks.from_rle([item["masks"]]).dense()[0]
        assert (mask & best.dense()[0]).sum() / (mask | best.dense()[0]).sum() > 0.98


def test_forms_of_prompts_and_answers(sam2, picture):
    one = segment(sam2, picture, prompts=PROMPTS[0])
    assert one[0]["format"] == "polygon" and len(one[0]["masks"][0][0]) == 2
    assert len(segment(sam2, picture, prompts=PROMPTS)) == 3
    assert len(segment(sam2, picture)) == 1  # no prompt at all points nowhere
    body = {"sam2_version_id": "hiera_tiny", "image": picture, "prompts": PROMPTS, "format": "binary"}
    status, headers, data = sam2.raw(
        "POST", "/sam2/segment_image", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    assert status == 200 and headers["content-type"] == "application/octet-stream"
    arrays = np.load(io.BytesIO(data), allow_pickle=False)
    assert arrays["masks"].shape == (3, 640, 960) and arrays["low_res_masks"].shape[0] == 3


def test_a_picture_that_was_embedded_is_asked_by_name(sam2, picture):
    status, answer = sam2.post(
        "/sam2/embed_image", {"sam2_version_id": "hiera_tiny", "image": picture, "image_id": "mine"}
    )
    assert status == 200 and answer["image_id"] == "mine" and answer["time"] >= 0
    with_picture = segment(sam2, picture, prompts=PROMPTS[0], format="rle")
    without = segment(sam2, None, image_id="mine", prompts=PROMPTS[0], format="rle")
    assert with_picture == without
    status, answer = sam2.post("/sam2/segment_image", {"sam2_version_id": "hiera_tiny", "image_id": "nobody's"})
    assert status == 400 and "image_id" in answer["message"]
    status, answer = sam2.post("/sam2/embed_image", {"sam2_version_id": "hiera_tiny", "image": picture})
    assert len(answer["image_id"]) == 12


def test_prompts_that_are_wrong(sam2, picture):
    outside = {"points": [{"x": 5000, "y": 1, "positive": True}]}
    status, answer = sam2.post(
        "/sam2/segment_image", {"sam2_version_id": "hiera_tiny", "image": picture, "prompts": outside}
    )
    assert status == 400 and "outside the picture" in answer["message"]
    many = [{"points": [{"x": 1, "y": 1, "positive": True}] * 300}]
    status, answer = sam2.post(
        "/sam2/segment_image", {"sam2_version_id": "hiera_tiny", "image": picture, "prompts": many}
    )
    assert status == 400 and "256" in answer["message"]
    assert sam2.post("/infer/object_detection", {"model_id": "sam2/hiera_tiny", "image": picture})[0] == 400


def test_own_route_takes_clicks(sam2, scene, picture):
    status, answer = sam2.post(
        "/v1/predict/sam2/hiera_tiny", {"image": picture["value"], "points": [[880, 200]], "point_labels": [1]}
    )
    assert status == 200 and answer["result"]["type"] == "prompted-masks"
    scores = [item["score"] for item in answer["result"]["objects"]]
    expected = sam2.direct.segment_images(scene, point_coordinates=[[880, 200]], point_labels=[1])[0]
    np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
    status, answer = sam2.post("/v1/predict/sam2/hiera_tiny", {"image": picture["value"], "confidence": 0.5})
    assert status == 400 and "confidence" in answer["detail"]


# --- two towers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def towers(reference_data, tmp_path_factory):
    from lensmount import registry

    folder = tmp_path_factory.mktemp("towers")
    goldens = reference_data / "goldens"
    clip = folder / "clip"
    unpacked(goldens / "clip-tiny-ViT-hf/model.safetensors.xz", clip / "model.safetensors")
    shutil.copyfile(goldens / "clip-tiny-ViT-hf/config.json", clip / "config.json")
    pe = unpacked(goldens / "PE-Core-tiny.pt.xz", folder / "PE-Core-tiny.pt")
    names = [f"clip/ViT-B-16={clip}", f"perception-encoder/PE-Core-L14-336={pe}"]
    with serving(names) as client, registry.load(clip) as one, registry.load(pe) as two:
        client.models = {"/clip": one, "/perception_encoder": two}
        yield client


@pytest.mark.parametrize("family", ["/clip", "/perception_encoder"])
def test_vectors_and_cosines(towers, family, scene, picture):
    model = towers.models[family]
    status, answer = towers.post(f"{family}/embed_image", {"image": [picture, picture]})
    assert status == 200 and {"frame_id", "time", "inference_id"} <= set(answer)
    expected = model.embed_images(scene, normalize=False).vectors[0]
    np.testing.assert_allclose(answer["embeddings"], [expected] * 2, atol=1e-4)
    status, answer = towers.post(f"{family}/embed_text", {"text": ["a cat", "a dog"]})
    np.testing.assert_allclose(
        answer["embeddings"], model.embed_text(["a cat", "a dog"], normalize=False).vectors, atol=1e-4
    )
    cosines = model.compare(scene, ["a cat", "a dog"]).cosine[0]
    _, answer = towers.post(f"{family}/compare", {"subject": picture, "prompt": ["a cat", "a dog"]})
    np.testing.assert_allclose(answer["similarity"], cosines, atol=1e-4)
    _, answer = towers.post(f"{family}/compare", {"subject": picture, "prompt": {"c": "a cat", "d": "a dog"}})
    np.testing.assert_allclose([answer["similarity"][key] for key in "cd"], cosines, atol=1e-4)
    _, answer = towers.post(
        f"{family}/compare",
        {"subject": "a cat", "subject_type": "text", "prompt": [picture, picture], "prompt_type": "image"},
    )
    np.testing.assert_allclose(answer["similarity"], [cosines[0]] * 2, atol=1e-4)
    assert towers.post(f"{family}/embed_image", {"image": [picture] * 9})[0] == 400
    assert towers.post(f"{family}/compare", {"subject": picture, "prompt": [picture]})[0] == 400


def test_own_route_gives_vectors_and_classes(towers, scene, picture):
    model = towers.models["/clip"]
    _, answer = towers.post("/v1/predict/clip/ViT-B-16", {"image": picture["value"]})
    np.testing.assert_allclose(answer["result"]["vectors"][0], model.embed_images(scene).vectors[0], atol=1e-4)
    _, answer = towers.post("/v1/predict/clip/ViT-B-16", {"image": picture["value"], "classes": ["a cat", "a dog"]})
    assert answer["result"]["class_names"] == ["a cat", "a dog"]
    assert sum(answer["result"]["probabilities"]) == pytest.approx(1, abs=1e-3)


# --- OWLv2 ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def owl(reference_data, tmp_path_factory):
    from lensmount import registry

    folder, goldens = tmp_path_factory.mktemp("owl"), reference_data / "goldens/owlv2-tiny-hf"
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(goldens / name, folder / name)
    unpacked(goldens / "model.safetensors.xz", folder / "model.safetensors")
    names = [f"owlv2/base-patch16-ensemble={folder}"]
    with serving(names) as client, registry.load(folder) as model:
        client.direct = model
        yield client


def test_words_and_examples(owl, scene, picture):
    words = ["a star", "a ring"]
    _, answer = owl.post(
        "/v1/predict/owlv2/base-patch16-ensemble", {"image": picture["value"], "classes": words, "confidence": 0.01}
    )
    expected = owl.direct(scene, classes=words, confidence=0.01)[0]
    assert len(answer["result"]["objects"]) == len(expected)
    np.testing.assert_allclose([o["confidence"] for o in answer["result"]["objects"]], expected.confidence, atol=1e-4)
    left, top, right, bottom = expected.xyxy[0].tolist()  # a box that the network proposes
    boxes = [
        {"x": round((left + right) / 2), "y": round((top + bottom) / 2), "w": round(right - left),
         "h": round(bottom - top), "cls": "thing", "negative": False}
    ]  # fmt: skip
    body = {"image": picture, "training_data": [{"image": picture, "boxes": boxes}], "confidence": 0.5}
    status, answer = owl.post("/owlv2/infer", body)
    assert status == 200, answer
    expected = owl.direct.infer(scene, [{"image": scene, "boxes": boxes}], confidence=0.5)[0]
    assert [row["class"] for row in answer["predictions"]] == expected.class_name.tolist()
    body["training_data"][0]["boxes"] = [{**boxes[0], "w": 0}]
    assert owl.post("/owlv2/infer", body)[0] == 400
    assert owl.post("/grounding_dino/infer", {"image": picture, "text": ["a star"]})[0] == 404


# --- keypoints, classes, the older form -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yolo(reference_data, tmp_path_factory):
    folder, goldens = tmp_path_factory.mktemp("yolo"), reference_data / "goldens"
    pose = unpacked(goldens / "yolov8n-pose.pt.xz", folder / "pose.pt")
    classes = unpacked(goldens / "yolov8n-cls.pt.xz", folder / "cls.pt")
    boxes = SCENE.with_name("shapes-nano.onnx")
    with serving([f"coco-pose-detection/1={pose}", f"resnet18={classes}", f"coco/3={boxes}"]) as client:
        yield client


def test_keypoints_and_classes(yolo, picture):
    body = {"model_id": "coco-pose-detection/1", "image": picture, "confidence": 0.0001, "max_detections": 3}
    status, answer = yolo.post("/infer/keypoints_detection", body)
    assert status == 200
    first = answer["predictions"][0]["keypoints"][0]
    assert set(first) == {"x", "y", "confidence", "class_id", "class"}
    _, few = yolo.post("/infer/keypoints_detection", body | {"keypoint_confidence": 1.0})
    assert all(len(row["keypoints"]) < 17 for row in few["predictions"])
    status, answer = yolo.post("/infer/classification", {"model_id": "classifiers/1", "image": picture})
    assert status == 200
    assert answer["top"] == answer["predictions"][0]["class"]
    assert answer["confidence"] == max(row["confidence"] for row in answer["predictions"])


def test_the_older_form(yolo, scene, picture):
    plain = picture["value"].encode()
    boundary = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + scene + b"\r\n--x--\r\n"
    )
    forms = [
        (plain, {"Content-Type": "application/json"}),
        (plain, {"Content-Type": "application/x-www-form-urlencoded"}),
        (boundary, {"Content-Type": "multipart/form-data; boundary=x"}),
    ]
    counts = set()
    for data, headers in forms:
        status, _, answer = yolo.raw("POST", "/coco/3?api_key=K&confidence=40&overlap=30", data, headers)
        assert status == 200, answer
        counts.add(len(json.loads(answer)["predictions"]))
    assert counts == {13}
    for query, most in (("confidence=0.9", 4), ("classes=star", 6), ("max_detections=2", 2)):
        _, _, answer = yolo.raw("POST", f"/coco/3?{query}", *forms[0])
        assert 0 < len(json.loads(answer)["predictions"]) <= most
    _, headers, answer = yolo.raw("POST", "/coco/3?format=image&labels=true&stroke=2", *forms[0])
    assert headers["content-type"] == "image/jpeg" and answer[:3] == b"\xff\xd8\xff"
    _, _, answer = yolo.raw("POST", "/coco/3?format=image_and_json", *forms[0])
    assert base64.b64decode(json.loads(answer)["visualization"])[:3] == b"\xff\xd8\xff"
    for query in ("confidence=often", "colour=red", "format=xml", "image=http://127.0.0.1/", "confidence=nan"):
        status, _, answer = yolo.raw("POST", f"/coco/3?{query}", *forms[0])
        assert status == 400 and json.loads(answer)["message"]
    assert yolo.raw("POST", "/coco/3")[0] == 400
    assert yolo.raw("POST", "/no/model", *forms[0])[0] == 404


# --- the own route ----------------------------------------------------------------------------------------------------


def test_own_route(server, scene, picture, direct):
    from lensmount_vision.results import from_dict

    status, answer = server.post("/v1/predict/shapes-nano", {"image": picture["value"], "classes": ["star"]})
    assert status == 200 and set(answer["seconds"]) == {"decode", "wait", "run"}
    found, expected = from_dict(answer["result"]), direct(classes=["star"])
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)
    assert (found.masks.dense() == expected.masks.dense()).mean() > 0.9999
    form = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + scene + b'\r\n--x\r\n'
        b'Content-Disposition: form-data; name="options"\r\n\r\n{"classes": ["star"]}\r\n--x--\r\n'
    )  # fmt: skip
    status, _, data = server.raw(
        "POST", "/v1/predict/shapes-nano", form, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert status == 200 and json.loads(data)["result"] == answer["result"]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/predict/nothing", {"image": "AA"}, 404, "no model"),
        ("/v1/predict/shapes-nano", {"image": "AAAA"}, 400, "not an image"),
        ("/v1/predict/shapes-nano", {"image": "AAAA", "pionts": []}, 400, "pionts"),
        ("/v1/predict/shapes-nano", {"image": "AAAA", "points": [[1, 2]]}, 400, "points"),
        ("/v1/predict/shapes-nano", {}, 400, "image"),
    ],
)
def test_failures_are_problems(server, path, body, status, said):
    found, headers, data = server.raw("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert found == status and headers["content-type"] == "application/problem+json"
    problem = json.loads(data)
    assert said in problem["detail"] and problem["status"] == status and problem["title"]


def test_the_description_has_examples(server):
    status, page = server.get("/openapi.json")
    assert status == 200
    content = page["paths"]["/v1/predict/{model}"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    assert set(content["application/json"]["examples"]) == {"objects", "words", "clicks"}
    assert "/infer/object_detection" in page["paths"]
    _, listed = server.get("/v1/models")
    assert listed["models"][0] == {"id": "shapes-nano", "task": "instance-segmentation", "loaded": True}
