"""Arguments of the command line: options that take several values after one flag, and what the next command needs of this one."""

import os

from foundation.errors import ConfigError

SEVERAL = ("--checkpoints", "--alphas", "--tasks", "--task", "--set", "--experts", "--only")
"""Options that take several values after one flag."""
MOST_SHOWN = 120
"""Letters of a name in an error."""


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


def ray_options(address: str | None, cpus: int | None) -> list[str]:
    """Which Ray a command was given, as options, for the next one."""
    return [*(["--address", address] if address else []), *(["--cpus", str(cpus)] if cpus else [])]


def ray_address(address: str | None) -> str:
    """The Ray to run on, by the option, the environment, or here; ConfigError for an empty option, as from a variable that is unset."""
    if address is not None and not address.strip():
        raise ConfigError("--address is empty; give host:port, ray://host:port or auto, or leave it out to run on this machine")
    return address or os.environ.get("RAY_ADDRESS") or "local"


def in_job() -> bool:
    """Whether this process is the driver of a Ray job, where whoever reads it is elsewhere, and its working directory goes away."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def shortened(name: object) -> str:
    """A file's name as an error shows it: the end of one that goes on for lines, in printable letters."""
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(name or "a name that was given"))
    return text if len(text) <= MOST_SHOWN else f"…{text[-MOST_SHOWN:]}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
