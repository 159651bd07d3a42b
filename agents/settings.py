"""The hyperparameters that every agent that learns has, and their checks."""

from collections.abc import Iterable
from typing import Any

import flax.struct

from jaxtrade.agents.networks import ACTIVATIONS, Torso
from jaxtrade.specs import JaxtradeError, unknown_name


def static(default: Any) -> Any:
    """A field that decides shapes or program text."""
    return flax.struct.field(pytree_node=False, default=default)


@flax.struct.dataclass(kw_only=True)
class Settings:
    """Data that all agents share; each algorithm is a subclass and says the rest.

    Floats are traced: a sweep over them does not recompile. learning_rate: falls linearly to 0 if
    `anneal_learning_rate`; gamma: discount of a step; max_grad_norm: global norm that gradients are
    clipped to; num_envs, rollout_steps: N environments, T steps of each between updates;
    hidden_sizes, activation: of the dense layers.
    """

    learning_rate: Any = 3e-4
    gamma: Any = 0.99
    max_grad_norm: Any = 0.5
    num_envs: int = static(256)
    rollout_steps: int = static(32)
    anneal_learning_rate: bool = static(True)
    hidden_sizes: tuple[int, ...] = static((64, 64))
    activation: str = static("tanh")

    def torso(self) -> Torso:
        """The network below the heads."""
        return Torso(hidden_sizes=self.hidden_sizes, activation=self.activation)

    def validate(self) -> None:
        """Check the values on the host.

        Raises:
            JaxtradeError: one is out of range.
        """
        self.require_counts("num_envs", "rollout_steps")
        self.require_fractions("gamma")
        self.require_positive("learning_rate", "max_grad_norm")
        if not all(type(size) is int and size > 0 for size in self.hidden_sizes):
            self.refuse("hidden_sizes", "whole numbers above 0")
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS)

    def require_counts(self, *names: str) -> None:
        """Whole numbers from 1."""
        self._require(names, lambda value: value >= 1, "1 or more")

    def require_fractions(self, *names: str) -> None:
        """Numbers from 0 to 1."""
        self._require(names, lambda value: 0 <= value <= 1, "0 to 1")

    def require_positive(self, *names: str) -> None:
        """Finite numbers from 0."""
        self._require(names, lambda value: 0 <= value < float("inf"), "0 or more, and not inf")

    def refuse(self, name: str, right: str) -> None:
        """Raise the error of a setting that is not `right`."""
        raise JaxtradeError(f"agent setting {name} is {getattr(self, name)}: give {right}")

    def _require(self, names: Iterable[str], is_good: Any, right: str) -> None:
        for name in names:
            if not is_good(getattr(self, name)):
                self.refuse(name, right)
