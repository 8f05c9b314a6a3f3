"""Imported weights, matched to a known network: by their names, then by shape and kind.

Programs put a prefix before all names, keep the weights beside other things, or add tensors that no
prediction needs. `find_weights` undoes that and reports it; `fit` accepts no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from towernet.errors import DataError
from towernet.models.catalogue import outline, require_size
from towernet.models.refusals import quoted
from towernet.models.torch_file import Parts
from towernet.words import counted, listed, some_listed

_MAX_NAME = 1000
_OTHER_MODEL = "give the --model that these weights belong to"
# Modules of torch that wrap others, as parts of names.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Tensors that a prediction does not need. Whatever else is unknown may change the answers.
_NOT_NEEDED = (
    # Classifiers on the side, for training.
    r"(.*\.)?(aux\d*|aux(iliary)?_?(logits|heads?|classifiers?|fc)\w*|AuxLogits|head_dist)\..*",
    # Counters of thop and of averaged weights; tables that networks compute themselves.
    r"(.*\.)?(total_ops|total_params|relative_position_index|attn_mask)|n_averaged",
    # Losses and measures, which Lightning keeps as modules.
    r"(criterion|loss(es|_\w+)?|\w+_loss|(\w+_)?(metrics?|acc|accuracy|f1|auroc|confmat))(\..*)?",
)
_IS_NOT_NEEDED = re.compile("|".join(_NOT_NEEDED))


@dataclass(frozen=True)
class Found:
    """One set of named tensors that may be a network's weights.

    Args:
        label: What selects it in the file: its keys and prefix.
        tensors: By the network's own names.
        rest: The other tensors beside them, by their names in the file.
        missing: Names of the network that have no tensor.
        notes: What was done to the names, as sentences.
    """

    label: str
    tensors: dict[str, Tensor]
    rest: dict[str, Tensor]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


def find_weights(
    parts: Parts,
    name: str,
    num_classes: int,
    size_px: int,
    *,
    path: Path,
    key: str | None = None,
    choose: str = "choose one with --key, such as --key {}",
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors of a file that are a network's weights, and what was done to find them.

    Args:
        parts: From `read_foreign`.
        name: The network, as listed by `towernet models`.
        num_classes: K, the number of classes.
        size_px: Side of its square images.
        path: Where the tensors are from, for messages.
        key: Which of several sets of weights; None if there is one.
        choose: What to do if there are several, for the message; {} is one of them.

    Raises:
        UnknownNameError: no network has the name.
        ConfigError: the network cannot take images of this size.
        DataError: several sets fit and none was chosen, or the key leads to none.
    """
    require_size(name, size_px)
    expected = outline(name, num_classes, size_px).state_dict()
    found = [each for part in parts.items() for each in _found(*part, expected)]
    if key is not None:
        labels = [each.label for each in found if each.tensors]
        wanted = key.strip(".")
        found = [each for each in found if each.label == wanted] or [
            each for each in found if each.label.startswith(f"{wanted}.")
        ]
        if not found:
            known = f"it has {some_listed(labels)}" if any(labels) else "leave out --key"
            raise DataError(f"{path} has no weights under {quoted(key)}; {known}")
    complete = [each for each in found if not each.missing] or [_best(found)]
    if len(complete) > 1:
        complete = [each for each in complete if _same_shapes(each, expected)] or complete
    first, *others = complete
    others = [each for each in others if not _equal(first.tensors, each.tensors)]
    if others:
        labels = [each.label or "." for each in (first, *others)]
        raise DataError(
            f"{path} contains {len(labels)} sets of weights that fit {name}:"
            f" {some_listed(labels)}; {choose.format(labels[-1])}"
        )
    # What is unknown and may be needed stays, for `fit` to refuse.
    return first.tensors | first.rest, first.notes


def _found(keys: str, part: dict[str, Tensor], expected: Mapping[str, Tensor]) -> Iterator[Found]:
    """Yield each set of weights in one dictionary: without a prefix, or those after each prefix."""
    notes = [f"the weights are those under '{keys}'"] if keys else []
    unwrapped = {_unwrapped(name): value for name, value in part.items()}
    wraps = any(_WRAPPERS.intersection(name.split(".")) for name in expected)
    if len(unwrapped) == len(part) and not wraps and unwrapped.keys() != part.keys():
        wrappers = sorted(_WRAPPERS & {word for name in part for word in name.split(".")})
        were = "was" if len(wrappers) == 1 else "were"
        notes.append(f"{listed([quoted(word) for word in wrappers])} in their names {were} removed")
        part = unwrapped
    prefixes = _prefixes(part, expected)
    of_all = {prefix + name for prefix in prefixes for name in expected}
    for prefix in prefixes:
        inside = {name: part[prefix + name] for name in expected if prefix + name in part}
        rest = {name: value for name, value in part.items() if name not in of_all}
        label = f"{keys}.{prefix}".strip(".")
        removed = [f"the prefix '{prefix}' of their names was removed"] if prefix else []
        yield _with_head(Found(label, inside, rest, (), (*notes, *removed)), prefix, expected)


def _prefixes(part: dict[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes under which most of the network's names are; '' if there is no other."""
    counts: dict[str, int] = {}
    endings = _needed(expected)
    for name in part:
        words = name.split(".") if len(name) < _MAX_NAME else []
        for i in range(len(words)):
            if ".".join(words[i:]) in endings:
                prefix = "".join(f"{word}." for word in words[:i])
                counts[prefix] = counts.get(prefix, 0) + 1
    most = max(counts.values(), default=0)
    # A head may be elsewhere, and an average of the weights may lack their statistics.
    return [prefix for prefix, num in counts.items() if 2 * num > most] or [""]


def _unwrapped(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in _WRAPPERS)


def _needed(expected: Mapping[str, Tensor]) -> set[str]:
    # Older files lack these counters, and they are not used.
    return {name for name in expected if not name.endswith("num_batches_tracked")}


def _with_head(found: Found, prefix: str, expected: Mapping[str, Tensor]) -> Found:
    """Return the same with its missing names, after a last layer with another name was found.

    Only if one linear layer of the network is missing and one tensor pair is left over, of the same
    number of features: nothing else can be meant.
    """
    missing = _needed(expected) - found.tensors.keys()
    rest = {name: v for name, v in found.rest.items() if not _is_not_needed(name, prefix)}
    tensors, notes = dict(found.tensors), found.notes
    ours, theirs = _layer(missing), _layer(set(rest))
    if ours is not None and theirs is not None:
        weight, bias = (rest[f"{theirs}.{end}"] for end in ("weight", "bias"))
        wanted = expected[f"{ours}.weight"]
        if (
            wanted.dim() == weight.dim() == 2
            and wanted.shape[1] == weight.shape[1]
            and bias.shape == weight.shape[:1]
        ):
            tensors |= {f"{ours}.weight": weight, f"{ours}.bias": bias}
            notes = (*notes, f"its last layer '{theirs}' is the network's '{ours}'")
            rest, missing = {}, set()
    left_out = sorted(found.rest.keys() - rest.keys() - _names_of(theirs if not missing else None))
    if left_out and not rest:
        words = f"{some_listed(left_out, 3)} ({counted(len(left_out), 'tensor')})"
        notes = (*notes, f"left out, since no prediction needs it: {words}")
    order = tuple(name for name in expected if name in missing)
    return Found(found.label, tensors, rest, order, notes)


def _is_not_needed(name: str, prefix: str) -> bool:
    own = name.removeprefix(prefix)
    return len(own) < _MAX_NAME and _IS_NOT_NEEDED.fullmatch(own) is not None


def _layer(names: set[str]) -> str | None:
    """Return the module whose weight and bias these names are, if they are nothing else."""
    modules = {name.rpartition(".")[0] for name in names}
    if len(modules) == 1 and names == _names_of(module := modules.pop()):
        return module
    return None


def _names_of(module: str | None) -> set[str]:
    return set() if module is None else {f"{module}.weight", f"{module}.bias"}


def _best(found: list[Found]) -> Found:
    return max(found, key=lambda each: len(each.tensors))


def _same_shapes(found: Found, expected: Mapping[str, Tensor]) -> bool:
    return all(value.shape == expected[name].shape for name, value in found.tensors.items())


def _equal(tensors: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return tensors.keys() == others.keys() and all(
        value.dtype == others[name].dtype and torch.equal(value, others[name])
        for name, value in tensors.items()
    )


def fit(
    tensors: dict[str, Tensor],
    name: str,
    num_classes: int,
    size_px: int,
    *,
    path: Path,
    classes: str = "",
    todo: str = _OTHER_MODEL,
) -> dict[str, Tensor]:
    """Return the state of a network from imported tensors.

    Args:
        tensors: By the network's names.
        name: The network, as listed by `towernet models`.
        num_classes: K, the number of classes.
        size_px: Side of its square images.
        path: Where the tensors are from, for the message.
        classes: The file that names the classes, for the message; '' for none.
        todo: What to do if they belong to another network, for the message.

    Raises:
        UnknownNameError: no network has the name.
        ConfigError: the network cannot take images of this size.
        DataError: a tensor is missing, unexpected, has another shape or kind, or is not finite.
    """
    require_size(name, size_px)
    expected = outline(name, num_classes, size_px).state_dict()
    unknown = sorted(tensors.keys() - expected.keys())
    missing = [key for key in expected if key in _needed(expected) and key not in tensors]
    if missing:
        _refuse_missing(missing, unknown, tensors, name, num_classes, size_px, path, todo)
    state = {}
    for key, wanted in expected.items():
        value = tensors.get(key)
        if value is None:
            value = torch.zeros((), dtype=wanted.dtype)
        if value.shape != wanted.shape:
            is_head = classes and key in head_tensors(name, num_classes, size_px)
            if is_head and value.shape[1:] == wanted.shape[1:]:
                raise DataError(
                    f"{path} was trained for {len(value):,} classes ({key} has the shape"
                    f" {tuple(value.shape)}), but {classes} has {num_classes}; give"
                    " one class name for each output of the network"
                )
            raise DataError(
                f"{key} in {path} has the shape {tuple(value.shape)}, but in {name} for"
                f" {num_classes} classes it has {tuple(wanted.shape)};"
                f" {f'{todo} and a class name for each output' if classes else todo}"
            )
        if value.is_floating_point() != wanted.is_floating_point() or value.is_complex():
            raise DataError(
                f"{key} in {path} has {value.dtype}, but {name} needs {wanted.dtype}; {todo}"
            )
        state[key] = value.detach().to(wanted.dtype, copy=True).contiguous()
        if not state[key].isfinite().all():
            raise DataError(
                f"{key} in {path} contains NaN or Inf; give weights saved before training failed"
            )
    if unknown:
        raise DataError(
            f"{path} contains {quoted(unknown[0])}, which is not in {name} ({len(unknown)}"
            f" unknown); {todo}"
        )
    return state


def head_tensors(name: str, num_classes: int, size_px: int) -> set[str]:
    """Return the names of the tensors whose shape depends on the number of classes."""
    ours, others = (
        outline(name, num, size_px).state_dict() for num in (num_classes, num_classes + 1)
    )
    return {key for key, value in ours.items() if others[key].shape != value.shape}


def _refuse_missing(
    missing: list[str],
    unknown: list[str],
    tensors: dict[str, Tensor],
    name: str,
    num_classes: int,
    size_px: int,
    path: Path,
    todo: str,
) -> None:
    first, num = missing[0], len(missing)
    if set(missing) <= head_tensors(name, num_classes, size_px) and not unknown:
        raise DataError(
            f"{path} lacks {first} of {name} ({num} missing): it has no last layer, so it cannot"
            " predict classes; give weights of the whole network"
        )
    instead = f" and contains {quoted(unknown[0])} ({len(unknown)} unknown)" if unknown else ""
    raise DataError(f"{path} lacks {first} of {name} ({num} missing){instead}; {todo}")
