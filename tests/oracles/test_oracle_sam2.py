"""SAM 2 checkpoints in Meta's layout, against Meta's image and video predictors.

Released trunks of both versions with random weights, at inputs of 256 and 512 pixels. Tolerances: logits and scores
of pictures differ by the order of sums. Memories of videos are kept in bfloat16 there and here: where a value lies
between two of them, another last digit takes the other one, 4e-3 of it. Our results cut logits at 32, where Meta's
memory cuts them too.
"""

from __future__ import annotations

import numpy as np
import pytest

from lensmount import registry
from oracle_kit import installed, picture, png, randomise, written_by

torch = pytest.importorskip("torch")
build = pytest.importorskip("sam2.build_sam")
pytest.importorskip("torchvision")

WRITER = written_by(next(name for name in ("rf-sam-2", "sam2", "SAM-2") if installed(name)))
TRUNKS = {"tiny": "t", "small": "s", "b_plus": "b+"}
LOGITS, SCORES, VIDEO = 1e-4, 1e-5, 5e-3
FRAMES = 20


def drawn(seed: int, *, video: bool) -> tuple[str, str, int]:
    """Version, trunk and input size."""
    rng = np.random.default_rng((seed, video))
    version = ("2", "2.1")[seed % 2]
    trunk = str(rng.choice(["tiny", "small"] if video else list(TRUNKS)))
    return version, trunk, int(rng.choice([256] if video else [256, 512]))


def write(path, seed: int, version: str, trunk: str, side: int, *, video: bool):
    """A checkpoint as Meta's files are, and the network."""
    folder = "sam2.1" if version == "2.1" else "sam2"
    name = f"configs/{folder}/{folder}_hiera_{TRUNKS[trunk]}.yaml"
    changed = [f"++model.image_size={side}"] + (["++model.fill_hole_area=0"] if video else [])
    make = build.build_sam2_video_predictor if video else build.build_sam2
    network = randomise(make(name, None, device="cpu", hydra_overrides_extra=changed), seed, 0.02)
    torch.save({"model": network.state_dict()}, path)
    return network


def iou(found, expected) -> float:
    union = np.logical_or(found, expected).sum((1, 2))
    return float(np.where(union, np.logical_and(found, expected).sum((1, 2)) / np.maximum(union, 1), 1).min())


def test_pictures(seed, outcome, tmp_path) -> None:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    version, trunk, side = drawn(seed, video=False)
    network = write(tmp_path / "weights.pt", seed, version, trunk, side, video=False)
    predictor = SAM2ImagePredictor(network)
    predictor._bb_feat_sizes = [(side // 4,) * 2, (side // 8,) * 2, (side // 16,) * 2]
    model = registry.load(tmp_path / "weights.pt", backend="torch", device="cpu", image_size=side)
    assert model.card.setting("version") == version and model.card.setting("variant") == trunk
    row = outcome(WRITER, f"`.pt` in Meta's layout, SAM {version}, pictures", "tensor names; trunk and version: shapes")
    rng = np.random.default_rng((seed, 5))
    for i in range(2):
        height, width = (int(v) for v in rng.integers(80, 700, 2))
        rgb = picture(seed + i, height, width)
        path = png(tmp_path / f"{i}.png", rgb)
        predictor.set_image(rgb)
        points = (rng.random((3, 2)) * [width, height]).astype(np.float32)
        labels = np.array([1, 0, 1], np.int32)
        x, y = sorted(rng.random(2) * width), sorted(rng.random(2) * height)
        box = np.array([x[0], y[0], x[1], y[1]], np.float32)
        told = [
            ({"point_coords": points[:1], "point_labels": labels[:1]}, True),
            ({"point_coords": points, "point_labels": labels}, False),
            ({"box": box}, False),
            ({"box": box, "point_coords": points[:2], "point_labels": labels[:2]}, False),
        ]
        low = None
        for prompt, several in told:
            masks, scores, low = predictor.predict(**prompt, multimask_output=several)
            names = {"point_coords": "point_coordinates", "point_labels": "point_labels", "box": "boxes"}
            ours = {names[key]: value for key, value in prompt.items()}
            (found,) = model(path, **ours, multi_mask_output=several)
            row.close("logits", found.logits, low, LOGITS)
            row.close("scores", found.scores, scores, SCORES)
            row.at_least("masks, least IoU", iou(found.masks.dense(), masks.astype(bool)), 0.99)
        again, scores, logits = predictor.predict(
            point_coords=points, point_labels=labels, mask_input=low, multimask_output=False
        )
        (found,) = model(path, point_coordinates=points, point_labels=labels, mask_input=low, multi_mask_output=False)
        row.close("logits", found.logits, logits, LOGITS)
        row.close("scores", found.scores, scores, SCORES)
        row.at_least("masks, least IoU", iou(found.masks.dense(), again.astype(bool)), 0.99)


def clip(folder, seed: int):
    """Frames with two things that move, as JPEGs."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(120, 260, 2))
    ground = picture(seed, height, width)
    rows, columns = np.mgrid[:height, :width]
    for i in range(FRAMES):
        frame = ground.copy()
        for color, at, step in (((230, 40, 40), (0.3, 0.2), 0.015), ((40, 60, 220), (0.6, 0.7), -0.015)):
            inside = (rows - at[0] * height) ** 2 + (columns - (at[1] + step * i) * width) ** 2 < (height / 6) ** 2
            frame[inside] = color
        Image.fromarray(frame).save(folder / f"{i:05}.jpg", quality=95, subsampling=0)
    return height, width


def enlarge(logits, size):
    """Logits at the frame's size, as Meta gives them."""
    return torch.nn.functional.interpolate(torch.from_numpy(logits)[:, None], size, mode="bilinear")[:, 0].numpy()


@pytest.mark.parametrize("later", ["one frame", "two prompted frames", "a correction"])
def test_videos(seed, later, outcome, tmp_path) -> None:
    version, trunk, side = drawn(seed, video=True)
    predictor = write(tmp_path / "weights.pt", seed, version, trunk, side, video=True)
    size = clip(tmp_path / "frames", seed)
    model = registry.load(tmp_path / "weights.pt", backend="torch", device="cpu", image_size=side)
    row = outcome(
        WRITER,
        f"`.pt` in Meta's layout, SAM {version}, {FRAMES} frames: {later}",
        "tensor names; trunk and version: shapes",
    )
    height, width = size
    point, box = [[0.2 * width, 0.3 * height]], [0.55 * width, 0.4 * height, 0.85 * width, 0.8 * height]
    state = predictor.init_state(str(tmp_path / "frames"))
    asked = {0: [(1, {"points": point, "labels": [1]}), (2, {"box": box})]}
    if later == "two prompted frames":
        asked[9] = [(1, {"points": [[0.33 * width, 0.3 * height]], "labels": [1]})]
    for frame, prompts in asked.items():
        for number, prompt in prompts:
            predictor.add_new_points_or_box(state, frame_idx=frame, obj_id=number, **_arrays(prompt))
    stop = 11 if later == "a correction" else None
    expected = {}
    with torch.inference_mode():
        for frame, ids, logits in predictor.propagate_in_video(state, max_frame_num_to_track=stop):
            expected[frame] = dict(zip(ids, logits[:, 0].numpy(), strict=True))
        if stop:
            told = {"points": [[0.1 * width, 0.1 * height]], "labels": [0]}
            predictor.add_new_points_or_box(state, frame_idx=stop, obj_id=1, clear_old_points=True, **_arrays(told))
            for frame, ids, logits in predictor.propagate_in_video(state, start_frame_idx=stop):
                expected[frame] = dict(zip(ids, logits[:, 0].numpy(), strict=True))
    found = {}
    names = {"box": "boxes"}
    if stop:
        tracker = model.track()
        for frame in range(FRAMES):
            path = tmp_path / "frames" / f"{frame:05}.jpg"
            if frame == 0:
                for number, prompt in asked[0]:
                    tracker.prompt(path, object_id=number, **{names.get(k, k): v for k, v in prompt.items()})
            found[frame] = tracker.step(path)
            if frame == stop:
                tracker.prompt(path, object_id=1, **told)
                found[frame] = tracker.step(path)
    else:
        prompts = {
            frame: [{"object_id": n, **{names.get(k, k): v for k, v in prompt.items()}} for n, prompt in each]
            for frame, each in asked.items()
        }
        found = {result.frame: result for result in model.propagate(tmp_path / "frames", prompts)}
    for frame, wanted in expected.items():
        result = found[frame]
        ours = dict(zip(result.object_ids.tolist(), enlarge(result.logits, size), strict=True))
        masks = dict(zip(result.object_ids.tolist(), result.masks.dense(), strict=True))
        for number, logits in wanted.items():
            row.close("logits within 32", ours[number], np.clip(logits, -32, 32), VIDEO)
            row.at_least("masks, least IoU", iou(masks[number][None], logits[None] > 0), 0.99)


def _arrays(prompt):
    return {key: np.array(value, np.int32 if key == "labels" else np.float32) for key, value in prompt.items()}
