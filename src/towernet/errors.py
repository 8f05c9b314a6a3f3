"""The errors a user can put right, and the exit code each one ends the command with.

A message says what is wrong by name, what was found, and what to do, in one sentence.
Anything that is not a TowernetError is a bug of ours: exit code 70.
"""

USAGE, DATA, ENVIRONMENT, TRAINING, UNEXPECTED = 2, 3, 4, 5, 70
INTERRUPTED, TERMINATED = 130, 143

# Blocks (or modules) whose code a run's record may name, comma-separated: it may come from somebody
# else.
TRUSTED = "TOWERNET_BLOCKS"


class TowernetError(Exception):
    """What went wrong, in one sentence that says what to do."""

    exit_code = UNEXPECTED

    def _render_traceback_(self) -> list[str]:
        """Show IPython, which asks for this, the sentence alone; `%debug` still knows the rest."""
        return [f"{type(self).__name__}: {in_a_line(str(self))}"]


class ConfigError(TowernetError, ValueError):
    """A choice is not one the program can carry out."""

    exit_code = USAGE


class UntrustedBlockError(ConfigError):
    """A record names code, and nobody here has said that it may run.

    Args:
        block: What the record names, as `module:Class`.
    """

    def __init__(self, block: str) -> None:
        super().__init__(block)
        self.block = block
        self.found = (
            f"attention block '{block}' is code that a record names, and nothing a record names is"
            " run"
        )

    def __str__(self) -> str:
        """Say it to a program; the command proposes itself instead."""
        module = self.block.partition(":")[0]
        return f"{self.found}; if it is yours, import {module} first, or set {TRUSTED}={self.block}"


class UnknownNameError(TowernetError, KeyError):
    """A name stands for nothing; the message suggests the nearest known ones."""

    exit_code = USAGE

    def __str__(self) -> str:
        """Return the sentence itself; KeyError would put it in quotes."""
        return str(self.args[0])


class ContractError(TowernetError, AssertionError):
    """A block breaks a promise that everything around it counts on."""

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


def in_a_line(message: str) -> str:
    """Write what may hold names of any kind in one line that can be printed."""
    return shown(" ".join(message.split()))


def shown(name: str) -> str:
    r"""Return a name fit for one line of a terminal or a message.

    Example:
        >>> print(shown("two\nlines"), shown("caf\udce9"))
        two\nlines caf\xe9
    """
    if name.isprintable():
        return name
    return "".join(
        character
        if character.isprintable()
        else f"\\x{ord(character) - 0xDC00:02x}"
        if "\udc80" <= character <= "\udcff"
        else character.encode("unicode_escape").decode()
        for character in name
    )
