"""The errors a user is meant to read. Each kind carries the exit code the command line ends with.

A message finishes the thought: what (with the values), where, what to do. Any other exception is a bug and ends with exit code 1.
"""


class MergelineError(Exception):
    """A failure whose message is for the user; raise one of its kinds."""

    exit_code = 1


class ConfigError(MergelineError):
    """What the user wrote (YAML, command line) cannot be honoured."""

    exit_code = 2


class InputError(MergelineError):
    """A checkpoint or data set that was named is missing, damaged or does not fit."""

    exit_code = 3


class ResourceError(MergelineError):
    """The machine lacks what the work needs: disk, memory, workers, or a lock that another run holds."""

    exit_code = 4


class Interrupted(MergelineError):
    """The run was stopped; running the same command again goes on from where it was."""

    exit_code = 5


def interruption_in(error: BaseException) -> Interrupted | None:
    """The interruption that an error is, or that struck inside compiled code, which wraps it in a SystemError; None for any other error."""
    held = (error.__cause__ or error.__context__) if isinstance(error, SystemError) else error
    return held if isinstance(held, Interrupted) else None
