"""What all records share: they are frozen, an unknown key is an error, and so is a wrong type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StrictFloat, ValidationError

from towernet import files
from towernet.errors import DataError
from towernet.words import shown

Model = TypeVar("Model", bound="Record")
Fraction = Annotated[StrictFloat, Field(ge=0, le=1)]
Interval = tuple[StrictFloat, StrictFloat]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("give text")
    return value


# File and class names need not be UTF-8, which pydantic's own strings would demand of them.
Text = Annotated[str, PlainValidator(_text, json_schema_input_type=str)]


class Record(BaseModel):
    """Something that is written to disk and read again."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


BEGIN_ANEW = "restore it, or begin anew with another --out"


def read_record(path: Path, model: type[Model], *, todo: str = BEGIN_ANEW) -> Model:
    """Read a JSON file of ours.

    Args:
        path: The file.
        model: What it holds.
        todo: What to do where it is damaged.

    Raises:
        DataError: the file is missing, or is damaged; the message names the field.
    """
    return checked(model, files.read_json(path), path, todo=todo)


def checked(model: type[Model], values: object, path: Path, *, todo: str = BEGIN_ANEW) -> Model:
    """Check what was read from a file of ours.

    Raises:
        DataError: it is damaged; the message names the field.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise damaged(path, error, todo=todo) from error


def damaged(path: Path, error: ValidationError, *, todo: str = BEGIN_ANEW) -> DataError:
    """Say which field of a file is wrong, and what was found there."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "it"
    if first["type"] == "missing":
        said = f"{field} is missing"
    elif first["type"] == "extra_forbidden":
        said = f"{field} is unknown to this version"
    elif first["type"] == "value_error" and not first["loc"]:
        # A sentence of ours on the whole record, which is too long to be shown.
        said = str(first["msg"]).removeprefix("Value error, ")
    else:
        said = f"{field} is {repr(first['input'])[:80]}: {first['msg']}"
    return DataError(f"{path} is damaged ({shown(said)}); {todo}")
