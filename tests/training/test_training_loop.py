"""Training on batches of any source: optimizers, averages of weights, and several devices."""

import math
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import db3kd
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.loop import train_batches
from db3kd.training.optimization import WeightAverage
from db3kd.training.process import TrainingProcess
from db3kd.training.row_batches import RowBatches
from db3kd.training.settings import TrainSettings
from db3kd.training.train import train

RATE = 0.05


class Numbered:
    """A batch of 6 rows for each step, drawn from the number of the step."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def open(self, process: TrainingProcess):
        def batch(step: int) -> tuple[Tensor, ...]:
            self.asked.append(step)
            random = torch.Generator().manual_seed(step)
            images = torch.rand(6, 1, 3, 3, generator=random)
            return images.to(process.device), (images.mean((1, 2, 3)) > 0.5).long()

        return batch


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 2))


def settings(**changes: object) -> TrainSettings:
    return TrainSettings(**{"steps": 30, "learning_rate": RATE, "device": "cpu", **changes})


def vector(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach()


class Plain:
    """The same training in a few lines of PyTorch."""

    def __init__(self, make_optimizer, clip: float | None = None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = linear()
        self.history = []
        optimizer = make_optimizer(self.network.parameters())
        batch = Numbered().open(TrainingProcess(torch.device("cpu"), "no"))
        for step in range(30):
            images, classes = batch(step)
            optimizer.zero_grad()
            F.cross_entropy(self.network(images), classes).backward()
            if clip is not None:
                norm = torch.cat([p.grad.flatten() for p in self.network.parameters()]).norm()
                for parameter in self.network.parameters():
                    parameter.grad *= min(1.0, clip / (float(norm) + 1e-6))
            optimizer.step()
            self.history.append(vector(self.network))


@pytest.mark.parametrize(
    ("changes", "make_optimizer"),
    [
        ({}, lambda p: torch.optim.Adam(p, RATE)),
        ({"weight_decay": 0.1}, lambda p: torch.optim.Adam(p, RATE, weight_decay=0.1)),
        (
            {"optimizer": "adamw", "weight_decay": 0.1},
            lambda p: torch.optim.AdamW(p, RATE, weight_decay=0.1),
        ),
        ({"optimizer": "adamw"}, lambda p: torch.optim.Adam(p, RATE)),
        (
            {"optimizer": "sgd", "weight_decay": 0.1},
            lambda p: torch.optim.SGD(p, RATE, momentum=0.9, nesterov=True, weight_decay=0.1),
        ),
    ],
)
def test_optimizers_do_the_steps_of_plain_pytorch(changes, make_optimizer):
    trained = train_batches(linear, Numbered(), F.cross_entropy, settings(**changes))
    torch.testing.assert_close(vector(trained), Plain(make_optimizer).history[-1])


def test_the_gradient_is_clipped_to_its_norm():
    trained = train_batches(
        linear, Numbered(), F.cross_entropy, settings(optimizer="sgd", gradient_clip=0.05)
    )
    plain = Plain(lambda p: torch.optim.SGD(p, RATE, momentum=0.9, nesterov=True), clip=0.05)
    torch.testing.assert_close(vector(trained), plain.history[-1])


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_ema_is_the_weighted_mean_of_the_weights_after_each_step(decay):
    trained = train_batches(linear, Numbered(), F.cross_entropy, settings(ema=decay))

    history = torch.stack(Plain(lambda p: torch.optim.Adam(p, RATE)).history).double()
    shares = torch.tensor([decay ** (30 - step) for step in range(1, 31)], dtype=torch.float64)
    expected = (shares / shares.sum()) @ history
    torch.testing.assert_close(vector(trained).double(), expected, rtol=1e-5, atol=1e-6)
    assert all(parameter.requires_grad for parameter in trained.parameters())
    assert not trained.training


def test_the_first_update_of_an_average_replaces_the_initial_weights():
    network = nn.Linear(3, 2)
    average = WeightAverage(network, 0.99)
    with torch.no_grad():
        network.weight.fill_(5.0)
    average.update(1)
    assert torch.equal(average.network.weight, network.weight)


def test_an_averaged_network_has_the_batch_statistics_of_the_last_step():
    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(9), nn.Linear(9, 2))

    trained = train_batches(make, Numbered(), F.cross_entropy, settings(ema=0.9))
    other = train_batches(make, Numbered(), F.cross_entropy, settings())
    # The statistics depend on the images alone, since the layer is the first.
    assert torch.equal(trained[1].running_mean, other[1].running_mean)
    assert trained[1].num_batches_tracked == 30
    assert not torch.equal(trained[2].weight, other[2].weight)


def test_lazy_modules_are_trained_and_averaged():
    def lazy() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyBatchNorm1d(), nn.LazyLinear(2))

    model = train_batches(lazy, Numbered(), F.cross_entropy, settings(ema=0.9))
    assert model[2].weight.shape == (2, 9)


def test_each_step_gets_its_batch_once():
    source = Numbered()
    train_batches(linear, source, F.cross_entropy, settings())
    assert source.asked == list(range(30))


def test_a_training_on_rows_is_one_on_their_batches():
    images = torch.rand(50, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(50) % 2
    chosen = settings(batch_size=8, seed=3)
    source = RowBatches(images, [classes], torch.arange(50), chosen)
    from_batches = train_batches(linear, source, F.cross_entropy, chosen)
    assert torch.equal(
        vector(from_batches), vector(train(linear, images, classes, None, F.cross_entropy, chosen))
    )


def test_batches_of_rows_depend_on_the_step_alone():
    images = torch.rand(23, 1, 3, 3)
    source = RowBatches(images, [torch.arange(23)], torch.arange(23), settings(batch_size=5))
    process = TrainingProcess(torch.device("cpu"), "no")
    forwards = source.open(process)
    expected = [forwards(step)[1] for step in range(20)]
    jumping = source.open(process)
    for step in (17, 3, 3, 19, 0, 4, 5):
        assert torch.equal(jumping(step)[1], expected[step])
    assert torch.cat(expected[5:10]).sort().values.tolist() == list(range(23))
    assert not torch.equal(torch.cat(expected[:5]), torch.cat(expected[5:10]))


def test_processes_share_the_batches_of_rows():
    images = torch.rand(23, 1, 3, 3)
    source = RowBatches(images, [torch.arange(23)], torch.arange(23), settings(batch_size=6))
    device = torch.device("cpu")
    whole = source.open(TrainingProcess(device, "no"))(2)[1]
    parts = [source.open(TrainingProcess(device, "no", index, 3))(2)[1] for index in range(3)]
    assert torch.equal(torch.cat(parts), whole)
    with pytest.raises(ValueError, match="rows: expected at least 7 in each batch, one for each"):
        source.open(TrainingProcess(device, "no", 0, 7))


def test_the_random_state_of_the_caller_and_of_the_training_is_independent_of_callbacks():
    class Drawing(TrainingCallback):
        def on_report(self, state):
            torch.rand(3)
            state.network.eval()

    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(9, 2))

    before = torch.get_rng_state()
    plain = train_batches(make, Numbered(), F.cross_entropy, settings())
    drawing = train_batches(make, Numbered(), F.cross_entropy, settings(), callbacks=[Drawing()])
    assert torch.equal(vector(plain), vector(drawing))
    assert torch.equal(torch.get_rng_state(), before)


def test_trainings_in_several_threads_do_not_disturb_each_other():
    begun, other = threading.Event(), []

    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(9, 2))

    def make_other() -> nn.Module:
        begun.set()
        return make()

    def train_other() -> None:
        other.append(train_batches(make_other, Numbered(), F.cross_entropy, settings(seed=1)))

    thread = threading.Thread(target=train_other)

    class Starting(TrainingCallback):
        def on_start(self, state):
            thread.start()
            begun.wait(0.05)  # it begins only if it does not wait for this training

    found = train_batches(make, Numbered(), F.cross_entropy, settings(), callbacks=[Starting()])
    thread.join()
    for network, seed in (found, 0), (other[0], 1):
        expected = train_batches(make, Numbered(), F.cross_entropy, settings(seed=seed))
        assert torch.equal(vector(network), vector(expected))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lion"}, "optimizer: expected one of adam, adamw, sgd, got 'lion'"),
        ({"weight_decay": -0.1}, "weight_decay: .*got -0.1"),
        ({"weight_decay": math.nan}, "weight_decay: .*got nan"),
        ({"ema": 1.0}, "ema: expected None or a number between 0 and 1, got 1.0"),
        ({"ema": 0.0}, "ema: .*got 0.0"),
        ({"gradient_clip": 0.0}, "gradient_clip: expected a finite number above 0"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_training_needs_steps_and_a_scalar_loss():
    with pytest.raises(ValueError, match=r"settings\.steps: expected the number of steps, got"):
        train_batches(linear, Numbered(), F.cross_entropy, settings(steps=None))

    def of_rows(logits: Tensor, classes: Tensor) -> Tensor:
        return F.cross_entropy(logits, classes, reduction="none")

    with pytest.raises(ValueError, match=r"loss: expected a scalar, got \[6\]; take its mean"):
        train_batches(linear, Numbered(), of_rows, settings())


class Drawn:
    """A source whose batches a function makes."""

    def __init__(self, draw) -> None:
        self.draw = draw

    def open(self, process):
        return self.draw


BATCH = (torch.rand(6, 1, 3, 3), torch.zeros(6, dtype=torch.int64))


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        (lambda step: BATCH, TypeError, r"an object with a method open\(process\).*got function"),
        (None, TypeError, "an object with a method open.* got None"),
        (Drawn, TypeError, "an object with a method open.* got the class Drawn"),
        (Drawn(None), TypeError, "a function from a step .* got None; does it return"),
        (Drawn(lambda step: None), TypeError, "for step 0 as a tuple, got None"),
        (Drawn(lambda step: BATCH[0]), TypeError, r"a tensor \[6, 1, 3, 3\]; return a tuple"),
        (Drawn(lambda step: ()), TypeError, "for step 0, got an empty tuple"),
        (Drawn(lambda step: ("a", BATCH[1])), TypeError, "for step 0, got 'a' as the images"),
        (
            Drawn(lambda step: (BATCH[0][:0], BATCH[1][:0])),
            ValueError,
            r"got images \[0, 1, 3, 3\]",
        ),
        (Drawn(lambda step: BATCH if step < 3 else None), TypeError, "for step 3 as a tuple"),
    ],
)
def test_a_wrong_source_or_batch_is_named(source, kind, words):
    with pytest.raises(kind, match=f"^batches: expected .*{words}"):
        train_batches(linear, source, F.cross_entropy, settings())


class Pair(nn.Module):
    def forward(self, images):
        return images, images


@pytest.mark.parametrize(
    ("loss", "kind", "words"),
    [
        (None, TypeError, "expected a function from logits and targets to a scalar, got None"),
        (lambda logits, classes: 3.0, TypeError, "expected a scalar tensor, got 3.0"),
        (lambda logits, classes: None, TypeError, "expected a scalar tensor, got None"),
        (
            lambda logits, classes: F.cross_entropy(logits, classes).detach(),
            ValueError,
            "expected a scalar with a gradient, got a detached one",
        ),
    ],
)
def test_a_wrong_loss_is_named(loss, kind, words):
    with pytest.raises(kind, match=f"^loss: {words}"):
        train_batches(linear, Numbered(), loss, settings())


@pytest.mark.parametrize(
    ("network", "kind", "words"),
    [
        (linear().requires_grad_(False), ValueError, "expected a network with weights to train"),
        (nn.Sequential(nn.Linear(3, 3), Pair()), TypeError, "expected logits .* got tuple"),
    ],
)
def test_a_network_that_cannot_be_trained_is_named(network, kind, words):
    with pytest.raises(kind, match=f"^model: {words}"):
        train_batches(network, Numbered(), F.cross_entropy, settings())


def test_public_names_are_those_of_the_package():
    assert db3kd.train_batches is train_batches
    assert db3kd.TrainingCallback is TrainingCallback
