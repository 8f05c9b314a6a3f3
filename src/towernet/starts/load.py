"""The tensors of weights, read from their file and checked, by a network's own names.

No code in a file is executed. A file that was changed, does not fit, or gives other answers than
the published weights do is refused.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from towernet.errors import ConfigError, DataError, TowernetError
from towernet.models.catalogue import outline
from towernet.models.foreign import read_foreign, require_file
from towernet.models.foreign_fit import find_weights, fit, head_tensors
from towernet.models.torch_file import Parts
from towernet.starts.find import FoundWeights, wrong_network
from towernet.starts.known import KNOWN, WeightSet, probe
from towernet.starts.places import everything_here, file_hash

# Names that torchvision replaces when it loads files of an older version of the network.
_OLD_NAMES = (
    ("densenet", re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),
    ("vit_", re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    ("vit_", re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
_ONE_SET = "save one of them as a file, such as the one under {}"
_TOLERANCE = 0.02
"""Of a logit; padding on the other side changes logits by 0.5, another order of sums by 1e-5."""


@functools.cache
def head_of(name: str, size_px: int) -> str:
    """Return the one linear layer of a network whose shape depends on the number of classes.

    Args:
        name: The network.
        size_px: Side of its square images.

    Returns:
        Its name, for `get_submodule`.

    Raises:
        ConfigError: there is none, there are several, or it is no linear layer with a bias.
    """
    tensors = head_tensors(name, 2, size_px)
    heads = sorted({key.rpartition(".")[0] for key in tensors})
    layers = dict(outline(name, 2, size_px).named_modules())
    if len(heads) == 1 and isinstance(layers[heads[0]], nn.Linear):
        if f"{heads[0]}.bias" in tensors:
            return heads[0]
        found = f"{heads[0]} has no bias"
    elif heads:
        found = " and ".join(f"{head}, a {type(layers[head]).__name__}" for head in heads)
    else:
        found = "its layers do not depend on the number of classes"
    raise ConfigError(
        f"{name} cannot start from pre-trained weights, since its last layer cannot be replaced"
        f" ({found}); choose a network with one linear layer at the end"
    )


def networks_here() -> list[str]:
    """Return the networks that can start from published weights on this machine, for a hint.

    Weights that cannot be used are left out; a command that needs them says what is wrong.
    """
    networks: dict[str, None] = {}
    here = everything_here()
    with contextlib.suppress(TowernetError):  # a record in the store is damaged
        for each in here:
            with contextlib.suppress(TowernetError):
                head_of(each.facts.network, each.facts.input.size_px)
                networks[each.facts.network] = None
    return list(networks)


def backbone(found: FoundWeights, num_classes: int, size_px: int) -> dict[str, Tensor]:
    """Return all tensors of a network except its last layer's, from its pre-trained weights.

    Args:
        found: From `towernet.starts.find.resolve`.
        num_classes: K, the number of classes of the network that will get them.
        size_px: Side of its square images.

    Returns:
        By the names of the network, on the CPU; a counter that the file lacks is 0.

    Raises:
        ConfigError: the network has no last layer that can be replaced, the weights belong to
            another network, or they only fit images of another size.
        DataError: the file was changed since `resolve`, is damaged, contains code, or does not fit.
    """
    name, path, published = found.weights.network, found.path, found.published
    require_file(path)
    digest = file_hash(path)
    if digest != found.weights.sha256 and found.run is not None:
        raise DataError(
            f"{path} was changed since its run finished: its SHA-256 starts with {digest[:8]} and"
            f" was {found.weights.sha256[:8]}; restore it, or give other weights"
        )
    if digest != found.weights.sha256:
        raise DataError(
            f"{path} was changed since the start: its SHA-256 starts with {digest[:8]} and was"
            f" {found.weights.sha256[:8]}; restore it, or start again with another --out"
        )
    head = head_of(name, size_px)
    _require_same_shapes(found, head, size_px)
    parts = read_foreign(path)
    if published is not None and published.in_order:
        tensors = _by_order(parts, found, size_px)
    else:
        tensors, _ = find_weights(
            _renamed(parts, name), name, num_classes, size_px, path=path, choose=_ONE_SET
        )
    if published is None:
        _refuse_known(tensors, found)
    num_outputs = num_classes
    if not _layer(head) & tensors.keys():
        tensors |= _empty_layer(head, name, num_classes, size_px)
    elif (weight := tensors.get(f"{head}.weight")) is not None and weight.dim() > 0:
        num_outputs = len(weight)
        if not num_outputs:
            raise DataError(
                f"{path} has a last layer, {head}, without outputs; give weights of {name} with"
                f" --weights {name}=FILE"
            )
    todo = f"give weights of {name} with --weights {name}=FILE"
    state = fit(tensors, name, num_outputs, size_px, path=path, todo=todo)
    if published is not None and published.answer:
        _require_answer(state, published, num_outputs, found)
    return {key: value for key, value in state.items() if key not in _layer(head)}


def _require_same_shapes(found: FoundWeights, head: str, size_px: int) -> None:
    """Refuse a size for which the network has tensors of other shapes than the weights'."""
    name, own_px = found.weights.network, found.weights.input.size_px
    if size_px == own_px or found.published is None:
        return
    ours, theirs = (outline(name, 2, each).state_dict() for each in (size_px, own_px))
    if any(theirs[key].shape != value.shape for key, value in ours.items()):
        raise ConfigError(
            f"the weights {found.weights.name} of {name} only fit {own_px}-px images, and"
            f" {size_px} px were asked for; give --size {own_px}"
        )


def _renamed(parts: Parts, name: str) -> Parts:
    patterns = [(old, new) for prefix, old, new in _OLD_NAMES if name.startswith(prefix)]
    if not patterns:
        return parts

    def current(key: str) -> str:
        for old, new in patterns:
            key = old.sub(new, key)
        return key

    return {
        label: {current(key): value for key, value in part.items()} for label, part in parts.items()
    }


def _by_order(parts: Parts, found: FoundWeights, size_px: int) -> dict[str, Tensor]:
    """Return the tensors by the network's names, which are in the same order as the file's."""
    tensors = [each for part in parts.values() for each in part.items() if not _counts(each[0])]
    name = found.weights.network
    num_outputs = len(tensors[-1][1]) if tensors and tensors[-1][1].dim() else 2
    wanted = outline(name, max(num_outputs, 2), size_px).state_dict()
    names = [key for key in wanted if not _counts(key)]
    if len(names) != len(tensors) or any(
        wanted[key].shape != value.shape for key, (_, value) in zip(names, tensors, strict=True)
    ):
        raise DataError(
            f"{found.path} does not have the {len(names)} tensors of {name} in their order; restore"
            " the published file"
        )
    return {key: value for key, (_, value) in zip(names, tensors, strict=True)}


def _counts(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _empty_layer(head: str, name: str, num_classes: int, size_px: int) -> dict[str, Tensor]:
    wanted = outline(name, num_classes, size_px).state_dict()
    return {key: torch.zeros(wanted[key].shape) for key in _layer(head)}


def _layer(head: str) -> set[str]:
    return {f"{head}.weight", f"{head}.bias"}


def content(tensors: Mapping[str, Tensor]) -> str:
    """Return the hex sha-256 of tensors without their names and order.

    It recognises published weights that were saved again.
    """
    digests = sorted(
        hashlib.sha256(value.detach().contiguous().view(-1).view(torch.uint8).numpy().data).digest()
        for key, value in tensors.items()
        if not _counts(key) and value.dim() > 0
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _refuse_known(tensors: Mapping[str, Tensor], found: FoundWeights) -> None:
    others = {each.content: each for each in KNOWN if each.network != found.weights.network}
    if (other := others.get(content(tensors))) is not None:
        raise wrong_network(found.path, found.weights.network, other)


def answer(name: str, state: Mapping[str, Tensor], published: WeightSet) -> tuple[float, ...]:
    """Return a few logits of a network with these tensors, for `probe`."""
    given = published.input
    num_outputs = len(state[f"{head_of(name, given.size_px)}.weight"])
    network = outline(name, num_outputs, given.size_px)
    network.load_state_dict(dict(state), assign=True)
    with torch.inference_mode():
        logits_1K = network.eval()(torch.from_numpy(probe(given)))
    return tuple(round(float(value), 4) for value in logits_1K[0, ::125])


def _require_answer(
    state: Mapping[str, Tensor], published: WeightSet, num_outputs: int, found: FoundWeights
) -> None:
    name = found.weights.network
    given = answer(name, state, published)
    wrong = max(abs(a - b) for a, b in zip(given, published.answer, strict=True))
    if wrong > _TOLERANCE:
        raise DataError(
            f"{name} answers differently with {found.path} than {published.title} does (a logit"
            f" differs by {wrong:.2g}), so its code has probably changed; install the versions in"
            " which it was published, or choose another network"
        )
