"""RF-DETR: files of the trainings of rfdetr 1.4.1 and of 1.11, against `predict` of the version that wrote them.

Two environments: in one with rfdetr up to 1.4.1 its own code writes and reads the older files; see this folder's
conftest. Only sizes that its settings leave free are drawn: the backbone is always DINOv2's small one with windows.

Tolerances. The network's input is prepared by torchvision there and by our own resampler here, which differ by 1e-6;
thirteen random layers, and the places that deformable attention reads at, make 1e-4 pixel of it in boxes and 1e-6 in
scores; ten times as much is allowed for other processors' kernels.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import LensmountError
from oracle_kit import match, picture, png, randomise, written_by

torch = pytest.importorskip("torch")
rfdetr = pytest.importorskip("rfdetr")

WRITER = written_by("rfdetr")
OLD = tuple(int(part) for part in WRITER.split()[1].split(".")[:3]) <= (1, 4, 1)
BOXES, SCORES = 1e-3, 1e-5


def settings(seed: int, masks: bool) -> dict:
    """Settings of a network that its package can build, small and drawn at random."""
    rng = np.random.default_rng((seed, masks))
    patch, windows, cells = int(rng.choice([12, 14, 16])), int(rng.choice([1, 2])), int(rng.integers(2, 4))
    grid = windows * cells * 2
    layers = sorted(int(i) for i in rng.choice(np.arange(1, 12), size=rng.integers(2, 5), replace=False))
    # Never more queries than places: those left over would keep learned references that no training has seen.
    queries = int(rng.integers(5, min(30, grid**2) + 1))
    return {
        "encoder": "dinov2_windowed_small",
        "patch_size": patch,
        "num_windows": windows,
        "resolution": patch * grid,
        "positional_encoding_size": grid,
        "out_feature_indexes": [*layers[:-1], 11],
        "dec_layers": int(rng.integers(1, 4)),
        "hidden_dim": 256 if masks else int(rng.choice([128, 256])),
        "sa_nheads": 8,
        "ca_nheads": int(rng.choice([8, 16])),
        "dec_n_points": int(rng.choice([2, 4])),
        "num_queries": queries,
        "num_select": queries,
        "group_detr": int(rng.integers(1, 4)),
        "segmentation_head": masks,
        "mask_downsample_ratio": 4,
        "projector_scale": ["P4"],
        "pretrain_weights": None,
        "device": "cpu",
    }


def names_of(seed: int) -> list[str]:
    return [f"class {seed}.{i}" for i in range((1, 2, 5, 3, 79, 91)[seed % 6])]


def pictures(tmp_path, seed: int, side: int):
    """One smaller than the network's input and one larger in the newer version; rfdetr 1.4.1 shrinks with antialias,
    which neither its training does nor we do, so that there all are smaller."""
    rng = np.random.default_rng(seed)
    sizes = [(int(rng.integers(20, side)), int(rng.integers(20, side))), (side, side)]
    if not OLD:
        sizes.append((side + int(rng.integers(8, 90)), side + int(rng.integers(8, 90))))
    return [png(tmp_path / f"{i}.png", picture(seed + i, *size)) for i, size in enumerate(sizes)]


def compare(row, model, detector, names, paths, *, masks: bool) -> None:
    """Every pair of query and class, best first, that the package's `predict` gives for pictures."""
    from PIL import Image

    for path in paths:
        expected = detector.predict(Image.open(path), threshold=0.0)
        (found,) = model(path, confidence=0.0)
        theirs = [names(int(i)) for i in expected.class_id]
        ours = [found.class_names[i] for i in found.class_id]
        left, right = match((found.xyxy, found.confidence), (expected.xyxy, expected.confidence), (ours, theirs))
        assert [ours[i] for i in left] == [theirs[i] for i in right]
        height, width = found.image_size
        clipped = np.clip(expected.xyxy, 0, [width, height, width, height])
        row.close("boxes, pixels", found.xyxy[left], clipped[right], BOXES)
        row.close("scores", found.confidence[left], expected.confidence[right], SCORES)
        if masks:
            dense = found.masks.dense()[left]
            row.at_least("masks, share of equal pixels", (dense == expected.mask[right]).mean(), 0.9999)


# --- rfdetr 1.11 ------------------------------------------------------------------------------------------------------


def trained(seed: int, masks: bool, names: list[str], folder):
    """A module as training has it, with random weights."""
    from rfdetr.config import RFDETRNanoConfig, RFDETRSegNanoConfig, SegmentationTrainConfig, TrainConfig
    from rfdetr.training.module_model import RFDETRModelModule

    config = (RFDETRSegNanoConfig if masks else RFDETRNanoConfig)(**settings(seed, masks), num_classes=len(names))
    kind = SegmentationTrainConfig if masks else TrainConfig
    module = RFDETRModelModule(config, kind(dataset_dir=str(folder), output_dir=str(folder)))
    randomise(module.model, seed)
    return module


def save_best(module, names, folder):
    """`checkpoint_best_regular.pth` by the training's own callback."""
    from rfdetr.training.callbacks.best_model import BestModelCallback

    callback = BestModelCallback(str(folder))
    callback._current_pl_module = module
    trainer = SimpleNamespace(
        callbacks=[callback],
        current_epoch=3,
        global_step=40,
        is_global_zero=True,
        callback_metrics={},
        datamodule=SimpleNamespace(class_names=names),
    )
    callback._save_checkpoint(trainer, str(folder / "checkpoint_best_regular.pth"))
    return folder / "checkpoint_best_regular.pth"


def save_last(module, names, folder):
    """`last.ckpt` by Lightning's trainer, optimizer and all."""
    import pytorch_lightning as lightning

    trainer = lightning.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, max_epochs=1)
    trainer.strategy.connect(module)
    trainer.datamodule = lightning.LightningDataModule()
    trainer.datamodule.class_names = names
    module.trainer = trainer
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def save_bundle(path, folder):
    """`weights.pt` that rfdetr writes for an upload."""
    rfdetr.RFDETR.from_checkpoint(path).export_for_roboflow(folder / "bundle")
    return folder / "bundle" / "weights.pt"


@pytest.mark.skipif(OLD, reason="needs a newer rfdetr")
@pytest.mark.parametrize("form", ["checkpoint_best_regular.pth", "last.ckpt", "weights.pt"])
@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_files_of_a_training(seed, masks, form, outcome, tmp_path) -> None:
    pytest.importorskip("pytorch_lightning")
    names = names_of(seed)
    module = trained(seed, masks, names, tmp_path)
    best = save_best(module, names, tmp_path)
    path = {"checkpoint_best_regular.pth": lambda: best, "last.ckpt": lambda: save_last(module, names, tmp_path)}.get(
        form, lambda: save_bundle(best, tmp_path)
    )()
    detector = rfdetr.RFDETR.from_checkpoint(best)
    assert list(detector.class_names) == names
    row = outcome(
        WRITER,
        f"`{form}`, {'segmentation' if masks else 'detection'}",
        "tensor names and shapes; names: `num_classes` = names = columns - 1",
    )
    model = registry.load(path, backend="torch", device="cpu", whole_masks=masks)
    assert model.card.task == ("instance-segmentation" if masks else "object-detection")

    def name(column):
        return names[column] if column < len(names) else "__background__"

    compare(row, model, detector, name, pictures(tmp_path, seed, detector.model.resolution), masks=masks)


# --- rfdetr 1.4.1 -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not OLD, reason="needs rfdetr up to 1.4.1")
@pytest.mark.parametrize("labels", ["roboflow", "yolo"])
@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_files_of_the_older_training(seed, masks, labels, outcome, tmp_path) -> None:
    """What its `train` writes: its own settings, way to write, and columns as its `train_from_config` counts."""
    from rfdetr.config import RFDETRNanoConfig, RFDETRSegPreviewConfig, SegmentationTrainConfig, TrainConfig
    from rfdetr.detr import RFDETRNano, RFDETRSegPreview
    from rfdetr.main import populate_args
    from rfdetr.util.misc import save_on_master, strip_checkpoint

    names = names_of(seed)
    columns = len(names) + (labels == "roboflow")
    chosen = settings(seed, masks)
    if chosen["patch_size"] != 14 and chosen["patch_size"] != 16:
        chosen |= {"patch_size": 16, "resolution": chosen["resolution"] // chosen["patch_size"] * 16}
    detector = (RFDETRSegPreview if masks else RFDETRNano)(**{k: v for k, v in chosen.items() if k != "encoder"})
    detector.model.reinitialize_detection_head(columns)
    detector.model.class_names = names
    randomise(detector.model.model, seed)
    config = (RFDETRSegPreviewConfig if masks else RFDETRNanoConfig)(**chosen)
    training = (SegmentationTrainConfig if masks else TrainConfig)(
        dataset_dir=str(tmp_path), dataset_file=labels, output_dir=str(tmp_path), class_names=names
    )
    held = config.model_dump()
    held.pop("num_classes")
    args = populate_args(**{**held, **training.model_dump(), "num_classes": columns})
    args.num_select = chosen["num_select"]
    network = detector.model.model
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    path = tmp_path / "checkpoint_best_total.pth"
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    whole = {"optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict(), "epoch": 3}
    save_on_master({"model": network.state_dict(), **whole, "args": args}, path)
    if seed % 2:
        strip_checkpoint(path)
    assert isinstance(torch.load(path, weights_only=False)["args"], argparse.Namespace)
    rule = "columns = names + 1" if labels == "roboflow" else "names = columns"
    row = outcome(
        WRITER,
        f"`checkpoint_best_total.pth`, {'segmentation' if masks else 'detection'}, "
        f"{'COCO labels of Roboflow' if labels == 'roboflow' else 'YOLO labels'}",
        f"tensor names and shapes; names: `num_classes` = {rule}",
    )
    model = registry.load(path, backend="torch", device="cpu", whole_masks=masks)

    def name(column):
        if labels == "yolo":
            return names[column]
        return detector.class_names.get(column, "__background__")

    compare(row, model, detector, name, pictures(tmp_path, seed, detector.model.resolution), masks=masks)


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(OLD, reason="needs a newer rfdetr")
def test_keypoint_networks_are_refused(outcome, tmp_path) -> None:
    from rfdetr.config import RFDETRKeypointPreviewConfig
    from rfdetr.models import build_model_from_config

    chosen = {k: v for k, v in settings(0, True).items() if not k.startswith(("segmentation", "mask"))}
    config = RFDETRKeypointPreviewConfig(**chosen)
    path = tmp_path / "keypoints.pth"
    torch.save({"model": build_model_from_config(config).state_dict(), "args": config.model_dump()}, path)
    with pytest.raises(LensmountError, match="keypoint") as caught:
        registry.load(path, backend="torch", device="cpu")
    outcome.refuses(WRITER, "keypoint networks", caught.value)
