"""Weights files: written with what is needed to build the network again, and read back."""

import pytest
import torch
from safetensors.torch import save_file

from db3kd.models import ModelMetadata, SavedModel, build_model, read_saved_model, save_model

SHAPE = (1, 8, 8)
DECLARED = {"model": "linear", "image_shape": SHAPE, "classes": 2}


def test_a_saved_model_is_read_back(tmp_path):
    network = build_model("linear", SHAPE, 2)
    path = save_model(
        tmp_path / "m.safetensors",
        network,
        **DECLARED,
        bounds=(0, 255),
        class_names=["cat", "ox "],
        threshold=0.5,
    )
    saved = read_saved_model(path)
    state = saved.state
    declared = {name: value for name, value in DECLARED.items() if name != "model"}
    assert saved == SavedModel(
        state,
        DECLARED["model"],
        ModelMetadata(**declared, bounds=(0.0, 255.0), class_names=("cat", "ox"), threshold=0.5),
    )
    assert all(state[key].equal(value) for key, value in network.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


def test_files_of_the_same_weights_are_equal(tmp_path):
    network = build_model("linear", SHAPE, 2)
    declared = DECLARED | {"class_names": ['caf\u00e9 \\ "x"', "ox"], "threshold": 0.5}
    files = [save_model(tmp_path / f"{n}.safetensors", network, **declared) for n in range(8)]

    assert len({file.read_bytes() for file in files}) == 1
    saved = read_saved_model(files[0])
    assert saved.metadata is not None
    assert saved.metadata.class_names == tuple(declared["class_names"])
    assert all(saved.state[key].equal(value) for key, value in network.state_dict().items())


def test_a_file_of_another_writer_has_weights_only(tmp_path):
    weights = {"weight": torch.ones(2)}
    save_file(weights, tmp_path / "m.safetensors", {"format": "pt", "model": "linear"})
    saved = read_saved_model(tmp_path / "m.safetensors")
    assert (saved.model, saved.metadata) == (None, None)
    assert saved.state["weight"].equal(weights["weight"])


def test_tied_weights_are_saved(tmp_path):
    network = build_model("linear", SHAPE, 64)
    network.append(torch.nn.Linear(64, 64))
    network[2].weight = network[1].weight
    path = save_model(tmp_path / "m.safetensors", network, **DECLARED | {"classes": 64})
    state = read_saved_model(path).state
    assert state["1.weight"].equal(state["2.weight"])


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("m.pt", {}, r"path: expected a name ending in \.safetensors, got 'm\.pt'"),
        ("m.safetensors", {"classes": 1}, "classes: expected an integer of at least 2"),
        ("m.safetensors", {"class_names": ["a"]}, "class_names: expected 2 names, got 1"),
        ("m.safetensors", {"classes": 3, "threshold": 0.5}, "threshold: .* 2 classes"),
    ],
)
def test_wrong_arguments_are_named_and_write_nothing(tmp_path, name, wrong, words):
    with pytest.raises(ValueError, match=words):
        save_model(tmp_path / name, build_model("linear", SHAPE, 2), **DECLARED | wrong)
    assert not list(tmp_path.iterdir())


def centred() -> torch.nn.Module:
    network = build_model("linear", SHAPE, 2)
    network.register_buffer("mean", torch.zeros(2), persistent=False)
    return network


def test_a_buffer_that_training_changed_must_be_persistent(tmp_path):
    declared = DECLARED | {"model": f"{__name__}:centred"}
    network = centred()
    save_model(tmp_path / "new.safetensors", network, **declared)
    network.mean += 1
    with pytest.raises(ValueError, match=r"module: .* without 'mean'; .* persistent=True"):
        save_model(tmp_path / "m.safetensors", network, **declared)
    assert [file.name for file in tmp_path.iterdir()] == ["new.safetensors"]
