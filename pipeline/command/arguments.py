"""Options of the command line that take several values after one flag."""

from foundation.errors import ConfigError

SEVERAL = ("--checkpoints", "--alphas", "--tasks", "--task", "--set", "--experts", "--only")
"""Options that take several values after one flag."""


def spread(arguments: list[str], options: tuple[str, ...] = SEVERAL) -> list[str]:
    """Let options take several values after one flag: `--checkpoints A B` becomes `--checkpoints A --checkpoints B`."""
    result: list[str] = []
    option, repeated = "", False
    for argument in arguments:
        if argument.startswith("--") or (argument.startswith("-") and not _is_number(argument)):
            if option and not repeated:
                raise ConfigError(f"{option} is given no value before {argument}; write them after it, e.g. {option} A B")
            option, repeated = (argument, False) if argument in options else ("", False)
            result.append(argument)
        elif option:
            result += [option, argument] if repeated else [argument]
            repeated = True
        else:
            result.append(argument)
    return result


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
