"""An exponential moving average of the weights that are trained."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from genxd_core.errors import InvalidInputError, WeightsError

__all__ = ["WeightAverage"]


class WeightAverage:
    """Average of a network's trainable parameters, kept in float32 beside it.

    Only elementwise operations are used, so that parameters may be sharded (FSDP2's DTensors): the
    average is then sharded as they are. Make it of a network that is sharded already.

    Args:
        network: whose parameters to follow: those that require gradients now.
        half_life: steps after which a value's share has halved.

    Attributes:
        values: the averages by the parameters' names.

    Raises:
        InvalidInputError: nothing of the network is trained.
    """

    def __init__(self, network: nn.Module, half_life: float) -> None:
        self.half_life = half_life
        self.values: dict[str, Tensor] = {
            # A copy, also of what is in float32 already.
            name: value.detach().to(torch.float32, copy=True)
            for name, value in network.named_parameters()
            if value.requires_grad
        }
        if not self.values:
            raise InvalidInputError(
                "the network has no parameter that requires a gradient, so there is nothing to "
                "average; freeze less of it."
            )

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the parameters after optimiser step ``step`` (from 1).

        Raises:
            InvalidInputError: the network lacks parameters that were there at the start.
        """
        # A short memory at first, so that the initial weights are soon forgotten.
        half_life = min(self.half_life, step / 4)
        keep = 0.5 ** (1 / half_life)
        for name, value in self._followed(network).items():
            self.values[name].lerp_(value.detach().float(), 1 - keep)

    @contextmanager
    def swapped(self, network: nn.Module) -> Iterator[None]:
        """Let the network have the averages inside a ``with``; afterwards its own values again.

        They come back bit for bit, also after an error. Needs memory for a second copy of the
        parameters meanwhile; what happens to the network's values inside is lost.

        Raises:
            InvalidInputError: the network lacks parameters that were there at the start.
        """
        with torch.no_grad():
            _shard_again(network)
            followed = self._followed(network)
            kept = {name: value.detach().clone() for name, value in followed.items()}
        try:
            _copy(self.values, followed)
            yield
        finally:
            # A forward pass without a backward one leaves whole parameters behind, which FSDP2
            # throws away later; its own have to be there to be written to.
            _shard_again(network)
            _copy(kept, self._followed(network))

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name; the tensors themselves, no copies."""
        return dict(self.values)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave; copied into the tensors that are there.

        Raises:
            WeightsError: names or shapes differ; nothing is taken then.
        """
        missing = [name for name in self.values if name not in state]
        unexpected = [name for name in state if name not in self.values]
        misshaped = [
            name
            for name, value in self.values.items()
            if name in state and state[name].shape != value.shape
        ]
        for problem, names in (
            ("lacks", missing),
            ("has besides", unexpected),
            ("has in another shape", misshaped),
        ):
            if names:
                raise WeightsError(
                    f"the averages to go on from are of another network or training: their state "
                    f"{problem} {len(names)} tensors ({', '.join(names[:5])}"
                    f"{', ...' if names[5:] else ''}). Nothing was loaded."
                )
        _copy(state, self.values)

    def _followed(self, network: nn.Module) -> dict[str, nn.Parameter]:
        there = dict(network.named_parameters())
        missing = [name for name in self.values if name not in there]
        if missing:
            raise InvalidInputError(
                f"the network has no {missing[0]} (and lacks {len(missing)} averaged parameters in "
                "all); give the network that the average was made of, without a wrapper."
            )
        return {name: there[name] for name in self.values}


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        value.detach().copy_(source[name])


def _shard_again(network: nn.Module) -> None:
    """Free the whole parameters that FSDP2 keeps after a forward pass; nothing for others."""
    for module in network.modules():
        reshard = getattr(module, "reshard", None)
        if callable(reshard):
            reshard()
