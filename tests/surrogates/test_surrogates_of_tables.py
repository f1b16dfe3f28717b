"""Surrogates that learn from rows of a table."""

import pytest
import torch
from table_cases import is_valid
from tasters import WINES, Taster, wines

from db3kd.models.networks import MLP, default_model
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.surrogates.training import make_surrogate
from db3kd.training.settings import TrainSettings

SETTINGS = SurrogateSettings(
    queries_per_sample=4,
    training=TrainSettings(steps=20, batch_size=16, device="cpu"),
    networks=1,
)


def test_a_surrogate_of_rows_is_an_mlp_that_asks_about_valid_mixtures():
    taster = Taster()

    surrogate = make_surrogate(taster.teacher(), wines(), SETTINGS)

    assert isinstance(surrogate.network, MLP)
    assert surrogate.queries == len(taster.rows) == 240
    assert is_valid(WINES, taster.rows)
    mixed = taster.rows["alcohol"][~taster.rows["alcohol"].isin(taster.rows["alcohol"][::4])]
    assert len(mixed) >= 170, "images of a sample are mixed, not repeated"


def test_rows_in_a_tensor_are_mixed_as_those_of_a_table():
    asked = [Taster(), Taster()]
    unit = wines().read(range(60))

    networks = [
        make_surrogate(taster.teacher(), rows, SETTINGS).network
        for taster, rows in zip(asked, (wines(), unit), strict=True)
    ]

    assert asked[0].rows.equals(asked[1].rows)
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("shape", "name"), [((13,), "mlp"), ((1, 28, 28), "lenet5"), ((3, 32, 32), "lenet5")]
)
def test_the_default_network_follows_the_shape(shape, name):
    assert default_model(shape, "lenet5") == name
    assert SurrogateSettings().model_for(shape) == name
    assert SurrogateSettings(model="linear").model_for(shape) == "linear"
