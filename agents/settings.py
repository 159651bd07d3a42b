"""The hyperparameters that every agent that learns has, and their checks."""

from collections.abc import Iterable
from typing import Any

import flax.struct
import jax

from jaxtrade.agents.optimise import linear
from jaxtrade.agents.torsos import ACTIVATIONS, TORSOS, Torso
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
    torso: "mlp", "conv" or "attention" over the window, or "gru" with a memory of `hidden_size`
    numbers (0 for the others); hidden_sizes, activation, layer_norm: of the dense layers; bfloat16:
    networks work in that type.
    """

    learning_rate: Any = 3e-4
    gamma: Any = 0.99
    max_grad_norm: Any = 0.5
    num_envs: int = static(256)
    rollout_steps: int = static(32)
    anneal_learning_rate: bool = static(True)
    hidden_sizes: tuple[int, ...] = static((64, 64))
    activation: str = static("tanh")
    torso: str = static("mlp")
    hidden_size: int = static(0)
    layer_norm: bool = static(False)
    bfloat16: bool = static(False)

    def make_torso(self) -> Torso:
        """The network below the heads."""
        return Torso(
            hidden_sizes=self.hidden_sizes,
            activation=self.activation,
            kind=self.torso,
            hidden_size=self.hidden_size,
            layer_norm=self.layer_norm,
            bfloat16=self.bfloat16,
        )

    def rate(self, progress: jax.Array) -> Any:
        """The learning rate, f32[]."""
        if not self.anneal_learning_rate:
            return self.learning_rate
        return linear(progress, self.learning_rate, 0.0)

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
        if self.torso not in TORSOS:
            raise unknown_name("torso", self.torso, TORSOS)
        if self.hidden_size < 0 or (self.hidden_size > 0) != (self.torso == "gru"):
            self.refuse("hidden_size", "1 or more with torso 'gru', 0 with every other")

    def require_no_memory(self) -> None:
        """For agents that learn from steps out of order: no recurrent torso."""
        if self.hidden_size:
            self.refuse("torso", "one without a memory: 'mlp', 'conv' or 'attention'")

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
