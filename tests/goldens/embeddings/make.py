"""Makes the goldens of this folder with the reference implementations; run in an environment that has them.

    python tests/goldens/embeddings/make.py     # transformers 5.23, open_clip 3.3, timm 1.0.31, OpenAI's clip, torch

`towers.npz`: what tiny networks of each layout give on the recipe's weights. `tokens.json.gz`: ids of random strings.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import unicodedata
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import recipe  # noqa: E402 - beside this file

VOCABULARY = 600


def hugging_face(activation: str):
    from transformers import CLIPConfig, CLIPModel

    text = {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2}
    vision = {"hidden_size": 72, "intermediate_size": 128, "num_attention_heads": 6, "num_hidden_layers": 2}
    ids = {"vocab_size": VOCABULARY, "eos_token_id": VOCABULARY - 1, "max_position_embeddings": 20}
    model = CLIPModel(
        CLIPConfig(
            text_config={**text, **ids, "hidden_act": activation},
            vision_config={**vision, "image_size": 48, "patch_size": 12, "hidden_act": activation},
            projection_dim=40,
        )
    )
    return (
        model,
        48,
        20,
        lambda x: model.visual_projection(model.vision_model(pixel_values=x).pooler_output),
        lambda t: model.text_projection(model.text_model(input_ids=t).pooler_output),
    )


def open_clip(vision: dict, quick: bool):
    from open_clip.model import CLIP

    text = {"context_length": 20, "vocab_size": VOCABULARY, "width": 64, "heads": 1, "layers": 2}
    model = CLIP(embed_dim=40, vision_cfg=vision, text_cfg=text, quick_gelu=quick)
    return model, vision["image_size"], 20, model.encode_image, model.encode_text


def perception_encoder(name: str, side: int, grid: int, **changes):
    import timm.models.eva as eva
    from open_clip.model import CustomTextCLIP

    create = eva._create_eva
    small = {"depth": 2, "img_size": side, "ref_feat_shape": (grid, grid), **changes}
    eva._create_eva = lambda variant, pretrained=False, **given: create(variant, pretrained, **{**given, **small})
    vision = {"image_size": side, "timm_model_name": name, "timm_pool": "map", "timm_proj": None}
    text = {"context_length": 20, "vocab_size": VOCABULARY, "width": 64, "heads": 1, "layers": 2}
    try:
        model = CustomTextCLIP(embed_dim=40, vision_cfg=vision, text_cfg=text)
    finally:
        eva._create_eva = create
    return model, side, 20, model.encode_image, model.encode_text


CASES = {
    "hf-quick_gelu": lambda: hugging_face("quick_gelu"),
    "hf-gelu": lambda: hugging_face("gelu"),
    "open_clip-vit": lambda: open_clip({"image_size": 48, "patch_size": 16, "width": 128, "layers": 2}, False),
    "open_clip-resnet": lambda: open_clip({"image_size": 64, "layers": [1, 2, 1, 1], "width": 16}, True),
    "pe-timm": lambda: perception_encoder("vit_pe_core_tiny_patch16_384", 64, 4, embed_dim=128, num_heads=2),
    "pe-timm-no-class": lambda: perception_encoder(
        "vit_pe_core_gigantic_patch14_448", 56, 4, embed_dim=128, num_heads=2, mlp_ratio=2.5
    ),
}


@torch.inference_mode()
def towers() -> None:
    arrays: dict[str, np.ndarray] = {}
    shapes = {}
    for name, make in CASES.items():
        model, side, context, image, text = make()
        model.eval()
        state = model.state_dict()
        held = {k: list(v.shape) for k, v in state.items() if v.is_floating_point()}
        model.load_state_dict({k: torch.from_numpy(v) for k, v in recipe.weights(held).items()}, strict=False)
        arrays[f"{name}/image"] = image(torch.from_numpy(recipe.images(2, side))).numpy()
        arrays[f"{name}/text"] = text(torch.from_numpy(recipe.tokens(VOCABULARY, context))).numpy()
        shapes[name] = held
    np.savez_compressed(HERE / "towers.npz", shapes=np.array(json.dumps(shapes)), **arrays)


TEXT = (
    "The quick brown fox's don't I'll we've A photo of a DOG naïve café — 3 € 12345 ½ ﬁne Ω ΟΔΟΣ İstanbul ß ſ 'ſ "
    "<|startoftext|> <|endoftext|> <start_of_text> <end_of_text> !<|endoftext|> &amp; &lt;b&gt; &amp;amp;lt; &#8364; "
    "&eacute; schÃ¶n â€œquoteâ€\u009d “curly” ｆｕｌｌ 你好 日本語 한국어 مرحبا שלום नमस्ते ไทย 👍🏽 "
    "👨‍👩‍👧 🇩🇪 ❤️ \u200b \ufeff \x00 \x1c \x85 \u2028 \u3000 \t \n '' ``` ... $5.00 #tag @me http://x.y/z?a=b&c=d"
)
WORDS = TEXT.split(" ")


def strings(count: int) -> list[str]:
    """Random texts: any assigned character, words with entities and emoji, Latin, other scripts, far too long ones."""
    choose = random.Random(0)
    anything = [c for c in range(32, 0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    scripts = [(0x1F300, 0x1FAFF), (0, 127), (0x370, 0x5FF), (0x4E00, 0x4FFF)]
    makers = [
        lambda: "".join(chr(choose.choice(anything)) for _ in range(choose.randint(0, 40))),
        lambda: " ".join(choose.choice(WORDS) for _ in range(choose.randint(0, 30))),
        lambda: "".join(choose.choice(WORDS) + choose.choice(["", " ", "\n"]) for _ in range(choose.randint(0, 12))),
        lambda: "".join(chr(choose.randint(32, 0x24F)) for _ in range(choose.randint(0, 80))),
        lambda: "".join(chr(choose.randint(*choose.choice(scripts))) for _ in range(choose.randint(0, 50))),
        lambda: " ".join(
            "".join(choose.choice("abcdefghijABCDEF'0123.-&;#") for _ in range(choose.randint(1, 12)))
            for _ in range(choose.randint(0, 150))
        ),
    ]
    return [makers[i % len(makers)]() for i in range(count)]


def reference_ids(texts: list[str]) -> list[tuple[list[int], list[int]]]:
    """Ids by OpenAI's tokeniser (context 77, cut) and by open_clip's (context 32, as Perception Encoder's)."""
    from clip.simple_tokenizer import SimpleTokenizer as OpenAI
    from open_clip.tokenizer import SimpleTokenizer as OpenClip

    first, second = OpenAI(), OpenClip()

    def cut(ids: list[int], context: int) -> list[int]:
        return [49406, *ids[: context - 2], 49407]

    return [(cut(first.encode(text), 77), cut(second.encode(text), 32)) for text in texts]


def tokens(count: int = 600) -> None:
    texts = strings(count)
    rows = [[text, *ids] for text, ids in zip(texts, reference_ids(texts), strict=True)]
    content = json.dumps(rows, separators=(",", ":")).encode()
    (HERE / "tokens.json.gz").write_bytes(gzip.compress(content, 9, mtime=0))


if __name__ == "__main__":
    towers()
    tokens()
