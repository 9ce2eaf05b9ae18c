"""Which addresses can hold a mirror, and which names there can be in it, told by their form alone. Needs neither MLflow nor a network."""

import re
from urllib.parse import urlsplit

from foundation.errors import ConfigError

SERVERS = ("http://", "https://")
SQLITE = "sqlite:///"
DATABASES = re.compile(r"(postgresql|mysql|mssql)(\+\w+)?://\S+")
HOST = re.compile(r"[^\s/?#@\\'\"<>|^`{}%,;]+")
"""Characters of a host's name, loosely: what a typing error brings in is not among them."""
KNOWN = (
    "neither a tracking server (http://..., https://...) nor a database (sqlite:////absolute/path/mlflow.db, postgresql://...); "
    "leave it out to keep an SQLite file in the workspace"
)
LONGEST_LABEL = 250
"""Characters of an experiment's or a registered model's name: half of what MLflow takes, for a name of a variant has more."""
LONGEST = 120
"""Characters of a refused address that are repeated."""


def check_address(uri: str, origin: str, shown: str) -> None:
    """ConfigError unless `uri` can be the address of a mirror; `origin` says where it stands, `shown` is it without its password."""
    shown = re.sub(r"(?<=://).*:.*@", "…@", shown)  # a password with a slash in it
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"
    if uri.startswith(SERVERS):
        fault = _fault_of_server(uri)
    elif uri.startswith("sqlite:"):
        fault = _fault_of_file(uri)
    else:
        fault = "" if DATABASES.fullmatch(uri) else f"which is {KNOWN}"
    if fault:
        raise ConfigError(f"{origin} is {shown!r}, {fault}")


def _fault_of_server(uri: str) -> str:
    example = "write it as http://host:5000 or https://host"
    try:
        told = urlsplit(uri)
        host, _ = told.hostname or "", told.port
    except ValueError:  # which repeats a piece of the address: that may be half of a password
        return f"whose port is no number up to 65535, or whose brackets do not close; {example}"
    if told.query or told.fragment or uri.endswith(("#", "?")):
        return f"which is that of a page; a server's address ends before the {'#' if '#' in uri else '?'}: {example}"
    if not host:
        return f"which names no host; {example}"
    if not HOST.fullmatch(host) or re.search(r"\s", uri):
        return f"whose host cannot be one (it has a space, or a sign that no name has); {example}"
    return ""


def _fault_of_file(uri: str) -> str:
    path, example = uri.removeprefix(SQLITE), "write it as sqlite:////absolute/path/mlflow.db"
    if not uri.startswith(SQLITE) or not path.strip("/ .") or path.endswith("/"):
        return f"which names no file; {example}"
    if path.startswith(":"):
        return f"which is kept in memory and gone with the process that writes it; {example}"
    if path.startswith("~") or "?" in path or "\0" in path:
        return f"whose path has a {path[0] if path[0] == '~' else '?'}, which is not understood there; {example}"
    return ""


def check_label(name: str, key: str) -> None:
    """ConfigError unless `name` can be what an experiment or a registered model is called in MLflow; `key` is where it stands."""
    if not name.strip():
        raise ConfigError(f"{key} is empty; give it a name, or leave it out")
    if len(name) > LONGEST_LABEL:
        raise ConfigError(
            f"{key} has {len(name)} characters ({name[:20]}…); MLflow's pages have room for {LONGEST_LABEL}, give it a shorter name"
        )
    if not name.isprintable() or name != name.strip():
        raise ConfigError(f"{key} is {name!r}, with a blank at an end or a character that cannot be seen; take it out")
