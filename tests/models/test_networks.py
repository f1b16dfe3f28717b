import pytest
import torch
from torch import nn

from db3kd.models.ensemble import Ensemble
from db3kd.models.networks import ResNet, build_model, model_names


def two_layers(image_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * 4, classes))


def not_a_module(image_shape, classes):
    return "surprise"


def parameter_count(name, image_shape, classes=10):
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(name, image_shape, classes).parameters())


@pytest.mark.parametrize("name", model_names())
def test_every_model_scores_every_class_of_small_colour_images(name):
    with torch.device("meta"):
        module = build_model(name, (3, 32, 32), 7).eval()
        assert module(torch.empty(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("side", [4, 8, 15, 16, 28, 33])
@pytest.mark.parametrize("name", ["lenet5", "lenet5-half", "lenet5-fifth"])
def test_lenet_takes_images_of_any_size_from_four_pixels(name, side):
    assert build_model(name, (1, side, side + 1), 10)(torch.rand(2, 1, side, side + 1)).shape == (
        2,
        10,
    )


def test_lenet_pools_before_relu_with_the_scores_and_gradients_of_the_usual_order():
    network = build_model("lenet5", (1, 28, 28), 10)
    images = torch.randn(8, 1, 28, 28)
    usual = network.classifier(network.features(images).flatten(1))
    scores = network(images)
    assert torch.equal(scores, usual)
    weights = list(network.parameters())
    for found, expected in zip(
        torch.autograd.grad(scores.square().sum(), weights),
        torch.autograd.grad(usual.square().sum(), weights),
        strict=True,
    ):
        assert torch.equal(found, expected)


def test_lenets_have_the_widths_of_the_paper():
    # Weights and biases of two convolutions and two linear layers over a 4x4 map.
    for name, (first, second, hidden) in {
        "lenet5": (20, 50, 200),
        "lenet5-half": (10, 25, 100),
        "lenet5-fifth": (4, 10, 40),
    }.items():
        expected = (
            26 * first + (25 * first + 1) * second + (16 * second + 1) * hidden + (hidden + 1) * 10
        )
        assert parameter_count(name, (1, 28, 28)) == expected


def test_alexnets_have_the_widths_of_the_paper():
    for name, divisor in {"alexnet": 1, "alexnet-half": 2, "alexnet-quarter": 4}.items():
        with torch.device("meta"):
            layers = list(build_model(name, (3, 32, 32), 10).modules())
        filters = [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)]
        hidden = [layer.out_features for layer in layers if isinstance(layer, nn.Linear)]
        assert filters == [width // divisor for width in (64, 192, 384, 256, 256)]
        assert hidden == [4096 // divisor, 4096 // divisor, 10]


def test_resnets_have_the_size_of_the_published_ones():
    assert parameter_count("resnet18", (3, 224, 224), 1000) == 11_689_512
    assert parameter_count("resnet34", (3, 224, 224), 1000) == 21_797_672


@pytest.mark.parametrize(("name", "width"), [("resnet8", 16), ("resnet8-half", 8)])
def test_resnet8_has_three_stages_of_one_block(name, width):
    # Per convolution its weights and the scale and shift of its batch norm: a stem, six 3x3 ones
    # in blocks, and a 1x1 shortcut in each stage that changes the width.
    stem = 27 * width + 2 * width
    same = 2 * (9 * width * width + 2 * width)
    doubled = sum(
        9 * low * 2 * low + 4 * low + 9 * 4 * low * low + 4 * low + 2 * low * low + 4 * low
        for low in (width, 2 * width)
    )
    assert parameter_count(name, (3, 32, 32)) == stem + same + doubled + (4 * width + 1) * 10
    with torch.device("meta"):
        network = build_model(name, (3, 32, 32), 10)
        maps = network.blocks(network.stem(torch.empty(1, 3, 32, 32)))
    assert maps.shape == (1, 4 * width, 8, 8)


def test_a_resnet_keeps_small_images_large():
    with torch.device("meta"):
        small = ResNet((3, 32, 32), 10, blocks=(1, 1, 1, 1))
        large = ResNet((3, 224, 224), 10, blocks=(1, 1, 1, 1))
        forced = ResNet((3, 32, 32), 10, blocks=(1, 1, 1, 1), small_images=False)
        assert small.stem(torch.empty(1, 3, 32, 32)).shape == (1, 64, 32, 32)
        assert large.stem(torch.empty(1, 3, 224, 224)).shape == (1, 64, 56, 56)
        assert forced.stem(torch.empty(1, 3, 32, 32)).shape == (1, 64, 8, 8)


def test_mlps_take_rows_and_images_and_have_two_hidden_layers():
    for name, hidden in {"mlp": 128, "mlp-half": 64, "mlp-quarter": 32}.items():
        expected = (13 + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * 3
        assert parameter_count(name, (13,), 3) == expected
        assert build_model(name, (13,), 3)(torch.rand(2, 13)).shape == (2, 3)
        assert build_model(name, (1, 2, 3), 3)(torch.rand(2, 1, 2, 3)).shape == (2, 3)


def test_a_factory_is_called_by_its_name():
    assert build_model("test_networks:two_layers", (1, 2, 2), 3)(torch.rand(5, 1, 2, 2)).shape == (
        5,
        3,
    )


def test_an_ensemble_averages_log_probabilities():
    ensemble = build_model("linear*3", (4,), 3)
    rows = torch.rand(5, 4)
    expected = torch.stack([one(rows).log_softmax(1) for one in ensemble.networks]).mean(0)
    assert len(ensemble.networks) == 3
    torch.testing.assert_close(ensemble(rows), expected)
    assert not torch.equal(ensemble.networks[0](rows), ensemble.networks[1](rows))
    with pytest.raises(ValueError, match="networks: expected at least one network, got none"):
        Ensemble([])


@pytest.mark.parametrize(
    ("name", "shape", "classes", "kind", "message"),
    [
        *(
            (name, (4,), 3, ValueError, r"model: expected the number of networks, 2 to 16")
            for name in ("mlp*1", "mlp*17", "mlp*", "mlp*two", "mlp*2*2", "mlp*-2")
        ),
        ("lenet6*2", (1, 28, 28), 10, ValueError, "model: expected one of lenet5.*got 'lenet6'"),
        ("lenet6", (1, 28, 28), 10, ValueError, "model: expected one of lenet5.*got 'lenet6'"),
        ("lenet5", (1, 3, 3), 10, ValueError, "model: LeNet-5 needs images of at least 4x4"),
        ("alexnet", (3, 4, 4), 10, ValueError, "model: AlexNet needs images of at least 8x8"),
        ("lenet5", (784,), 10, ValueError, r"needs images of shape \(channels, height, width\)"),
        ("lenet5", (1, 28, 28), 1, ValueError, "classes: expected an integer of at least 2"),
        (
            "test_networks:not_a_module",
            (1, 2, 2),
            2,
            TypeError,
            "to return a torch.nn.Module, got str",
        ),
    ],
)
def test_a_network_that_cannot_be_built_is_explained(name, shape, classes, kind, message):
    with pytest.raises(kind, match=message):
        build_model(name, shape, classes)
