"""The JSON schemas of all written files, from their models: `python -m towernet.records.schema`.

They are for programs in other languages and are in `docs/schema`; `--check` only compares.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from towernet import files
from towernet.records.judgement import AnswersJudged
from towernet.records.ledger import Event
from towernet.records.protocol import Protocol
from towernet.records.results import Conclusion
from towernet.records.run import EpochMetrics, EpochTiming, ImportedRun, RunRecord
from towernet.records.scores import KeptCalibration

FOLDER = Path("docs") / "schema"


class ProtocolFile(Protocol):
    """The content of `protocol.toml`; TOML has no null, so a missing value is left out."""

    digest: str
    """SHA-256 of everything that affects the result."""


# The file that a schema describes, and its model.
WRITTEN: dict[str, tuple[str, Any]] = {
    "results": ("results.json", Conclusion),
    "judgement": ("judgement.json", AnswersJudged),
    "run": ("run.json", RunRecord | ImportedRun),
    "protocol": ("protocol.toml", ProtocolFile),
    "ledger": ("a line of ledger.jsonl", Annotated[Event, Field(discriminator="event")]),
    "metrics": ("a line of metrics.jsonl", EpochMetrics),
    "timings": ("a line of timings.jsonl", EpochTiming),
    "calibration": ("calibration.json", KeptCalibration),
}


class _Generator(GenerateJsonSchema):
    """Leaves out titles of fields, and also takes their descriptions from docstrings."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,
    ) -> bool:
        """Also require literals with a default, unless they are left out where they have it.

        One of them distinguishes the kinds of lines.
        """
        inner = field["schema"]
        is_literal = inner["type"] == "default" and inner["schema"]["type"] == "literal"
        is_written = is_literal and field.get("serialization_exclude_if") is None
        return is_written or super().field_is_required(field, total)

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Move the descriptions under a docstring's `Args:` to the fields."""
        made = super().dataclass_schema(schema)
        made["description"], _, about = made["description"].partition("\n\nArgs:\n")
        for name, words in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", about, re.MULTILINE):
            made["properties"][name]["description"] = " ".join(words.split())
        return made


def schema(title: str, model: Any) -> str:
    """Return the JSON text of a file's schema.

    Args:
        title: The file.
        model: Its model, or several in a union.
    """
    found = TypeAdapter(model).json_schema(schema_generator=_Generator)
    values = {"$schema": _Generator.schema_dialect, **found, "title": title}
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the schemas, or report one that differs from its model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument(
        "--check", action="store_true", help="Write nothing; exit 1 if a schema differs."
    )
    args = parser.parse_args()
    for name, (title, model) in WRITTEN.items():
        path, text = args.folder / f"{name}.schema.json", schema(title, model)
        if not args.check:
            files.write_text(path, text)
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"error: {path} differs from its model; run python -m towernet.records.schema")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
