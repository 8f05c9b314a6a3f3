"""The optimiser: SGD, with orthogonalised steps for convolution filters if the recipe says so.

Source: Jordan et al. Muon: an optimizer for hidden layers in neural networks. 2024. Its
Newton-Schulz iteration is that of Bernstein and Newhouse, arXiv:2409.20325, with Jordan's
coefficients. Here it is used for convolution filters only, and SGD for everything else: a
classifier's weights are not a hidden layer, and vgg's are too large.

Shapes: G filters of one shape, D output channels, N = input channels × kernel pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.sgd import sgd

from towernet import torch_private
from towernet.attention.inserted import attention_parameters
from towernet.config import TrainConfig
from towernet.names import NetworkName

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# Four steps bring all but the smallest singular values near 1; tests/test_engine.py checks it.
_NUM_ITERATIONS = 4


def orthogonalise(matrices_GDN: Float[Tensor, "G D N"]) -> Float[Tensor, "G D N"]:
    """Return approximately the nearest matrices with all singular values 1, in the same dtype.

    Example:
        >>> values = torch.linalg.svdvals(orthogonalise(torch.randn(1, 20, 90)))
        >>> bool(values.min() > 0.5 and values.max() < 1.3)
        True
    """
    if len(matrices_GDN) == 1:  # one product is faster than a batch of one
        return _iterate(matrices_GDN[0], torch.addmm)[None]
    return _iterate(matrices_GDN, torch.baddbmm)


def _iterate(x: Tensor, product: Callable[..., Tensor]) -> Tensor:
    """Newton and Schulz's iteration; product(a, b, c) is β·a + α·b·c."""
    a, b, c = _COEFFICIENTS
    norm = torch.linalg.matrix_norm(x.float(), keepdim=True)
    x = x / (norm + 1e-7).to(x.dtype)
    if is_high := x.shape[-2] > x.shape[-1]:
        x = x.mT
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = product(x, product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_high else x


@dataclass(frozen=True)
class Group:
    """Parameters with the same kind of step.

    Args:
        params: The parameters.
        weight_decay: Decoupled if the group is orthogonal.
        orthogonal: Whether its steps are orthogonalised.
        rate: Its learning rate as a multiple of the run's.
    """

    params: list[nn.Parameter]
    weight_decay: float
    orthogonal: bool = False
    rate: float = 1.0


class MuonAndSGD(torch.optim.Optimizer):
    """SGD with momentum whose steps for the groups marked `orthogonal` are orthogonalised first.

    Args:
        groups: The parameters and their kind of step.
        momentum: Of all groups.
        nesterov: Use Nesterov momentum.
        dtype: Number format of the orthogonalisation.
    """

    def __init__(
        self,
        groups: Iterable[Group],
        *,
        momentum: float,
        nesterov: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__([{**vars(group)} for group in groups], {"lr": 0.0, "weight_decay": 0.0})
        self.momentum, self.nesterov, self.dtype = momentum, nesterov, dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients."""
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["orthogonal"]:
                self._orthogonal_step(params, group["lr"], group["weight_decay"])
            else:
                self._sgd_step(params, group["lr"], group["weight_decay"])

    def _orthogonal_step(self, params: list[Tensor], rate: float, weight_decay: float) -> None:
        gradients = [parameter.grad for parameter in params if parameter.grad is not None]
        for parameter in params:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        steps = [self.state[parameter]["momentum_buffer"] for parameter in params]
        torch_private.multiply_all_(steps, self.momentum)
        torch_private.add_all_(steps, gradients)
        if self.nesterov:
            steps = torch_private.add_all(gradients, steps, self.momentum)
        if weight_decay:
            torch_private.multiply_all_(params, 1 - rate * weight_decay)
        # Filters of one shape together: for small products the overhead of calls dominates.
        by_shape: dict[torch.Size, list[int]] = defaultdict(list)
        for i, step in enumerate(steps):
            by_shape[step.shape].append(i)
        for chosen in by_shape.values():
            # (D, height, width, C): the memory order of channels_last weights, so no transpose.
            stack = torch.stack([steps[i].movedim(1, -1) for i in chosen])
            matrices_GDN = orthogonalise(stack.flatten(2).to(self.dtype))
            num_rows, num_columns = matrices_GDN.shape[1:]
            scale = -rate * max(1.0, num_rows / num_columns) ** 0.5
            moved = matrices_GDN.to(stack.dtype).reshape(stack.shape)
            for i, step in zip(chosen, moved.unbind(), strict=True):
                params[i].add_(step.movedim(-1, 1), alpha=scale)

    def _sgd_step(self, params: list[Tensor], rate: float, weight_decay: float) -> None:
        if not params:
            return
        momenta = [self.state[parameter].get("momentum_buffer") for parameter in params]
        sgd(
            params,
            [parameter.grad for parameter in params if parameter.grad is not None],
            momenta,
            fused=True,
            weight_decay=weight_decay,
            momentum=self.momentum,
            lr=rate,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
        )
        for parameter, momentum in zip(params, momenta, strict=True):
            if momentum is not None:
                self.state[parameter]["momentum_buffer"] = momentum


def make_optimizer(
    model: nn.Module, config: TrainConfig, model_name: str, dtype: torch.dtype = torch.float32
) -> MuonAndSGD:
    """Return the optimiser, with weight decay on what has more than one axis, or on everything.

    Norms and biases have one axis. Attention is not decayed, which would pull gates to 1/2 and
    gains to 0; nor orthogonalised: its few small filters are not hidden layers.

    Args:
        model: The network to train.
        config: The recipe's.
        model_name: To look up its weight decay.
        dtype: Number format of the orthogonalisation.
    """
    by_network = config.weight_decay_by_network
    weight_decay = by_network.get(NetworkName(model_name).base, config.weight_decay)
    of_attention = set(attention_parameters(model))
    filters = set(_filters(model)) - of_attention if config.optimizer == "muon" else set()
    rates = layer_rates(model, config.layer_decay)
    orthogonal, decayed, plain = (defaultdict[float, list[nn.Parameter]](list) for _ in range(3))
    for parameter, rate in rates.items():
        if parameter in filters:
            orthogonal[config.muon_rate * rate].append(parameter)
        elif config.decay_everything or (_is_layer(parameter) and parameter not in of_attention):
            decayed[rate].append(parameter)
        else:
            plain[rate].append(parameter)
    groups = [
        *(
            Group(params, config.muon_weight_decay, orthogonal=True, rate=rate)
            for rate, params in orthogonal.items()
        ),
        *(Group(params, weight_decay, rate=rate) for rate, params in decayed.items()),
        *(Group(params, 0.0, rate=rate) for rate, params in plain.items()),
    ]
    optimizer = MuonAndSGD(
        groups,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        dtype=dtype,
    )
    set_learning_rate(optimizer, config.learning_rate)
    return optimizer


def layer_rates(model: nn.Module, layer_decay: float) -> dict[nn.Parameter, float]:
    """Return each parameter's learning rate as a multiple of the last layer's, in their order.

    Layers are the parameters with more than one axis, in the order in which the network defines
    them; a bias or norm is as deep as the layer before it. From the first layer to the last the
    rate rises geometrically. Attention has the last layer's rate: no pre-trained weights have it.

    Args:
        model: The network.
        layer_decay: The first layer's rate.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
        >>> list(layer_rates(model, 0.25).values())
        [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
    """
    of_attention = set(attention_parameters(model))
    depths, depth = {}, -1
    for parameter in model.parameters():
        depth += _is_layer(parameter) and parameter not in of_attention
        depths[parameter] = max(depth, 0)
    return {
        parameter: 1.0 if parameter in of_attention else layer_decay ** (1 - at / max(depth, 1))
        for parameter, at in depths.items()
    }


def set_learning_rate(optimizer: MuonAndSGD, rate: float) -> None:
    """Give every group its multiple of the run's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def _is_layer(parameter: nn.Parameter) -> bool:
    """Whether it has more than one axis, as weights of layers have; norms and biases do not."""
    return sum(length > 1 for length in parameter.shape) > 1


def _filters(model: nn.Module) -> list[Tensor]:
    """Return the weights of convolutions that are not grouped."""
    return [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1
    ]
