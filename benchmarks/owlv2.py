"""OWLv2 at the size of base-patch16, on random weights: import, network, preprocessing, few-shot cold and warm.

    python benchmarks/owlv2.py [--rounds 3] [--references 2] [--no-transformers]
    python benchmarks/owlv2.py --memory 1000

Where transformers is installed its classes run on the same weights, turn by turn with ours: on a busy machine only
ratios within one run mean something. The text tower is small, since nothing here times it. `--memory` caches that many
pictures, with random numbers for the network's answers, and prints what the process grows by.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lensmount import registry
from lensmount_bench.machine import memory as process_memory
from lensmount_owlv2.options import LoadOptions
from lensmount_vision.images.decoding import import_cv2

WIDTH, LAYERS, HEADS, HIDDEN, PATCH, SIDE, DIMENSION, TEXT_LAYERS = 768, 12, 12, 3072, 16, 60, 512, 1


def weights(random: np.random.Generator) -> dict[str, Any]:
    import torch

    state: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int, spread: float | None = None, center: float = 0.0) -> None:
        scale = spread if spread is not None else 1 / shape[-1] ** 0.5
        state[name] = torch.from_numpy(random.standard_normal(shape, np.float32)).mul_(scale).add_(center)

    def linear(name: str, out: int, into: int) -> None:
        put(f"{name}.weight", out, into)
        put(f"{name}.bias", out, spread=0.1)

    def norm(name: str, width: int) -> None:
        put(f"{name}.weight", width, spread=0.1, center=1.0)
        put(f"{name}.bias", width, spread=0.1)

    for tower, layers, width in (("vision", LAYERS, WIDTH), ("text", TEXT_LAYERS, DIMENSION)):
        for number in range(layers):
            at = f"owlv2.{tower}_model.encoder.layers.{number}"
            for kind in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear(f"{at}.self_attn.{kind}", width, width)
            norm(f"{at}.layer_norm1", width)
            norm(f"{at}.layer_norm2", width)
            linear(f"{at}.mlp.fc1", 4 * width, width)
            linear(f"{at}.mlp.fc2", width, 4 * width)
    vision, text = "owlv2.vision_model", "owlv2.text_model"
    put(f"{vision}.embeddings.class_embedding", WIDTH, spread=0.5)
    put(f"{vision}.embeddings.patch_embedding.weight", WIDTH, 3, PATCH, PATCH, spread=0.03)
    put(f"{vision}.embeddings.position_embedding.weight", SIDE * SIDE + 1, WIDTH, spread=0.3)
    norm(f"{vision}.pre_layernorm", WIDTH)
    norm(f"{vision}.post_layernorm", WIDTH)
    put(f"{text}.embeddings.token_embedding.weight", 49408, DIMENSION, spread=0.02)
    put(f"{text}.embeddings.position_embedding.weight", 16, DIMENSION, spread=0.02)
    norm(f"{text}.final_layer_norm", DIMENSION)
    put("owlv2.text_projection.weight", DIMENSION, DIMENSION)
    put("owlv2.visual_projection.weight", DIMENSION, WIDTH)
    put("owlv2.logit_scale", spread=0.0, center=2.66)
    norm("layer_norm", WIDTH)
    linear("class_head.dense0", DIMENSION, WIDTH)
    linear("class_head.logit_shift", 1, WIDTH)
    linear("class_head.logit_scale", 1, WIDTH)
    for head, out in (("box_head", 4), ("objectness_head", 1)):
        linear(f"{head}.dense0", WIDTH, WIDTH)
        linear(f"{head}.dense1", WIDTH, WIDTH)
        linear(f"{head}.dense2", out, WIDTH)
    return state


def config() -> dict[str, Any]:
    text = {"hidden_size": DIMENSION, "intermediate_size": 4 * DIMENSION, "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": 8, "max_position_embeddings": 16, "vocab_size": 49408}  # fmt: skip
    vision = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS, "image_size": SIDE * PATCH, "patch_size": PATCH}  # fmt: skip
    return {"model_type": "owlv2", "projection_dim": DIMENSION, "text_config": text, "vision_config": vision}


def timed(work: Any, rounds: int) -> tuple[float, float]:
    """Median and best of some rounds, ms."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), min(times)


def imports(rounds: int) -> None:
    lines = {
        "torch": "import torch",
        "torch + this plugin's network": "import torch, lensmount_owlv2.network, lensmount_owlv2.model",
        "torch + transformers' Owlv2": "import torch, transformers.models.owlv2.modeling_owlv2",
    }
    if find_spec("transformers") is None:
        del lines["torch + transformers' Owlv2"]
    best = dict.fromkeys(lines, float("inf"))
    for _ in range(rounds):
        for name, code in lines.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            best[name] = min(best[name], time.perf_counter() - start)
    for name, seconds in best.items():
        print(f"import {name}: {seconds:.2f} s (best of {rounds})")


def networks(model: Any, state: Any, rounds: int) -> None:
    import torch
    from transformers.models.owlv2.configuration_owlv2 import Owlv2Config
    from transformers.models.owlv2.modeling_owlv2 import Owlv2ForObjectDetection

    reference = Owlv2ForObjectDetection(Owlv2Config(**config())).eval()
    reference.load_state_dict(state, strict=False)
    batch = np.random.default_rng(1).standard_normal((1, 3, SIDE * PATCH, SIDE * PATCH)).astype(np.float32)

    def theirs() -> Any:
        with torch.inference_mode():
            features, _ = reference.image_embedder(pixel_values=torch.from_numpy(batch))
            flat = features.flatten(1, 2)
            return (
                reference.objectness_predictor(flat),
                reference.box_predictor(flat, features),
                reference.class_predictor(flat)[1],
            )

    expected, raw = theirs(), model.forward(batch)
    for name, value in zip(("objectness_logits", "boxes", "class_embeds"), expected, strict=True):
        off = np.abs(raw[name] - value.numpy()).max() / np.ptp(value.numpy())
        print(f"{name}: largest difference from transformers {off:.1e} of its range")
    own, other = [], []
    for _ in range(rounds):
        own.append(timed(lambda: model.forward(batch), 1)[0])
        other.append(timed(theirs, 1)[0])
    ratio = statistics.median(b / a for a, b in zip(own, other, strict=True))
    print(f"image tower: ours {min(own):.0f} ms, transformers {min(other):.0f} ms (best of {rounds}); "
          f"median ratio of neighbouring runs {ratio:.2f}")  # fmt: skip


def few_shot(model: Any, folder: Path, references: int, rounds: int) -> None:
    cv2, random = import_cv2(), np.random.default_rng(2)
    paths = []
    for number in range(references + 1):
        small = random.integers(0, 255, (27, 48, 3)).astype(np.uint8)
        image = cv2.resize(small, (1920, 1080), interpolation=cv2.INTER_CUBIC)
        paths.append(folder / f"{number}.jpg")
        cv2.imwrite(str(paths[-1]), image)
    start = time.perf_counter()
    detector = model.fit(
        [{"image": path, "boxes": [{"x": 960, "y": 540, "w": 900, "h": 900, "cls": "x"}]} for path in paths[:-1]],
        on_unmatched="nearest",
    )
    print(f"fit, {references} reference pictures in one run: {(time.perf_counter() - start) * 1e3:.0f} ms")
    data = []
    for path, seen in zip(paths, detector.image_embeddings.values(), strict=False):
        rows = np.linspace(0, 299, 50 // references).astype(int)
        boxes = []
        for number, (x1, y1, x2, y2) in enumerate((seen.boxes[rows] * 1920).tolist()):
            box = {"x": (x1 + x2) / 2, "y": min((y1 + y2) / 2, 1079), "w": x2 - x1, "h": y2 - y1}
            boxes.append({**box, "cls": f"class {number % 5}"})
        data.append({"image": path, "boxes": boxes})
    count = sum(len(item["boxes"]) for item in data)
    model.reset_cache()
    array = cv2.imread(str(paths[-1]))
    content = paths[-1].read_bytes()

    def call(source: Any) -> Any:
        return model.infer(source, training_data=data, on_unmatched="nearest", confidence=0.99)

    start = time.perf_counter()
    call(paths[-1])
    cold = (time.perf_counter() - start) * 1e3
    call(array)
    call(content)
    fitted = model.fit(data, on_unmatched="nearest")
    print(f"few-shot, 5 classes, {count} references, 300 proposals of 1080p: cold {cold:.0f} ms")
    for name, work in {
        "path": lambda: call(paths[-1]),
        "encoded bytes": lambda: call(content),
        "array": lambda: call(array),
        "path, fitted detector": lambda: fitted(paths[-1]),
    }.items():
        middle, best = timed(work, 50 * rounds)
        print(f"  warm, {name}: median {middle:.2f} ms, best {best:.2f} ms")
    fitted.save(folder / "detector")
    print(f"saved: {sum(path.stat().st_size for path in (folder / 'detector').iterdir()) / 1e6:.1f} MB")
    middle, best = timed(lambda: model.preprocess(array), 3 * rounds)
    print(f"preprocessing of a 1080p array: median {middle:.0f} ms, best {best:.0f} ms")


def memory(model: Any, count: int) -> None:
    random, cells = np.random.default_rng(3), SIDE**2
    answers = {
        "objectness_logits": random.standard_normal((8, cells), np.float32),
        "boxes": random.uniform(0.1, 0.3, (8, cells, 4)).astype(np.float32),
        "class_embeds": random.standard_normal((8, cells, DIMENSION), np.float32),
        "logit_shift": np.zeros((8, cells), np.float32),
        "logit_scale": np.ones((8, cells), np.float32),
    }
    model._images._forward = lambda batch: {name: part[: len(batch)] for name, part in answers.items()}

    def pictures() -> Any:
        for number in range(count):
            image = np.zeros((1080, 1920, 3), np.uint8)
            image[0, 0] = number % 256, number // 256, 0
            yield image

    before, cache = 0, model._images.cache
    for number, _ in enumerate(model._images.stream(pictures(), 300, None), 1):
        if number == 16:
            before, held = process_memory()[0] or 0, cache.nbytes
    grown, held = (process_memory()[0] or 0) - before, cache.nbytes - held
    mib, bound = cache.nbytes / 2**20, LoadOptions().image_cache_bytes / 2**20
    print(f"{number} pictures of 1080p, {len(cache)} cached, {mib:.0f} MiB of {bound:.0f} allowed")
    print(f"from the 16th on: cache {held / 2**20:.0f} MiB, process {grown / 2**20:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--references", type=int, default=2)
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--memory", type=int, metavar="PICTURES", help="only this, on Linux")
    options = parser.parse_args()
    import warnings

    warnings.simplefilter("ignore")
    if not options.memory:
        imports(options.rounds)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        state = weights(np.random.default_rng(0))
        from safetensors.torch import save_file

        (folder / "owl").mkdir()
        save_file(state, folder / "owl" / "model.safetensors")
        (folder / "owl" / "config.json").write_text(json.dumps(config()))
        start = time.perf_counter()
        with registry.load(folder / "owl", backend="torch", device="cpu") as model:
            print(f"load: {time.perf_counter() - start:.1f} s")
            if options.memory:
                memory(model, options.memory)
                return
            if not options.no_transformers and find_spec("transformers") is not None:
                networks(model, state, options.rounds)
            few_shot(model, folder, options.references, options.rounds)


if __name__ == "__main__":
    main()
