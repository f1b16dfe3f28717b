"""Networks that are trained once, whatever stops the program or damages a file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.training.callbacks import TrainingCallback, TrainingState
from db3kd.training.checkpoint import Checkpoint
from db3kd.training.loop import train_batches
from db3kd.training.network_store import NetworkStore
from db3kd.training.settings import TrainSettings

SETTINGS = TrainSettings(steps=10, learning_rate=0.01, schedule="cosine", device="cpu")


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


class Rows:
    """Random images, and their brightness as a class."""

    def open(self, process: object) -> Callable[[int], tuple[Tensor, ...]]:
        def batch(step: int) -> tuple[Tensor, ...]:
            images = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(step))
            return images, (images.mean((1, 2, 3)) * 3).long()

        return batch


class Steps(TrainingCallback):
    """Notes the steps that are done, and may stop a training by an error."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.seen: list[int] = []
        self.fail_at = fail_at

    def on_report(self, state: TrainingState) -> None:
        self.seen.append(state.step)
        if state.step == self.fail_at:
            raise KeyboardInterrupt


class Keeping(Steps):
    """A callback with a state, which belongs to a checkpoint."""

    def state_dict(self) -> dict[str, object]:
        return {"seen": self.seen}


def get(
    folder: Path,
    steps: Steps | None = None,
    name: str = "net",
    every: float = 30.0,
    **identity: int,
) -> nn.Module:
    def train(checkpoint: Checkpoint) -> nn.Module:
        callbacks = [] if steps is None else [steps]
        return train_batches(
            network, Rows(), F.cross_entropy, SETTINGS, checkpoint=checkpoint, callbacks=callbacks
        )

    return NetworkStore(folder, {"run": "a"}, every_seconds=every).get(
        name, network, train, identity
    )


def values(model: nn.Module) -> Tensor:
    return torch.cat([value.double().flatten() for value in model.state_dict().values()])


@pytest.fixture
def whole(tmp_path) -> Tensor:
    return values(get(tmp_path / "whole"))


def test_a_network_is_trained_once_and_read_afterwards(tmp_path, whole):
    first, second = Steps(), Steps()
    trained = get(tmp_path / "nets", first)
    state = torch.get_rng_state()
    read = get(tmp_path / "nets", second)

    assert len(first.seen) == 10 and second.seen == []
    assert values(read).equal(values(trained)) and values(read).equal(whole)
    assert not read.training
    assert torch.get_rng_state().equal(state)
    assert [file.name for file in (tmp_path / "nets").iterdir()] == ["net.safetensors"]


def test_another_identity_is_another_training_of_the_same_name(tmp_path):
    get(tmp_path, seed=0)
    again, other = Steps(), Steps()
    get(tmp_path, other, seed=1)
    get(tmp_path, again, seed=0)

    assert len(other.seen) == 10 and len(again.seen) == 10, "the file of the name was replaced"
    assert len(list(tmp_path.iterdir())) == 1


def test_two_names_do_not_share_a_file_or_a_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, Steps(fail_at=4), name="proxy-10", every=0.0)
    get(tmp_path, name="proxy-1")

    assert len(list(tmp_path.glob("proxy-10-*.checkpoint"))) == 1


def test_a_stopped_training_continues_where_it_was(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path / "nets", Steps(fail_at=6), every=0.0)
    (checkpoint,) = (tmp_path / "nets").iterdir()
    assert checkpoint.suffix == ".checkpoint"

    rest = Steps()
    assert values(get(tmp_path / "nets", rest)).equal(whole)
    assert rest.seen == list(range(6, 11)), "the last step was not kept"
    assert not checkpoint.exists()


def test_only_the_networks_that_are_still_needed_are_kept(tmp_path):
    for name in ("student", "proxy-0", "proxy-1", "round-1-proxy-0"):
        get(tmp_path, name=name)
    for name in ("student-0123.checkpoint", ".student.safetensors.0123.tmp", "notes.txt"):
        (tmp_path / name).write_bytes(b"")

    NetworkStore(tmp_path, {}).keep_only(["student", "proxy-*"])

    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "notes.txt",
        "proxy-0.safetensors",
        "proxy-1.safetensors",
        "student.safetensors",
    ]


def damaged(file: Path) -> list[bytes]:
    """The content of a file after some accidents."""
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[-5] ^= 1
    return [b"", content[:7], content[: len(content) // 2], content[:-1], bytes(flipped)]


def test_a_damaged_file_is_trained_again(tmp_path, whole):
    get(tmp_path / "nets")
    file = tmp_path / "nets" / "net.safetensors"
    for content in damaged(file):
        file.write_bytes(content)
        steps = Steps()
        assert values(get(tmp_path / "nets", steps)).equal(whole)
        assert len(steps.seen) == 10


def test_a_damaged_checkpoint_is_not_continued(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path / "nets", Steps(fail_at=6), every=0.0)
    (checkpoint,) = (tmp_path / "nets").iterdir()
    for content in damaged(checkpoint):
        checkpoint.write_bytes(content)
        (tmp_path / "nets" / "net.safetensors").unlink(missing_ok=True)
        steps = Steps()
        assert values(get(tmp_path / "nets", steps)).equal(whole)
        assert len(steps.seen) == 10


def test_a_checkpoint_with_other_callbacks_is_not_continued(tmp_path, whole, caplog):
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path / "nets", Keeping(fail_at=6), every=0.0)
    steps = Steps()

    assert values(get(tmp_path / "nets", steps)).equal(whole)
    assert len(steps.seen) == 10
    assert "callbacks" in caplog.text and "trained from the start" in caplog.text


def test_a_network_whose_code_changed_is_trained_again(tmp_path, monkeypatch):
    get(tmp_path)
    monkeypatch.setitem(
        globals(),
        "network",
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)),
    )
    steps = Steps()
    assert len(values(get(tmp_path, steps))) == len(values(network()))
    assert len(steps.seen) == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lazy_networks_and_half_precision_are_read_as_they_were_written(tmp_path, dtype):
    make = lambda: nn.Sequential(  # noqa: E731
        nn.LazyConv2d(2, 3, dtype=dtype), nn.Flatten(), nn.LazyLinear(3, dtype=dtype)
    )

    def train(checkpoint: Checkpoint) -> nn.Module:
        made = make()
        made(torch.rand(2, 1, 4, 4, dtype=dtype))
        return made

    store = NetworkStore(tmp_path, {})
    trained = store.get("net", make, train, {})
    assert values(store.get("net", make, train, {})).equal(values(trained))


@pytest.mark.parametrize(
    ("steps", "keep_longer", "other", "trained"),
    [(5, True, 0, 0), (5, False, 0, 1), (20, True, 0, 1), (5, True, 1, 1)],
)
def test_a_longer_training_is_kept_only_if_nothing_else_differs(
    tmp_path, caplog, steps, keep_longer, other, trained
):
    trainings = []

    def train(checkpoint: Checkpoint) -> nn.Module:
        trainings.append(checkpoint)
        return network()

    def stored(steps: int, keep_longer: bool, other: int) -> nn.Module:
        settings = {"steps": steps, "seed": 0}
        return NetworkStore(tmp_path, {"run": "a"}).get(
            "long", network, train, {"settings": settings, "other": other}, keep_longer
        )

    first = stored(10, False, 0)
    second = stored(steps, keep_longer, other)

    assert len(trainings) == 1 + trained
    assert ("is kept as it was trained before, for 10 steps" in caplog.text) is not bool(trained)
    if not trained:
        weights = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        assert all(before.equal(after) for before, after in weights)
