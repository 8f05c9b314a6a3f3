"""The base of all records: they are frozen; an unknown key or a wrong type is an error."""

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


# File and class names may not be UTF-8, which pydantic's own strings require.
Text = Annotated[str, PlainValidator(_text, json_schema_input_type=str)]


class Record(BaseModel):
    """A record that is written to disk and read again."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


START_OVER = "restore it, or start over with another --out"


def read_record(path: Path, model: type[Model], *, todo: str = START_OVER) -> Model:
    """Read a JSON file as a record.

    Args:
        path: The file.
        model: The type of the record.
        todo: What to do if it is damaged.

    Raises:
        DataError: the file is missing, or is damaged; the message names the field.
    """
    return checked(model, files.read_json(path), path, todo=todo)


def checked(model: type[Model], values: object, path: Path, *, todo: str = START_OVER) -> Model:
    """Check the values read from a file.

    Raises:
        DataError: it is damaged; the message names the field.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise damaged(path, error, todo=todo) from error


def damaged(path: Path, error: ValidationError, *, todo: str = START_OVER) -> DataError:
    """Return the error that names the wrong field of a file and its value."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "it"
    if first["type"] == "missing":
        problem = f"{field} is missing"
    elif first["type"] == "extra_forbidden":
        problem = f"{field} is unknown to this version"
    elif first["type"] == "value_error" and not first["loc"]:
        # A validator's message on the whole record, which is too long to be shown.
        problem = str(first["msg"]).removeprefix("Value error, ")
    else:
        problem = f"{field} is {repr(first['input'])[:80]}: {first['msg']}"
    return DataError(f"{path} is damaged ({shown(problem)}); {todo}")
