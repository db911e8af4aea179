"""Weights that the reference outputs were made with, rebuilt by their recipe."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

NAMES = ("sam2.1_hiera_tiny", "sam2_hiera_tiny")


def rebuild(folder, name, target):
    """Writes the official container of a recipe's weights."""
    torch = pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("goldens_recipe", folder / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = recipe
    spec.loader.exec_module(recipe)
    weights = {key: torch.from_numpy(value.copy()) for key, value in recipe.state_dict(folder, name).items()}
    torch.save({"model": weights}, target)
    return target


@pytest.fixture(scope="session")
def sam2_weights(reference_data, tmp_path_factory):
    """Path of a checkpoint by its name; each is built once."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("sam2")
            made[name] = rebuild(reference_data / "goldens", name, folder / f"{name}.pt")
        return made[name]

    return get


@pytest.fixture(scope="session")
def sam2_model(sam2_weights):
    """Models by name and input size, loaded once."""
    from lensmount import registry

    made = {}

    def get(name, image_size=1024, backend="torch"):
        key = (name, image_size, backend)
        if key not in made:
            made[key] = registry.load(sam2_weights(name), backend=backend, device="cpu", image_size=image_size)
        return made[key]

    yield get
    for model in made.values():
        model.close()


@pytest.fixture(scope="session", params=NAMES)
def golden(request, reference_data):
    """Name and arrays of each reference."""
    with np.load(reference_data / "goldens" / f"{request.param}.npz") as arrays:
        return request.param, {key: arrays[key] for key in arrays.files}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """Small seeded networks in a Hugging Face folder."""
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    import sam2_tiny

    return sam2_tiny.write_folder(tmp_path_factory.mktemp("sam2-tiny") / "model")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder):
    """The model of `tiny_folder`."""
    from lensmount import registry

    with registry.load(tiny_folder, backend="torch") as model:
        yield model


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small networks gain nothing from more threads, and lose much on a busy machine."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
