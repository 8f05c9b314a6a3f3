"""The errors a user can fix, and the exit code of each.

A message states what is wrong, what was found and what to do, in one sentence.
Any other exception is a bug in towernet: exit code 70.
"""

import sys

from towernet.words import one_line

USAGE, DATA, ENVIRONMENT, TRAINING, UNEXPECTED = 2, 3, 4, 5, 70
INTERRUPTED, TERMINATED = 130, 143

# Environment variables: networks and blocks (or modules), comma-separated, that may be imported
# when a run's record names them. A record may come from someone else.
TRUSTED_NETWORKS, TRUSTED_BLOCKS = "TOWERNET_MODELS", "TOWERNET_BLOCKS"
TRUSTED = (TRUSTED_NETWORKS, TRUSTED_BLOCKS)


class TowernetError(Exception):
    """An error that the user can fix; the message includes the remedy."""

    exit_code = UNEXPECTED

    def _render_traceback_(self) -> list[str]:
        """Make IPython print only the message; `%debug` still has the traceback."""
        return [f"{type(self).__name__}: {one_line(str(self))}"]


class ConfigError(TowernetError, ValueError):
    """An option or choice is invalid."""

    exit_code = USAGE


class UntrustedCodeError(ConfigError):
    """A record names custom code that the user has not allowed to run.

    Args:
        kind: What it is: "network" or "attention block".
        path: The import path in the record, `module:Class`.
        module: The module that would be imported.
        variable: The environment variable in which a user can allow it.
    """

    def __init__(self, kind: str, path: str, module: str, variable: str) -> None:
        super().__init__(kind, path, module, variable)
        self.path, self.module, self.variable = path, module, variable
        self.found = (
            f"the record refers to the custom {kind} '{path}', which towernet does not import by"
            " itself"
        )

    def __str__(self) -> str:
        """Return the message for Python; the command line proposes a command instead."""
        # Importing the module first does not allow its functions, only its classes.
        by_import = "" if self.module in sys.modules else f"import {self.module} first, or "
        return f"{self.found}; if you trust it, {by_import}set {self.variable}={self.path}"


class UnknownNameError(TowernetError, KeyError):
    """An unknown name; the message suggests the nearest known ones."""

    exit_code = USAGE

    def __str__(self) -> str:
        """Return the message itself; KeyError would put it in quotes."""
        return str(self.args[0])


class ContractError(TowernetError, AssertionError):
    """A block or network violates its contract, on which the rest of the program depends."""

    exit_code = USAGE


class DataError(TowernetError, ValueError):
    """The images, labels or archives cannot be used as they are."""

    exit_code = DATA


class MissingWeightsError(DataError):
    """A network starts from pre-trained weights, and this machine has none of it."""


class EnvironmentFault(TowernetError, OSError):
    """A fault of the machine: disk, permissions, memory, a missing package."""

    exit_code = ENVIRONMENT

    def __str__(self) -> str:
        """Return the message itself; OSError would look for an errno in it."""
        return str(self.args[0])


class MissingExtraError(TowernetError, ImportError):
    """A feature needs a package that is not installed."""

    exit_code = ENVIRONMENT  # no EnvironmentFault: OSError and ImportError cannot be combined


class TrainingError(TowernetError, RuntimeError):
    """Training cannot continue: the loss is not finite, or the network raises an exception."""

    exit_code = TRAINING


class Diverged(TrainingError):
    """The loss is not finite; a smaller learning rate may help."""


class Interrupted(TowernetError):
    """The user or the system asked to stop; everything needed to resume is on disk."""

    def __init__(self, message: str, exit_code: int = INTERRUPTED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def first_line_of(error: BaseException) -> str:
    """Return a third-party error in one line, for use in a message."""
    first = (str(error).splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {first.rstrip('.')}"
