"""Check the user's options and turn them into objects."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from towernet import cpus
from towernet.errors import ConfigError
from towernet.names import NONE, NetworkName

if TYPE_CHECKING:
    from towernet.config import Measure, Recipe
    from towernet.data.source import Source
    from towernet.records.reading import Reading

Function = TypeVar("Function", bound=Callable[..., Any])
DEFAULT_MODELS = "towernet,towernet_patch,resnet50,vgg19,mobilenet_v2"


def num_workers(workers: int | None) -> int:
    """Return how many decoding processes to use.

    Raises:
        ConfigError: fewer than one is requested.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}; give at least 1")
    return cpus.allowed() if workers is None else workers


def require_margin(equal_within: float) -> None:
    """Refuse an equivalence margin (percentage points) that is 0 or less, or 100 or more.

    Raises:
        ConfigError: it is out of range.
    """
    if not 0 < equal_within < 100:
        raise ConfigError(
            f"--equal-within is {equal_within:g}; give more than 0 and less than 100 points"
        )


def known_measure(measure: str) -> Measure:
    """Return what networks are judged by.

    Raises:
        ConfigError: there is no such measure.
    """
    if measure not in ("accuracy", "balanced"):
        raise ConfigError(f"--measure is '{measure}'; give accuracy or balanced")
    return cast("Measure", measure)


class ReadingOptions(TypedDict, total=False):
    """The keywords about reading images, which `towernet.records.reading.Reading` describes."""

    layout: str
    splits: str | None
    skip_empty: bool
    min_images: int | None
    follow_links: str | None
    masks: str | None
    encoding: str | None
    image_column: str | None
    label_column: str | None
    white_level: float | None
    max_megapixels: float | None
    max_archive_gb: float | None
    max_archive_entries: int | None


READING_DEFAULTS: dict[str, Any] = {"layout": "auto", "skip_empty": False}
"""Of the keywords about reading images; the default of the others is None."""


def with_reading(function: Function, annotations: Mapping[str, Any] | None = None) -> Function:
    """List the keywords about reading images in the signature of a function, and take no others.

    Args:
        function: Its last parameter is `**reading`.
        annotations: Of each keyword, if not those of `ReadingOptions`.
    """
    signature = inspect.signature(function, eval_str=annotations is not None)
    *own, rest = signature.parameters.values()
    assert rest.kind is inspect.Parameter.VAR_KEYWORD, f"{function.__name__} takes no **reading"
    listed = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=READING_DEFAULTS.get(name),
            annotation=annotation,
        )
        for name, annotation in (annotations or ReadingOptions.__annotations__).items()
    ]
    listed_signature = signature.replace(parameters=[*own, *listed])

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        listed_signature.bind(*args, **kwargs)  # raises TypeError for a keyword with another name
        return function(*args, **kwargs)

    vars(checked)["__signature__"] = listed_signature
    return cast(Function, checked)


def reading(given: Mapping[str, Any]) -> Reading:
    """Return the options about reading images among the keywords given.

    Raises:
        ConfigError: a value has the wrong type or is out of range.
        UnknownNameError: no layout or encoding has this name.
    """
    from towernet.data.encodings import AS_BEFORE, known_codec
    from towernet.data.layout import LAYOUTS
    from towernet.data.tree import FOLLOW
    from towernet.records.reading import Reading
    from towernet.registry import unknown_name

    values = {name: given[name] for name in ReadingOptions.__annotations__ if name in given}
    for name, value in values.items():
        require_kind(name, value, ReadingOptions.__annotations__[name].__forward_arg__)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"--{name.replace('_', '-')} is {value:g}; give a finite number")
    found = Reading(**values)
    if found.layout not in LAYOUTS:
        raise unknown_name("layout", found.layout, LAYOUTS)
    if found.encoding == AS_BEFORE:
        raise ConfigError(f"--encoding is '{AS_BEFORE}'; give the name of an encoding, such as gbk")
    if found.encoding is not None:
        known_codec(found.encoding, of_names=False)
    for name, allowed in (("follow_links", FOLLOW), ("masks", ("ignore", "keep"))):
        if (value := values.get(name)) not in (None, *allowed):
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is '{value}'; give {' or '.join(allowed)}")
    for name in ("min_images", "max_archive_entries"):
        require_least(name, values.get(name), 1)
    require_least("max_archive_gb", found.max_archive_gb, 0)
    for name in ("white_level", "max_megapixels"):
        if (value := values.get(name)) is not None and not value > 0:
            raise ConfigError(f"--{name.replace('_', '-')} is {value:g}; give more than 0")
    return found


# For each type of option, the accepted Python types and their name in messages.
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "True or False"),
}


def require_kind(name: str, value: object, annotation: str) -> None:
    """Refuse a value of another type than a keyword's annotation.

    Raises:
        ConfigError: naming the keyword.
    """
    kind, wanted = _KINDS[annotation.removesuffix(" | None")]
    is_absent = value is None and annotation.endswith("None")
    is_number = isinstance(value, bool) and kind is not bool  # in Python, True is an int
    if not is_absent and (is_number or not isinstance(value, kind)):
        raise ConfigError(f"{name} is {value!r}; give {wanted}")


def megapixels(most: float | None) -> float | None:
    """Return the limit of an image's pixels, in millions.

    Raises:
        ConfigError: it is not above 0.
    """
    return reading({"max_megapixels": most}).max_megapixels


def require_resize(resize: str | None) -> None:
    """Refuse a rule of making images square that does not exist.

    Raises:
        ConfigError: naming those that do.
    """
    if resize not in (None, "crop", "pad", "squash", "squash_linear"):
        raise ConfigError(f"--resize is {resize}; give crop, pad or squash")


def require_least(name: str, value: int | float | None, least: int) -> None:
    """Refuse a number that is too small.

    Raises:
        ConfigError: naming the option.
    """
    if value is not None and not value >= least:
        raise ConfigError(f"--{name.replace('_', '-')} is {value:g}; give at least {least}")


def require_blocks(names: Iterable[NetworkName]) -> None:
    """Check the custom attention blocks in the names of networks against the block contract.

    Raises:
        UnknownNameError: no block has the name.
        ContractError: one does not keep a promise.
    """
    names = tuple(names)
    trust(names)
    blocks = {name.block for name in names} - {None, NONE}
    if blocks:
        from towernet.attention.base import ATTENTION
        from towernet.attention.find import attention_block
        from towernet.testing import check_block

        for block in sorted(filter(None, blocks)):
            found = attention_block(block)
            if block not in ATTENTION:  # built-in blocks are checked by the tests
                check_block(found)


def require_networks(
    names: Iterable[NetworkName],
    size_px: int,
    *,
    strict: bool = False,
    say: Callable[[str], None] | None = None,
) -> None:
    """Check custom networks against the network contract; built-in, torchvision's, timm's are not.

    Args:
        names: The networks.
        size_px: Side of their images.
        strict: Refuse a network if a place in it cannot take its attention block.
        say: Called with a sentence for each network in which such places stay as they are.

    Raises:
        UnknownNameError: no network has the name.
        ConfigError: one does not take images of this size.
        ContractError: one does not keep a promise.
    """
    from towernet.models.catalogue import require_size, skipped_places
    from towernet.models.own import NETWORKS, is_own

    names = tuple(names)
    own = sorted({name.base for name in names if is_own(name)})
    if own:
        from towernet.testing import check_network

        for name in own:
            require_size(name, size_px)
            check_network(NETWORKS.find(name), size_px=size_px)
    for name in names:
        skipped = skipped_places(name, size_px, strict=strict)
        if skipped and say is not None:
            say(f"{name}: {skipped}; --strict refuses such a network")


def trust(names: Iterable[NetworkName]) -> None:
    """Allow importing the networks and blocks a user names, also from the working directory.

    Do not use it for names in a run's record: the record, and a module next to it, may come from
    someone else.
    """
    own = [name for name in names if name.own_code]
    if own:
        from towernet.models import own as own_models

        own_models.trust(own)
        append_working_directory()


def trust_block(block: str) -> None:
    """Allow importing a block that the user names, as `trust` does."""
    from towernet.attention.find import BLOCKS
    from towernet.plugins import is_import_path

    BLOCKS.trust(block)
    if is_import_path(block):
        append_working_directory()


def append_working_directory() -> None:
    """Append the working directory to sys.path, last, so it cannot shadow installed packages."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))


def resolve_recipe(
    name: str,
    source: Source,
    *,
    epochs: int | None,
    minutes: float | None,
    size: int | None,
    batch_size: int | None,
    resize: str | None,
    no_flip: bool,
) -> Recipe:
    """Read the recipe; override it with the command line's choices, and those of the data set."""
    from towernet.config import load_recipe, override

    return override(
        load_recipe(name),
        data={"size_px": size, "resize": resize},
        augment={"flip": False if no_flip or source.no_flip else None},
        train={"epochs": epochs, "minutes": minutes, "batch_size": batch_size},
    )


def out_folder(out: str | Path | None, data: str | Path, *parts: str) -> Path:
    """Return the folder for a result: the given one, or a default made from `parts`.

    Raises:
        ConfigError: it is among the images, and its pictures would be read as images next time.
    """
    names = [part.replace(":", "_").replace("/", "_") for part in parts]
    folder = Path("runs") / "-".join(names) if out is None else Path(out)
    images = Path(data)
    if images.is_dir() and folder.resolve().is_relative_to(images.resolve()):
        raise ConfigError(f"the output {folder} would be among the images; give an --out elsewhere")
    return folder


def require_defaults(
    function: Callable[..., Any], given: Iterable[tuple[str, object]], *, but: Container[str]
) -> None:
    """Refuse options that have no effect, since a resumed run has its own.

    Args:
        function: The function whose signature has the defaults.
        given: The arguments it was called with.
        but: The options that have an effect.

    Raises:
        ConfigError: naming the first one.
    """
    parameters = inspect.signature(function).parameters
    for name, value in given:
        if name not in but and value != parameters[name].default:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} has no effect with --resume; leave it out")
