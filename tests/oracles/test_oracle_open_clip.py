"""CLIP and Perception Encoder as open_clip (with timm) writes them, and OpenAI's archives, against their packages.

Forms: a state dict alone, a training checkpoint, a folder as `push_to_hf_hub` leaves it, OpenAI's TorchScript
archive. Tolerance: 1e-5 of the largest component, the order of sums; OpenAI's weights are float16 in the file, exact
in float32.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lensmount import registry
from oracle_kit import picture, png, randomise, written_by

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

TEXTS = [
    "a photo of a dog",
    "two dogs running on the beach!",
    "naïve café — 3 €, don't",
    "AT&amp;T  \n logo",
    "x" * 300,
    "",
]
VECTORS = 1e-5


def towers(seed: int) -> dict:
    """A configuration of open_clip, with widths and heads that only it tells."""
    rng = np.random.default_rng(seed)
    patch, head_width, text_heads = int(rng.choice([8, 14, 16])), int(rng.choice([16, 32])), int(rng.integers(1, 4))
    return {
        "embed_dim": int(rng.integers(8, 65)),
        "quick_gelu": bool(rng.integers(2)),
        "vision_cfg": {
            "image_size": patch * int(rng.integers(2, 6)),
            "layers": int(rng.integers(1, 4)),
            "width": head_width * int(rng.integers(1, 5)),
            "head_width": head_width,
            "patch_size": patch,
            "mlp_ratio": float(rng.choice([2.0, 4.0])),
        },
        "text_cfg": {
            "context_length": int(rng.choice([16, 77])),
            "vocab_size": 49408,
            "width": 16 * text_heads,
            "heads": text_heads,
            "layers": int(rng.integers(1, 4)),
        },
    }


def compare(row, found, model, paths, transform, tokens) -> None:
    from PIL import Image

    batch = torch.stack([transform(Image.open(path)) for path in paths])
    with torch.inference_mode():
        images, texts = model.encode_image(batch).numpy(), model.encode_text(tokens(TEXTS)).numpy()
    prepared = np.concatenate([found.preprocess(path)[0] for path in paths])
    row.close("prepared pictures", prepared, batch.numpy(), 1e-5)
    row.close(
        "image vectors of pictures", found.embed_images(paths, normalize=False).vectors, images, VECTORS, relative=True
    )
    row.close("text vectors of texts", found.embed_text(TEXTS, normalize=False).vectors, texts, VECTORS, relative=True)
    row.close("scale of scores", found.logit_scale / float(model.logit_scale.exp()), 1.0, 1e-5)


def pictures(tmp_path, seed: int, side: int):
    """None is upright: Pillow 13 resizes those down before across."""
    rng = np.random.default_rng((seed, 2))
    sizes = [(side, side), *(sorted(int(v) for v in pair) for pair in rng.integers(side // 2, side * 4, (4, 2)))]
    return [png(tmp_path / f"{i}.png", picture(seed + i, *size)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("form", ["state dict", "training checkpoint", "folder"])
def test_clip(seed, form, outcome, tmp_path) -> None:
    config = towers(seed)
    model = randomise(open_clip.CLIP(**config), seed)
    side = config["vision_cfg"]["image_size"]
    transform = open_clip.image_transform(side, is_train=False)
    options = {}
    if form == "folder":
        from open_clip.push_to_hf_hub import save_for_hf

        rng = np.random.default_rng((seed, 3))
        mean, std = (tuple(round(float(v), 3) for v in rng.uniform(0.3, 0.6, 3)) for _ in range(2))
        prepared = {"mean": mean, "std": std, "interpolation": str(rng.choice(["bicubic", "bilinear"]))}
        prepared["resize_mode"] = str(rng.choice(["shortest", "squash"]))
        transform = open_clip.image_transform(side, is_train=False, **prepared)
        model.visual.image_mean, model.visual.image_std, model.visual.preprocess_cfg = mean, std, prepared
        path = tmp_path / "folder"
        vocabulary = SimpleNamespace(save_pretrained=lambda folder: None)  # for tokenisers of transformers only
        save_for_hf(model, vocabulary, config, path, safe_serialization=seed % 2 == 0)
        by = "tensor names; heads, activation, mean, std and resizing: `open_clip_config.json`"
    else:
        path = tmp_path / "weights.pt"
        state = model.state_dict()
        if form == "training checkpoint":
            state = {"epoch": 3, "name": "run", "state_dict": {f"module.{k}": v for k, v in state.items()}}
        torch.save(state, path)
        heads = config["vision_cfg"]["width"] // config["vision_cfg"]["head_width"]
        options = {"heads": heads, "text_heads": config["text_cfg"]["heads"]}
        options["activation"] = "quick_gelu" if config["quick_gelu"] else "gelu"
        by = "tensor names; heads and activation: options"
    row = outcome(written_by("open_clip_torch"), f"CLIP: {form}", by)
    found = registry.load(path, backend="torch", device="cpu", **options)
    tokens = open_clip.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
    compare(row, found, model, pictures(tmp_path, seed, side), transform, tokens)


def test_perception_encoder(seed, outcome, tmp_path, monkeypatch) -> None:
    """PE-Core in timm's layout, as open_clip builds it: timm's own entries, made smaller."""
    eva = pytest.importorskip("timm.models.eva")
    rng = np.random.default_rng((seed, 9))
    heads, text_heads = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    name, patch = [("vit_pe_core_tiny_patch16_384", 16), ("vit_pe_core_gigantic_patch14_448", 14)][seed % 2]
    grid = int(rng.integers(2, 5))
    side = patch * grid
    small = {
        "depth": int(rng.integers(1, 4)),
        "img_size": side,
        "ref_feat_shape": (grid, grid),
        "embed_dim": 64 * heads,
        "num_heads": heads,
        "mlp_ratio": float(rng.choice([2.0, 2.5, 4.0])),
    }
    create = eva._create_eva
    monkeypatch.setattr(eva, "_create_eva", lambda v, pretrained=False, **given: create(v, False, **{**given, **small}))
    model = open_clip.CustomTextCLIP(
        embed_dim=int(rng.integers(8, 65)),
        vision_cfg={"image_size": side, "timm_model_name": name, "timm_pool": "map", "timm_proj": None},
        text_cfg={
            "context_length": 32,
            "vocab_size": 49408,
            "width": 64 * text_heads,
            "heads": text_heads,
            "layers": int(rng.integers(1, 4)),
        },
    )
    randomise(model, seed, 0.03)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    row = outcome(written_by("open_clip_torch", "timm"), "PE-Core: state dict", "tensor names and shapes")
    found = registry.load(tmp_path / "weights.pt", backend="torch", device="cpu")
    assert found.card.architecture == "perception_encoder"
    half = (0.5, 0.5, 0.5)
    transform = open_clip.image_transform(
        side, is_train=False, mean=half, std=half, interpolation="bilinear", resize_mode="squash"
    )
    compare(row, found, model, pictures(tmp_path, seed, side), transform, open_clip.SimpleTokenizer(context_length=32))


@pytest.mark.parametrize("kind", ["ViT", "RN"])
def test_openai_archives(seed, kind, outcome, tmp_path) -> None:
    """TorchScript archives like OpenAI's: float16 weights, sizes and names of its state dicts."""
    clip_model = pytest.importorskip("clip.model")
    import clip

    rng = np.random.default_rng((seed, 4))
    if kind == "ViT":
        patch = int(rng.choice([8, 16]))
        sizes = {
            "image_resolution": patch * int(rng.integers(2, 5)),
            "vision_layers": int(rng.integers(1, 4)),
            "vision_width": 64 * int(rng.integers(1, 3)),
            "vision_patch_size": patch,
        }
    else:
        layers = tuple(int(v) for v in rng.integers(1, 3, 4))
        sizes = {
            "image_resolution": 32 * int(rng.integers(2, 4)),
            "vision_layers": layers,
            "vision_width": 64,
            "vision_patch_size": None,
        }
    heads = int(rng.integers(1, 3))
    model = clip_model.CLIP(
        embed_dim=int(rng.integers(8, 65)),
        **sizes,
        context_length=77,
        vocab_size=49408,
        transformer_width=64 * heads,
        transformer_heads=heads,
        transformer_layers=int(rng.integers(1, 4)),
    )
    randomise(model, seed, 0.01)
    clip_model.convert_weights(model)

    class Archive(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, module in model.named_children():
                setattr(self, name, module)
            for name, parameter in model.named_parameters(recurse=False):
                setattr(self, name, parameter)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logit_scale * x

    archive = torch.jit.trace(Archive().eval(), torch.ones(1))
    path = tmp_path / "weights.pt"
    torch.jit.save(archive, path)
    model.float()
    side = sizes["image_resolution"]
    row = outcome(written_by("rf-clip"), f"TorchScript archive, {kind}", "tensor names and shapes")
    found = registry.load(path, backend="torch", device="cpu")
    assert found.card.architecture == "clip"
    compare(
        row,
        found,
        model,
        pictures(tmp_path, seed, side),
        clip.clip._transform(side),
        lambda texts: clip.tokenize(texts, truncate=True),
    )
