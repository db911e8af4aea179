"""`lensmount embed` and `lensmount search`, in this process: resuming, failures, kinds of files, the grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")
pytest.importorskip("ftfy")
cv2 = pytest.importorskip("cv2")
testing = pytest.importorskip("typer.testing")

from lensmount import registry  # noqa: E402 - after the skips
from lensmount.cli.app import app  # noqa: E402
from lensmount.errors import InputError  # noqa: E402
from lensmount_vision.towers.vectors import Journal, read_vectors  # noqa: E402


@pytest.fixture(scope="module")
def weights(embedding_goldens, tmp_path_factory) -> Path:
    """A tiny CLIP of OpenAI's vocabulary, made of the recipe for another one with its table of tokens widened."""
    shapes = dict(embedding_goldens.shapes["open_clip-vit"])
    shapes["token_embedding.weight"] = [49408, 64]
    path = tmp_path_factory.mktemp("cli") / "tiny.pt"
    torch.save({name: torch.from_numpy(v) for name, v in embedding_goldens.recipe.weights(shapes).items()}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for i in range(5):
        cv2.imwrite(str(made / f"{i}.png"), np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8))
    return made


def run(*arguments: object, code: int = 0):
    result = testing.CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("name", ["v.npz", "v.npy"])
def test_vectors_equal_the_models_own(name: str, weights: Path, folder: Path, tmp_path: Path) -> None:
    result = run("embed", weights, folder, "--out", tmp_path / name, "--backend", "torch", "--batch-size", 2)
    assert "5 vectors of 40" in result.output
    table = read_vectors(tmp_path / name)
    expected = registry.load(weights, backend="torch", device="cpu").embed_images(folder).vectors
    assert table.paths == tuple(str(folder / f"{i}.png") for i in range(5))
    assert np.allclose(table.vectors, expected, atol=1e-6)
    assert not Journal(tmp_path / name).folder.exists()


def test_a_second_run_embeds_what_is_new_or_changed(weights: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.npz"
    run("embed", weights, folder, "--out", out, "--backend", "torch")
    first = read_vectors(out)
    assert "5 of them embedded before" in run("embed", weights, folder, "--out", out, "--backend", "torch").output
    cv2.imwrite(str(folder / "1.png"), np.zeros((9, 9, 3), np.uint8))
    cv2.imwrite(str(folder / "9.png"), np.zeros((9, 9, 3), np.uint8))
    (folder / "4.png").unlink()
    said = run("embed", weights, folder, "--out", out, "--backend", "torch").output
    assert "5 pictures, 3 of them embedded before" in said
    again = read_vectors(out)
    rows = dict(zip(again.paths, again.vectors, strict=True))
    assert sorted(Path(p).name for p in rows) == ["0.png", "1.png", "2.png", "3.png", "9.png"]
    assert np.array_equal(rows[str(folder / "0.png")], first.vectors[0])
    assert np.allclose(rows[str(folder / "1.png")], rows[str(folder / "9.png")], atol=1e-6)


def test_a_stopped_run_goes_on(weights: Path, folder: Path, tmp_path: Path, monkeypatch) -> None:
    from lensmount_vision.towers.model import EmbeddingModel

    out, batches = tmp_path / "v.npz", []

    def interrupted(forward):
        def run(self, batch):
            if len(batches) == 2:
                raise KeyboardInterrupt
            batches.append(len(batch))
            return forward(self, batch)

        return run

    # The one on the host, the other where pictures are prepared on the device.
    for name in ("forward_images", "forward_pictures"):
        monkeypatch.setattr(EmbeddingModel, name, interrupted(getattr(EmbeddingModel, name)))
    run("embed", weights, folder, "--out", out, "--backend", "torch", "--batch-size", 2, code=130)
    assert not out.exists() and batches == [2, 2]
    monkeypatch.undo()
    said = run("embed", weights, folder, "--out", out, "--backend", "torch").output
    assert "4 of them embedded before" in said
    assert len(read_vectors(out).paths) == 5


def test_a_bad_picture_is_reported_and_the_rest_go_on(weights: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "2.png").write_bytes(b"no picture")
    said = run("embed", weights, folder, "--out", tmp_path / "v.npz", "--backend", "torch", code=1).output
    assert "2.png" in said and len(read_vectors(tmp_path / "v.npz").paths) == 4


def test_vectors_of_another_model_are_not_mixed_in(weights: Path, folder: Path, tmp_path: Path) -> None:
    run("embed", weights, folder, "--out", tmp_path / "v.npz", "--backend", "torch")
    other = tmp_path / "other.pt"
    state = torch.load(weights, weights_only=True)
    torch.save({**state, "visual.proj": state["visual.proj"] * 2}, other)
    for command in (("embed", other, folder, "--out", tmp_path / "v.npz"), ("search", tmp_path / "v.npz", "a dog")):
        arguments = [*command, "--model", other] if command[0] == "search" else command
        with pytest.raises(InputError, match="another model"):
            run(*arguments, "--backend", "torch")


def test_what_cannot_be_written_is_refused_before_work(weights: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ending"):
        run("embed", weights, folder, "--out", tmp_path / "v.csv")
    (folder / "clip.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="no pictures"):
        run("embed", weights, folder / "clip.mp4", "--out", tmp_path / "v.npz")


def test_search_finds_the_picture_itself(weights: Path, folder: Path, tmp_path: Path) -> None:
    run("embed", weights, folder, "--out", tmp_path / "v.npz", "--backend", "torch")
    grid = tmp_path / "grid.png"
    found = json.loads(
        run("search", tmp_path / "v.npz", "--image", folder / "3.png", "--top", 3, "--json", "--save", grid,
            "--backend", "torch").stdout
    )  # fmt: skip
    assert len(found) == 3 and found[0]["path"] == str(folder / "3.png")
    assert found[0]["cosine"] == pytest.approx(1, abs=1e-5)
    assert cv2.imread(str(grid)).shape == (448, 448, 3)


def test_search_by_words_orders_by_cosine(weights: Path, folder: Path, tmp_path: Path) -> None:
    run("embed", weights, folder, "--out", tmp_path / "v.npz", "--backend", "torch")
    found = json.loads(run("search", tmp_path / "v.npz", "a red car", "--json", "--backend", "torch").stdout)
    model = registry.load(weights, backend="torch", device="cpu")
    cosine = model.compare(folder, "a red car").cosine[:, 0]
    assert [Path(row["path"]).stem for row in found] == [str(i) for i in cosine.argsort()[::-1]]
    assert "a.png" not in run("search", tmp_path / "v.npz", "a red car", "--backend", "torch").output
    for arguments in ((), ("words", "--image", folder / "0.png"), ("words", "--top", 0)):
        with pytest.raises(InputError):
            run("search", tmp_path / "v.npz", *arguments)
