"""The errors a user can put right, and the exit code each one ends the command with.

A message says what is wrong by name, what was found, and what to do, in one sentence.
Anything that is not a TowernetError is a bug of ours: exit code 70.
"""

import sys

from towernet.words import in_a_line

USAGE, DATA, ENVIRONMENT, TRAINING, UNEXPECTED = 2, 3, 4, 5, 70
INTERRUPTED, TERMINATED = 130, 143

# Variables of the environment: networks and blocks (or modules) whose code a run's record may name,
# comma-separated. A record may come from somebody else.
TRUSTED_NETWORKS, TRUSTED_BLOCKS = "TOWERNET_MODELS", "TOWERNET_BLOCKS"
TRUSTED = (TRUSTED_NETWORKS, TRUSTED_BLOCKS)


class TowernetError(Exception):
    """What went wrong, in one sentence that says what to do."""

    exit_code = UNEXPECTED

    def _render_traceback_(self) -> list[str]:
        """Show IPython, which asks for this, the sentence alone; `%debug` still knows the rest."""
        return [f"{type(self).__name__}: {in_a_line(str(self))}"]


class ConfigError(TowernetError, ValueError):
    """A choice is not one the program can carry out."""

    exit_code = USAGE


class UntrustedCodeError(ConfigError):
    """A record names code, and nobody here has said that it may run.

    Args:
        kind: What sort of thing it is: "network" or "attention block".
        path: What the record names, as `module:Class`.
        module: The module that would be imported.
        variable: Of the environment, in which a user may name it.
    """

    def __init__(self, kind: str, path: str, module: str, variable: str) -> None:
        super().__init__(kind, path, module, variable)
        self.path, self.module, self.variable = path, module, variable
        self.found = (
            f"{kind} '{path}' is code that a record names, and nothing a record names is run"
        )

    def __str__(self) -> str:
        """Say it to a program; the command proposes itself instead."""
        # A function of a module that is imported already must be named all the same.
        by_import = "" if self.module in sys.modules else f"import {self.module} first, or "
        return f"{self.found}; if it is yours, {by_import}set {self.variable}={self.path}"


class UnknownNameError(TowernetError, KeyError):
    """A name stands for nothing; the message suggests the nearest known ones."""

    exit_code = USAGE

    def __str__(self) -> str:
        """Return the sentence itself; KeyError would put it in quotes."""
        return str(self.args[0])


class ContractError(TowernetError, AssertionError):
    """A block or network breaks a promise that everything around it counts on."""

    exit_code = USAGE


class DataError(TowernetError, ValueError):
    """The images, labels or archives cannot be used as they are."""

    exit_code = DATA


class EnvironmentFault(TowernetError, OSError):
    """The machine says no: disk, permission, memory, a missing package."""

    exit_code = ENVIRONMENT

    def __str__(self) -> str:
        """Return the sentence itself; OSError would look for an errno in it."""
        return str(self.args[0])


class MissingExtraError(TowernetError, ImportError):
    """A feature needs a package that is not installed."""

    exit_code = ENVIRONMENT  # not an EnvironmentFault: OSError and ImportError do not mix


class TrainingError(TowernetError, RuntimeError):
    """Training cannot go on: a loss that is not a number, a network that raises."""

    exit_code = TRAINING


class Diverged(TrainingError):
    """The loss is not a number; a smaller learning rate may help."""


class Interrupted(TowernetError):
    """The user or the system asked to stop; everything needed to resume is on disk."""

    def __init__(self, message: str, exit_code: int = INTERRUPTED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def in_one_line(error: BaseException) -> str:
    """Write an error that is not ours in one line, to be a part of a sentence."""
    said = (str(error).splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {said.rstrip('.')}"
