"""What a fit changes: the Gaussians as free numbers, with Adam's moments, and their surgery.

Free numbers have no bounds: logarithms of scales, logits of opacities and of base colours.

Dimension letters: n Gaussians.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .gaussians import Gaussians
from .gaussians_4d import FreeValues, free_values
from .recipes import FitRecipe
from .sh import rgb_to_sh0

__all__ = ["FreeGaussians"]

_LEAST_COLOUR = 0.01  # so that logits of black and white start finite, and can move
_LEAST_SCALE = 1e-12


class FreeGaussians:
    """Gaussians under optimisation.

    Args:
        means: (N, 3) in scene units.
        scales: (N,) linear; Gaussians start round.
        rgb: (N, 3) in [0, 1].
        opacity: of all.
        recipe: learning rates and the degree of the colours.
        unit: length in the scene that ``lr_means`` is a fraction of.
    """

    def __init__(
        self,
        means: Float[Tensor, "n 3"],
        scales: Float[Tensor, " n"],
        rgb: Float[Tensor, "n 3"],
        *,
        opacity: float,
        recipe: FitRecipe,
        unit: float,
    ) -> None:
        count = len(means)
        values = {
            "means": means.clone(),
            "log_scales": scales.clamp_min(_LEAST_SCALE).log()[:, None].repeat(1, 3),
            "quats": means.new_tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
            "logits": torch.logit(means.new_full((count,), opacity)),
            "colours": torch.logit(rgb.clamp(_LEAST_COLOUR, 1 - _LEAST_COLOUR)),
        }
        self._optimise(values, recipe, unit)

    @classmethod
    def resumed(cls, gaussians: Gaussians, *, recipe: FitRecipe, unit: float) -> "FreeGaussians":
        """Go on with Gaussians that were fitted before, with moments of 0.

        Args:
            gaussians: of any degree; the recipe's is kept.
            recipe: learning rates and the degree of the colours.
            unit: length in the scene that ``lr_means`` is a fraction of.
        """
        kept = gaussians.detach().with_degree(recipe.sh_degree)
        values = {
            **{k: v for k, v in free_values(kept)._asdict().items() if v is not None},
            "colours": torch.logit(kept.rgb.clamp(_LEAST_COLOUR, 1 - _LEAST_COLOUR)),
        }
        values = {name: value.clone() for name, value in values.items()}
        found = cls.__new__(cls)
        found._optimise(values, recipe, unit)
        if recipe.sh_degree:
            with torch.no_grad():
                found._values["rest"].copy_(kept.sh[:, 1:])
        return found

    def _optimise(self, values: dict[str, Tensor], recipe: FitRecipe, unit: float) -> None:
        means = values["means"]
        rates = {
            "means": recipe.lr_means * unit,
            "log_scales": recipe.lr_scales,
            "quats": recipe.lr_quats,
            "logits": recipe.lr_opacities,
            "colours": recipe.lr_colours,
        }
        if recipe.sh_degree:
            num_rest = (recipe.sh_degree + 1) ** 2 - 1
            values["rest"] = means.new_zeros(len(means), num_rest, 3)
            rates["rest"] = recipe.lr_colours / 20
        self._values = {name: value.requires_grad_() for name, value in values.items()}
        self._decay = (recipe.lr_means_end / max(recipe.lr_means, 1e-30)) if recipe.lr_means else 1
        self._optimiser = torch.optim.Adam(
            [
                {"params": [value], "lr": rates[name], "name": name}
                for name, value in self._values.items()
            ],
            eps=1e-15,
            fused=means.device.type in ("cpu", "cuda"),
        )
        self._rates = rates
        self._others_end = recipe.lr_others_end

    def __len__(self) -> int:
        return len(self._values["means"])

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    @property
    def scales(self) -> Float[Tensor, "n 3"]:
        """Linear scales."""
        return self._values["log_scales"].exp()

    @property
    def opacities(self) -> Float[Tensor, " n"]:
        """In (0, 1)."""
        return self._values["logits"].sigmoid()

    def moving(self) -> FreeValues:
        """What motions change."""
        kept = self._values
        quats = torch.nn.functional.normalize(kept["quats"], dim=-1)
        return FreeValues(kept["means"], quats, kept["log_scales"], kept["logits"])

    def colours(self, degree: int) -> Tensor:
        """(N, 3) in (0, 1) for degree 0, else (N, K, 3) spherical harmonics of that degree."""
        rgb = self._values["colours"].sigmoid()
        if degree == 0 or "rest" not in self._values:
            return rgb
        rest = self._values["rest"][:, : (degree + 1) ** 2 - 1]
        return torch.cat([rgb_to_sh0(rgb)[:, None], rest], 1)

    def gaussians(self) -> Gaussians:
        """As they are now, without gradients."""
        with torch.no_grad():
            rgb = self._values["colours"].sigmoid()
            sh = rgb_to_sh0(rgb)[:, None]
            if "rest" in self._values:
                sh = torch.cat([sh, self._values["rest"]], 1)
            return Gaussians(
                self._values["means"].clone(),
                self._values["quats"].clone(),
                self.scales,
                self.opacities,
                sh.clone(),
            )

    def step(self, done: float) -> None:
        """One step of Adam, and none of the gradients left.

        Args:
            done: share of the iterations that lie behind, in [0, 1].
        """
        for group in self._optimiser.param_groups:
            end = self._decay if group["name"] == "means" else self._others_end
            group["lr"] = self._rates[group["name"]] * end**done
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    @torch.no_grad()
    def keep(self, which: Bool[Tensor, " n"]) -> None:
        """Drop all other Gaussians."""
        self._replace({name: value[which] for name, value in self._values.items()}, which, 0)

    @torch.no_grad()
    def append(self, values: Mapping[str, Tensor]) -> None:
        """Add Gaussians; every free number of each is given."""
        added = len(values["means"])
        joined = {
            name: torch.cat([value, values[name].to(value)]) for name, value in self._values.items()
        }
        self._replace(joined, None, added)

    @torch.no_grad()
    def overwrite(self, index: Int[Tensor, " k"], values: Mapping[str, Tensor]) -> None:
        """Give some Gaussians new numbers, all or some of their kinds, with moments of 0."""
        for group in self._optimiser.param_groups:
            if group["name"] not in values:
                continue
            value = group["params"][0]
            value[index] = values[group["name"]].to(value)
            for name, moment in self._optimiser.state.get(value, {}).items():
                if name != "step":
                    moment[index] = 0

    def copies(self, index: Int[Tensor, " k"]) -> dict[str, Tensor]:
        """All free numbers of some Gaussians."""
        return {name: value.detach()[index] for name, value in self._values.items()}

    def _replace(self, values: dict[str, Tensor], which: Tensor | None, added: int) -> None:
        for group in self._optimiser.param_groups:
            old, new = group["params"][0], values[group["name"]].requires_grad_()
            state = self._optimiser.state.pop(old, None)
            if state is not None:
                for name, moment in list(state.items()):
                    if name == "step":
                        continue
                    kept = moment if which is None else moment[which]
                    state[name] = torch.cat([kept, kept.new_zeros(added, *kept.shape[1:])])
                self._optimiser.state[new] = state
            group["params"] = [new]
            self._values[group["name"]] = new
