"""The YAML file beside a checkpoint in Meta's layout: each setting is read, refused by name, or changes nothing."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest

import sam2_tiny
from lensmount import registry
from lensmount.errors import ModelFileError, UnsupportedModelError
from lensmount_sam2 import meta_yaml
from lensmount_sam2.checkpoint import read_official
from lensmount_sam2.geometry import Geometry
from lensmount_sam2.hf_keys import official_key

torch = pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")

SINE = {"_target_": "sam2.modeling.position_encoding.PositionEmbeddingSine", "normalize": True, "scale": None}
ATTENTION = {
    "_target_": "sam2.modeling.sam.transformer.RoPEAttention", "rope_theta": 10000.0, "feat_sizes": [64, 64],
    "embedding_dim": 256, "num_heads": 1, "downsample_rate": 1, "dropout": 0.1,
}  # fmt: skip
#: What sam2's own file for the tiny network of 2.1 says.
TINY = {
    "_target_": "sam2.modeling.sam2_base.SAM2Base",
    "image_encoder": {
        "_target_": "sam2.modeling.backbones.image_encoder.ImageEncoder",
        "scalp": 1,
        "trunk": {
            "_target_": "sam2.modeling.backbones.hieradet.Hiera", "embed_dim": 96, "num_heads": 1,
            "stages": [1, 2, 7, 2], "global_att_blocks": [5, 7, 9], "window_pos_embed_bkg_spatial_size": [7, 7],
        },
        "neck": {
            "_target_": "sam2.modeling.backbones.image_encoder.FpnNeck", "d_model": 256,
            "position_encoding": {**SINE, "num_pos_feats": 256, "temperature": 10000},
            "backbone_channel_list": [768, 384, 192, 96], "fpn_top_down_levels": [2, 3], "fpn_interp_model": "nearest",
        },
    },
    "memory_attention": {
        "_target_": "sam2.modeling.memory_attention.MemoryAttention", "d_model": 256, "pos_enc_at_input": True,
        "num_layers": 4,
        "layer": {
            "_target_": "sam2.modeling.memory_attention.MemoryAttentionLayer", "activation": "relu",
            "dim_feedforward": 2048, "dropout": 0.1, "pos_enc_at_attn": False, "d_model": 256,
            "pos_enc_at_cross_attn_keys": True, "pos_enc_at_cross_attn_queries": False,
            "self_attention": ATTENTION, "cross_attention": {**ATTENTION, "rope_k_repeat": True, "kv_in_dim": 64},
        },
    },
    "memory_encoder": {
        "_target_": "sam2.modeling.memory_encoder.MemoryEncoder", "out_dim": 64,
        "position_encoding": {**SINE, "num_pos_feats": 64, "temperature": 10000},
        "mask_downsampler": {
            "_target_": "sam2.modeling.memory_encoder.MaskDownSampler", "kernel_size": 3, "stride": 2, "padding": 1,
        },
        "fuser": {
            "_target_": "sam2.modeling.memory_encoder.Fuser", "num_layers": 2,
            "layer": {
                "_target_": "sam2.modeling.memory_encoder.CXBlock", "dim": 256, "kernel_size": 7, "padding": 3,
                "layer_scale_init_value": "1e-6", "use_dwconv": True,
            },
        },
    },
    "num_maskmem": 7, "image_size": 1024, "sigmoid_scale_for_mem_enc": 20.0, "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True, "directly_add_no_mem_embed": True, "no_obj_embed_spatial": True,
    "use_high_res_features_in_sam": True, "multimask_output_in_sam": True, "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True, "add_tpos_enc_to_obj_ptrs": True, "proj_tpos_enc_in_obj_ptrs": True,
    "use_signed_tpos_enc_to_obj_ptrs": True, "only_obj_ptrs_in_the_past_for_eval": True, "pred_obj_scores": True,
    "pred_obj_scores_mlp": True, "fixed_no_obj_ptr": True, "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True, "multimask_min_pt_num": 0, "multimask_max_pt_num": 1,
    "use_mlp_for_obj_ptr_proj": True, "compile_image_encoder": False,
}  # fmt: skip
#: Settings that may be anything: of training and compiling, or what Meta's own code works out anew.
FREE = ("dropout", "feat_sizes", "layer_scale_init_value", "compile_image_encoder")
SHOWN = ("embed_dim", "stages", "window_pos_embed_bkg_spatial_size")
BUILT = [*(("image_encoder", "trunk", key) for key in ("num_heads", "global_att_blocks")), ("image_size",)]


def leaves(table, path=()):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def changed(path, value):
    made = copy.deepcopy(TINY)
    inside = made
    for key in path[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return made


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value[:-1], value[-1] + 1]
    if isinstance(value, str):
        return f"{value}_other"
    return 3 if value is None else value * 2 + 1


def at(path, table=TINY):
    for key in path:
        table = table[key]
    return table


@pytest.fixture
def write(tmp_path):
    def write(model, name="c.yaml", document=None):
        (tmp_path / name).write_text(yaml.safe_dump(document or {"model": model}))
        return tmp_path / name

    return write


@pytest.fixture(scope="module")
def shapes():
    """Of the tiny release, as far as the geometry looks."""
    made = {"image_encoder.trunk.pos_embed": (1, 96, 7, 7), "maskmem_tpos_enc": (7, 1, 1, 64)}
    blocks = [width for width, count in zip((96, 192, 384, 768), (1, 2, 7, 2), strict=True) for _ in range(count)]
    made |= {f"image_encoder.trunk.blocks.{i}.attn.proj.weight": (w, w) for i, w in enumerate(blocks)}
    marks = ("memory_attention.norm.weight", "no_obj_embed_spatial", "obj_ptr_tpos_proj.weight")
    return made | dict.fromkeys(marks, (1, 64))


def test_the_released_file_is_what_is_built(write, shapes):
    geometry, notes = read_official(shapes, write(TINY))
    assert notes == ()
    assert geometry == read_official(shapes, None)[0]


@pytest.mark.parametrize("path", list(leaves(TINY)), ids=".".join)
@pytest.mark.parametrize("how", ["changed", "left out"])
def test_every_setting_is_read_refused_or_changes_nothing(path, how, write, shapes):
    value = other(at(path)) if how == "changed" else ...
    file = write(changed(path, value))
    name = path[-1]
    left = how == "left out"
    # Keys whose default, in sam2's class, is what the released networks have.
    same = left and (
        name in ("_target_", "d_model", "scale", "normalize", "temperature", "pos_enc_at_input", "num_maskmem")
        or path[:1] in (("memory_attention",), ("memory_encoder",))
        or name in ("backbone_channel_list", "num_pos_feats", "embed_dim", "num_heads")
        or name in ("add_tpos_enc_to_obj_ptrs", "multimask_max_pt_num")
    )
    if name in FREE or same:
        assert read_official(shapes, file)[1] == ()
    elif path in BUILT:
        kept = meta_yaml.trunk_of(meta_yaml.read(file), "it")
        assert kept != meta_yaml.trunk_of(meta_yaml.read(write(TINY, "plain.yaml")), "it")
    else:
        with pytest.raises(UnsupportedModelError) as caught:
            read_official(shapes, file)
        if name not in SHOWN:
            assert ("_target_" if name == "_target_" else ".".join(path)) in caught.value.found


@pytest.mark.parametrize("path", [(), ("image_encoder",), ("memory_attention", "layer"), ("memory_encoder", "fuser")])
def test_an_unknown_setting_is_noted(path, write, shapes):
    (note,) = read_official(shapes, write(changed((*path, "novel"), 1)))[1]
    assert ".".join((*path, "novel")) in note


def test_settings_of_training_and_references_to_them(write, shapes):
    model = {**TINY, "image_size": "${scratch.resolution}", "num_correction_pt_per_frame": 7, "_target_": "a.SAM2Train",
             "prob_to_use_pt_input_for_train": 0.5}  # fmt: skip
    file = write(None, document={"scratch": {"resolution": 512}, "trainer": {"model": model}})
    assert read_official(shapes, file)[1] == ()
    assert meta_yaml.trunk_of(meta_yaml.read(file), "it")[1] == 512


@pytest.mark.parametrize(
    "text",
    ["image_encoder trunk embed_dim: [", "image_encoder: {trunk: {embed_dim: 1}}", "- image_encoder trunk embed_dim",
     "model: {image_encoder: {trunk: embed_dim}}", "a: &a [*a]\nmodel: {image_encoder: {trunk: {embed_dim: ${a}}}}",
     "model: {image_encoder: {trunk: {embed_dim: x}}}", "model: ${model}\n# image_encoder trunk embed_dim"],
)  # fmt: skip
def test_a_malformed_file_is_named(text, tmp_path, shapes):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ModelFileError, match=r"c\.yaml"):
        meta_yaml.find(tmp_path, shapes)


def test_the_file_of_the_network_is_found_among_others(write, tmp_path, shapes):
    assert meta_yaml.find(tmp_path, shapes) == (None, ())
    (tmp_path / "data.yaml").write_text("names: [a]")
    assert meta_yaml.find(tmp_path, shapes) == (None, ())
    write(changed(("image_encoder", "trunk", "stages"), [1, 2, 11, 2]), "small.yaml")
    write(changed(("no_obj_embed_spatial",), ...), "old.yaml")
    path, (note,) = meta_yaml.find(tmp_path, shapes)
    assert path is None
    assert "small.yaml" in note
    assert "old.yaml" in note
    mine = write(TINY, "tiny.yaml")
    assert meta_yaml.find(tmp_path, shapes) == (mine, ())
    write({**TINY, "image_size": 512}, "tiny-512.yaml")
    with pytest.raises(UnsupportedModelError, match="differ") as caught:
        meta_yaml.find(tmp_path, shapes)
    assert "tiny-512.yaml" in caught.value.found


def test_without_tracking_only_the_encoder_counts(write):
    trunk = meta_yaml.trunk_of(meta_yaml.read(write(TINY)), "it")[0]
    images = Geometry(trunk=trunk, tracking=False)
    assert meta_yaml.check(meta_yaml.read(write(changed(("num_maskmem",), 9))), images, "it") == ()
    with pytest.raises(UnsupportedModelError, match="it has a setting"):
        meta_yaml.check(meta_yaml.read(write(changed(("image_encoder", "scalp"), 0))), images, "it")


@pytest.fixture
def small(tmp_path):
    """A network of a size of its own: in Meta's layout with its file, and in transformers'."""
    from safetensors.numpy import save_file

    weights = sam2_tiny.weights()
    meta, hugging = tmp_path / "meta", tmp_path / "hugging"
    meta.mkdir()
    hugging.mkdir()
    save_file(weights, hugging / "model.safetensors")
    (hugging / "config.json").write_text(json.dumps(sam2_tiny.config()))
    named = {official_key(key): torch.from_numpy(np.array(value)) for key, value in weights.items()}
    torch.save({"model": {key: value for key, value in named.items() if key is not None}}, meta / "mine.pt")
    told = copy.deepcopy(TINY)
    trunk = sam2_tiny.TRUNK
    told["image_encoder"]["trunk"] |= {
        "embed_dim": trunk["hidden_size"], "stages": trunk["blocks_per_stage"],
        "global_att_blocks": trunk["global_attention_blocks"], "window_spec": trunk["window_size_per_stage"],
    }  # fmt: skip
    told["image_encoder"]["neck"]["backbone_channel_list"] = trunk["embed_dim_per_stage"][::-1]
    told["image_size"] = sam2_tiny.SIDE
    return meta, hugging, told


@pytest.mark.parametrize("where", ["file", "folder", "hub"])
def test_a_network_of_its_own_size_is_built_by_its_file(where, small, request):
    meta, hugging, told = small
    if where == "hub":
        hub = request.getfixturevalue("hub")
        hub.lists_files = True
        hub.put_repo("me/own", {"mine.pt": (meta / "mine.pt").read_bytes(),
                                "mine.yaml": yaml.safe_dump({"model": told}).encode()})  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="none of the released"):
        registry.describe(meta / "mine.pt")
    (meta / "mine.yaml").write_text(yaml.safe_dump({"model": told}))
    subject = {"file": meta / "mine.pt", "folder": meta, "hub": "hf://me/own"}[where]
    picture = sam2_tiny.frames(1)[0]
    results = []
    for name in (subject, hugging):
        with registry.load(name, backend="torch", device="cpu") as model:
            assert model.image_size == sam2_tiny.SIDE
            (found,) = model(picture, point_coordinates=[[40, 60]], point_labels=[1])
            results.append((found.logits, found.scores))
    for ours, theirs in zip(*results, strict=True):
        assert np.array_equal(ours, theirs)
        assert math.isfinite(float(ours.sum()))


def test_a_file_that_asks_for_something_else_is_refused_at_every_step(small):
    meta, _, told = small
    (meta / "mine.yaml").write_text(yaml.safe_dump({"model": {**told, "use_obj_ptrs_in_encoder": False}}))
    for step in (registry.describe, registry.load):
        with pytest.raises(UnsupportedModelError, match=r"mine\.yaml has a setting") as caught:
            step(meta / "mine.pt")
        assert "use_obj_ptrs_in_encoder" in caught.value.found
