"""The `towernet` command. Nothing heavy is imported here, so `--help` is fast."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from towernet import __version__, choices
from towernet.cli import options
from towernet.cli.attention import attention
from towernet.cli.check import check
from towernet.cli.compare import compare
from towernet.cli.evaluate import evaluate
from towernet.cli.explain import explain
from towernet.cli.import_weights import import_weights
from towernet.cli.judge import judge
from towernet.cli.models import models, summary
from towernet.cli.plan import plan
from towernet.cli.predict import predict
from towernet.cli.train import train
from towernet.cli.weights import weights
from towernet.errors import (
    ENVIRONMENT,
    INTERRUPTED,
    TRUSTED,
    UNEXPECTED,
    USAGE,
    Interrupted,
    TowernetError,
    UntrustedCodeError,
)
from towernet.words import one_line

# Faults of the disk or system that can occur anywhere; any other OSError is a bug in towernet.
MACHINE_FAULTS = {
    errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE,
}  # fmt: skip

_MEMORY = (
    "memory ran out; close other programs, or train with a smaller --batch-size or --size"
    " (ulimit -v shows whether a limit is set)"
)
# These keep running when their terminal is closed.
_LONG_VERBS = ("train", "compare")
# How a verb without --attention takes a network's name, which can include a block.
_NAMED_BY = {
    "train": "--model ", "import-weights": "--model ", "plan": "--models resnet18,", "models": "",
    "summary": "",
}  # fmt: skip

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train and compare small image classifiers, honestly,"
    " on your own pictures.\n\nTo start, run [bold]towernet compare photos/[/bold];"
    " photos/ needs one sub-folder of images per class.",
)
for verb in (
    compare, train, check, plan, predict, explain, evaluate, judge, import_weights, models,
    attention, summary, weights,
):  # fmt: skip
    app.command()(verb)


def _show_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"towernet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = None,
) -> None:
    """Define the options that come before a verb."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code of `towernet.errors`."""
    # A file name may not be UTF-8, and a message that contains it must still be printable.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if words is None else words
    long = bool(words) and words[0] in _LONG_VERBS
    with _without_terminal() if long else contextlib.nullcontext():
        return _run(words)


@contextlib.contextmanager
def _without_terminal() -> Iterator[None]:
    """Keep running when the terminal closes, also before and after `StopSwitch` is active."""
    before = signal.getsignal(signal.SIGHUP)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield  # the handler could not be restored, or not be changed
        return
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _run(words: Sequence[str]) -> int:
    if any(map(os.environ.get, TRUSTED)):
        choices.append_working_directory()  # the user has named these modules
    try:
        result = app(words, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except Interrupted as error:  # requested, so not an error
        print(one_line(str(error)), file=sys.stderr)
        return error.exit_code
    except UntrustedCodeError as error:
        command = (
            f"{options.trusting({error.variable: error.path})} {shlex.join(['towernet', *words])}"
        )
        return _fail(f"{error.found}; if you trust it, run: {command}", error.exit_code)
    except TowernetError as error:
        return _fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("stopped immediately; finished work is kept", INTERRUPTED)
    except MemoryError:
        return _fail(_MEMORY, ENVIRONMENT)
    except TyperException as error:
        if not (message := error.format_message().rstrip(".")):
            return USAGE  # no verb: the help has been shown
        if getattr(error, "option_name", None) == "--attention" and words[0] in _NAMED_BY:
            message += f"; add the block to the network's name: {_NAMED_BY[words[0]]}resnet18+se"
            return _fail(f"{message} (`towernet attention` lists the blocks)", USAGE)
        return _fail(f"{message}; see `towernet --help`", USAGE)
    except BrokenPipeError:
        # The reader closed the pipe (`| head`): nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNEXPECTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_FAULTS:
            if error.filename is None:
                what = f"the output cannot be written: {error.strerror}; redirect it elsewhere"
                return _fail(what, ENVIRONMENT)
            what = f"{str(error.filename)[:200]}: {error.strerror}"
            return _fail(
                f"{what}; free space, check permissions, or choose another place", ENVIRONMENT
            )
        if isinstance(error, ImportError) and "failed to map segment" in str(error):
            return _fail(_MEMORY, ENVIRONMENT)
        return _fail(f"{type(error).__name__}: {error}; {_write_log()}", UNEXPECTED)


def _fail(message: str, exit_code: int) -> int:
    print(f"error: {one_line(message)}", file=sys.stderr)
    return exit_code


def _write_log() -> str:
    """Write the traceback to a file, to debug from; return the words that refer to it."""
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="towernet-", suffix=".log", delete=False, errors="backslashreplace"
    ) as stream:
        stream.write(traceback.format_exc())
    return f"this is a bug in towernet; the details are in {Path(stream.name)}"
