"""The average of weights: what it follows, how fast, and changing places with the network."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from genxd_core.errors import InvalidInputError, WeightsError
from trainer.ema import WeightAverage


class Net(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.trained = nn.Parameter(torch.tensor([1.0, 2.0], dtype=dtype))
        self.frozen = nn.Parameter(torch.tensor([5.0]), requires_grad=False)


def set_to(network, *values):
    with torch.no_grad():
        network.trained.copy_(torch.tensor(values))


def test_only_trainable_parameters_are_followed():
    assert list(WeightAverage(Net(), 10.0).values) == ["trained"]


def test_network_without_trainable_parameters_is_refused():
    with pytest.raises(InvalidInputError, match="no parameter that requires a gradient"):
        WeightAverage(Net().requires_grad_(False), 10.0)


def test_first_values_are_a_copy_in_float32():
    network = Net(torch.bfloat16)
    average = WeightAverage(network, 10.0)
    set_to(network, 7.0, 8.0)
    assert average.values["trained"].dtype == torch.float32
    assert average.values["trained"].tolist() == [1.0, 2.0]


def test_share_of_a_value_halves_after_the_half_life():
    network = Net()
    average = WeightAverage(network, 2.0)
    set_to(network, 0.0, 0.0)
    # From step 8 on the half-life is the one given: two steps leave half of [1, 2].
    for step in (100, 101):
        average.update(network, step)
    torch.testing.assert_close(average.values["trained"], torch.tensor([0.5, 1.0]))


def test_memory_is_short_at_first():
    network = Net()
    average = WeightAverage(network, 1000.0)
    set_to(network, 0.0, 0.0)
    average.update(network, 1)  # a half-life of a quarter of a step leaves a sixteenth
    torch.testing.assert_close(average.values["trained"], torch.tensor([1.0, 2.0]) / 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swapping_gives_the_averages_and_then_every_bit_back(dtype):
    network = Net(dtype)
    average = WeightAverage(network, 10.0)
    set_to(network, 1 / 3, -0.1)
    own = network.trained.detach().clone()
    parameter = network.trained
    with average.swapped(network):
        assert network.trained is parameter
        assert network.trained.tolist() == [1.0, 2.0]
        assert network.frozen.tolist() == [5.0]
    assert torch.equal(network.trained, own)
    assert average.values["trained"].tolist() == [1.0, 2.0]


def test_swapping_gives_back_after_an_error():
    network = Net()
    average = WeightAverage(network, 10.0)
    set_to(network, 3.0, 4.0)

    def fail():
        assert network.trained.tolist() == [1.0, 2.0]
        raise ArithmeticError

    with pytest.raises(ArithmeticError), average.swapped(network):
        fail()
    assert network.trained.tolist() == [3.0, 4.0]


def test_another_network_is_refused_and_left_alone():
    average = WeightAverage(Net(), 10.0)
    wrapped = nn.Sequential(Net())
    with pytest.raises(InvalidInputError, match=r"has no trained .*without a wrapper"):
        average.update(wrapped, 1)
    with pytest.raises(InvalidInputError, match="has no trained"), average.swapped(wrapped):
        pass


def test_state_goes_into_the_tensors_that_are_there():
    average, other = WeightAverage(Net(), 10.0), WeightAverage(Net(), 10.0)
    average.values["trained"].mul_(3)
    tensor = other.values["trained"]
    other.load_state_dict(average.state_dict())
    assert other.values["trained"] is tensor
    assert tensor.tolist() == [3.0, 6.0]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"lacks 1 tensors \(trained\)"),
        ({"trained": torch.ones(2), "more": torch.ones(1)}, r"has besides 1 tensors \(more\)"),
        ({"trained": torch.ones(3)}, r"has in another shape 1 tensors \(trained\)"),
    ],
)
def test_state_of_another_training_is_refused(state, message):
    average = WeightAverage(Net(), 10.0)
    with pytest.raises(WeightsError, match=message):
        average.load_state_dict(state)
    assert average.values["trained"].tolist() == [1.0, 2.0]


@pytest.fixture
def process_group(tmp_path):
    """A group of this process alone: parameters are sharded as among several."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded(network):
    for layer in network:
        fully_shard(layer)
    fully_shard(network)
    return network


def whole(parameter):
    return parameter.full_tensor().detach().clone()


@pytest.mark.slow
def test_average_of_sharded_parameters_is_sharded_and_changes_places(process_group):
    layers = [nn.Linear(3, 3), nn.Linear(3, 3)]
    layers[0].bias.requires_grad_(False)
    network = sharded(nn.Sequential(*layers))
    average = WeightAverage(network, 1.0)
    start = {name: whole(value) for name, value in average.values.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    average.update(network, 100)  # halfway from x to 3 x
    assert list(start) == ["0.weight", "1.weight", "1.bias"]
    for name, value in average.values.items():
        torch.testing.assert_close(whole(value), 2 * start[name])
    with torch.no_grad():
        network(torch.ones(1, 3))  # leaves whole parameters behind
        with average.swapped(network):
            out = network(torch.ones(1, 3))
        after = network(torch.ones(1, 3))
    first = torch.ones(1, 3) @ (2 * start["0.weight"]).T + whole_bias(network)
    torch.testing.assert_close(out, first @ (2 * start["1.weight"]).T + 2 * start["1.bias"])
    first = torch.ones(1, 3) @ (3 * start["0.weight"]).T + whole_bias(network)
    torch.testing.assert_close(after, first @ (3 * start["1.weight"]).T + 3 * start["1.bias"])


def whole_bias(network):
    """The frozen bias, which no average follows."""
    network[0].reshard()
    return whole(network[0].bias)
