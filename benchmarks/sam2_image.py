"""SAM 2 on pictures, beside transformers' own networks on the same weights, taken in turns.

    python benchmarks/sam2_image.py WEIGHTS PICTURE [--rounds 7] [--image-size 1024] [--backends torch onnx]

Weights are an official checkpoint. Each round encodes the picture and decodes one point with every contender, so that
what else the machine does hits all of them; medians, and the medians of the rounds' ratios, are printed. transformers
runs its networks alone, on pixels that are ready; lensmount runs from the decoded picture to masks at its size.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

# Of a single thread, the processor's time says what a busy machine's wall clock does not.
clock = process_time if os.environ.get("OMP_NUM_THREADS") == "1" else perf_counter


def reference(weights, side, pixels, point):
    """transformers' Sam2Model with an official checkpoint's weights: encode, decode."""
    import re

    import torch
    from transformers.models.sam2.configuration_sam2 import Sam2Config
    from transformers.models.sam2.modeling_sam2 import Sam2Model

    from lensmount_reading import as_torch_state_dict, read_checkpoint
    from lensmount_sam2.hf_keys import official_key

    start = clock()
    tensors = as_torch_state_dict(read_checkpoint(weights))
    tensors = {key.removeprefix("model."): value for key, value in tensors.items()}
    model = Sam2Model(Sam2Config()).eval()
    state = {}
    for key, value in model.state_dict().items():
        name = official_key(key) or "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
        if name == "sam_prompt_encoder.point_embed.weight":
            rows = [tensors[f"sam_prompt_encoder.point_embeddings.{i}.weight"] for i in range(4)]
            state[key] = torch.cat(rows)
        else:
            state[key] = tensors[re.sub(r"^model\.", "", name)].reshape(value.shape)
    model.load_state_dict(state)
    loaded = clock() - start
    points = torch.tensor(point, dtype=torch.float32)[None, None, None]
    labels = torch.ones(1, 1, 1, dtype=torch.int64)

    def encode():
        with torch.inference_mode():
            return model.get_image_embeddings(torch.from_numpy(pixels))

    def decode(maps):
        with torch.inference_mode():
            return model(image_embeddings=maps, input_points=points, input_labels=labels)

    return loaded, encode, decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backends", nargs="+", default=["torch", "onnx"])
    arguments = parser.parse_args()

    from lensmount import registry
    from lensmount_vision.images.loading import load

    image = load(arguments.picture)
    height, width = image.size
    point = np.array([[width / 2, height / 2]])
    contenders, side = {}, 1024
    with tempfile.TemporaryDirectory() as folder:
        for backend in arguments.backends:
            source = arguments.weights
            if backend == "onnx":
                source = registry.export(source, to="onnx", output=Path(folder) / "onnx", dynamic=True)
            start = clock()
            model = registry.load(source, backend=backend)
            print(f"lensmount {backend}: load {clock() - start:.2f} s")

            def encode(model=model):
                return model.embed_images(image, use_embeddings_cache=False)

            def decode(maps, model=model):
                return model(embeddings=maps, point_coordinates=point)[0]

            contenders[f"lensmount {backend}"] = encode, decode
        pixels, (geometry,) = model.preprocess(image)
        start = clock()
        import transformers.models.sam2.modeling_sam2  # noqa: F401  # its import is timed

        print(f"transformers: import {clock() - start:.2f} s")
        loaded, encode, decode = reference(arguments.weights, side, pixels, geometry.points_to_network(point)[0])
        print(f"transformers: load {loaded:.2f} s")
        contenders["transformers"] = encode, decode
        times = {name: ([], []) for name in contenders}
        results = {}
        for turn in range(arguments.rounds + 1):
            for name, (encode, decode) in contenders.items():
                start = clock()
                maps = encode()
                middle = clock()
                results[name] = decode(maps)
                if turn:  # the first round warms up
                    times[name][0].append(middle - start)
                    times[name][1].append(clock() - middle)
    theirs = results["transformers"].pred_masks[0, 0].numpy()
    for name, (encodes, decodes) in times.items():
        ratios = [
            statistics.median(a / b for a, b in zip(mine, other, strict=True))
            for mine, other in zip((encodes, decodes), times["transformers"], strict=True)
        ]
        both = statistics.median(
            (a + b) / (c + d) for a, b, c, d in zip(encodes, decodes, *times["transformers"], strict=True)
        )
        line = (
            f"{name}: encode {statistics.median(encodes) * 1e3:.0f} ms ({ratios[0]:.3f} of transformers), "
            f"point {statistics.median(decodes) * 1e3:.1f} ms ({ratios[1]:.3f}), both {both:.3f}; "
            f"point / encode {statistics.median(decodes) / statistics.median(encodes):.3f}"
        )
        if name != "transformers":
            mine = results[name].logits
            line += f"; logits differ by {np.abs(mine - theirs).max():.1e}"
            same = np.logical_and(mine > 0, theirs > 0).sum() / np.logical_or(mine > 0, theirs > 0).sum()
            line += f", low-resolution masks' IoU {same:.5f}"
        print(line)


if __name__ == "__main__":
    main()
