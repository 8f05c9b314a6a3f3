"""Custom networks: neither built-in, nor torchvision's, nor timm's.

One is built as `MyNet(num_classes)`, by a class or any function, with fresh weights drawn with
torch's generator. It is named by its import path (`my_package.nets:MyNet`), or by the name under
which an installed package offers it:

    [project.entry-points."towernet.models"]
    small = "my_package.nets:MyNet"

`towernet.testing.check_network` checks that it fulfils the contract of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from towernet.attention.base import ATTENTION, AttentionBlock
from towernet.attention.find import BLOCKS
from towernet.errors import TRUSTED_NETWORKS, ConfigError, TowernetError, first_line_of
from towernet.models.classics import require_known_start, torchvision_names
from towernet.names import NONE, OURS, NetworkName
from towernet.plugins import Plugins
from towernet.words import kind

BuildNetwork = Callable[[int], nn.Module]


def network_problem(found: object) -> str:
    """Return why something cannot build networks, with what to do; '' if it can.

    Example:
        >>> network_problem(nn.Identity()), network_problem(nn.Identity)
        ('is already built; give the class Identity, so that each run has its own weights', '')
    """
    if isinstance(found, type):
        is_network = issubclass(found, nn.Module) and not issubclass(found, AttentionBlock)
        return "" if is_network else f"is {kind(found)}; derive it from torch.nn.Module"
    if isinstance(found, nn.Module):
        own = type(found).__name__
        return f"is already built; give the class {own}, so that each run has its own weights"
    if callable(found):
        return ""
    return (
        f"is {kind(found)}; give a class derived from torch.nn.Module, or a function of the number"
        " of classes that returns one"
    )


NETWORKS = Plugins[BuildNetwork](
    "network",
    group="towernet.models",
    variable=TRUSTED_NETWORKS,
    example="my_package.nets:MyNet",
    problem=network_problem,
    ours=lambda: [*OURS, *torchvision_names()],
)


def is_own(name: NetworkName) -> bool:
    """Whether a network is neither built-in, nor torchvision's, nor timm's."""
    is_known = name.is_ours or name.timm_name is not None or name.base in torchvision_names()
    return not is_known


def build_own(name: str, num_classes: int, *, on_meta: bool = False) -> nn.Module:
    """Return a custom network.

    Args:
        name: Its import path, or the name under which a package offers it.
        num_classes: K, the number of classes.
        on_meta: Whether its weights are moved to the meta device, including any that its code
            creates on another device.

    Raises:
        TowernetError: as `Plugins.find`.
        ConfigError: it cannot be built on the meta device, or the result is not a network.
        Exception: whatever its code raises where it is built with numbers.
    """
    require_known_start(name, NETWORKS.known())
    build = NETWORKS.find(name)
    try:
        network = build(num_classes)
    except Exception as error:
        # Once its outline could be built, an error is that of one run, such as too little memory.
        if not on_meta or isinstance(error, TowernetError):
            raise
        raise ConfigError(
            f"{name} cannot be built for {num_classes} classes ({first_line_of(error)}); it must"
            " take the number of classes, and everything else by keyword with a default"
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{name} builds {kind(network)}; it must return an instance of torch.nn.Module"
        )
    return network.to("meta") if on_meta else network


def trust(names: Iterable[NetworkName]) -> None:
    """Allow importing the networks and blocks that a user names."""
    for name in names:
        for plugins, path in _import_paths(name):
            plugins.trust(path)


def untrusted(name: NetworkName) -> Iterator[tuple[Plugins[Any], str]]:
    """Yield the import paths in a name that a record must not cause to be imported, with kind."""
    for plugins, path in _import_paths(name):
        if not plugins.is_trusted(path):
            yield plugins, path


def code_of(names: Iterable[NetworkName]) -> dict[str, str]:
    """Return the hashes of the source of the custom networks and blocks in some names.

    In a run's record they follow the versions, as `network my_nets:MyNet`.
    """
    names = tuple(names)
    networks = {name.base for name in names if is_own(name)}
    blocks = {name.block for name in names if name.block is not None} - {NONE, *ATTENTION}
    hashes = {f"network {network}": NETWORKS.code_of(network) for network in sorted(networks)}
    return hashes | {f"attention {block}": BLOCKS.code_of(block) for block in sorted(blocks)}


def require_same_code(name: NetworkName, recorded: Mapping[str, str], where: object) -> None:
    """Refuse a network whose source has changed since its weights were trained.

    The weights may still fit, but the predictions would differ.

    Args:
        name: The network.
        recorded: The recorded hashes of its source, among other entries; a source without one is
            not checked.
        where: What contains the weights, for the message.

    Raises:
        ConfigError: The source of the network or of its block has changed.
    """
    for key, now in code_of([name]).items():
        if recorded.get(key, now) != now:
            raise ConfigError(
                f"the source of {key} has changed since {where} was trained (its SHA-256 was"
                f" {recorded[key][:8] or 'unknown'} and is {now[:8] or 'unknown'}); restore the"
                " file, or train again"
            )


def _import_paths(name: NetworkName) -> Iterator[tuple[Plugins[Any], str]]:
    if name.own_network is not None:
        yield NETWORKS, name.own_network
    if name.own_block is not None:
        yield BLOCKS, name.own_block
