"""Towernet's own files: written completely or not at all, read, locked, and cached."""

from towernet.files.atomic import (
    atomic,
    is_empty,
    link,
    move,
    refused,
    remove,
    sha256,
    sweep,
    write_bytes,
    write_text,
)
from towernet.files.cache import Kept, cache_folder, cache_limit_bytes, evict, kept_files, make_room
from towernet.files.locks import lock
from towernet.files.records import (
    FORMAT,
    digest,
    now,
    read_json,
    read_jsonl,
    read_record,
    require_format,
    write_csv,
    write_json,
    write_jsonl,
)

__all__ = [
    "FORMAT",
    "Kept",
    "atomic",
    "cache_folder",
    "cache_limit_bytes",
    "digest",
    "evict",
    "is_empty",
    "kept_files",
    "link",
    "lock",
    "make_room",
    "move",
    "now",
    "read_json",
    "read_jsonl",
    "read_record",
    "refused",
    "remove",
    "require_format",
    "sha256",
    "sweep",
    "write_bytes",
    "write_csv",
    "write_json",
    "write_jsonl",
    "write_text",
]
