"""Part "limits": merging more than fits into a memory limit that the kernel holds (RLIMIT_DATA).

RLIMIT_DATA bounds what a process may reserve privately and writably: heap, anonymous mappings, thread stacks, touched or not. Page cache
is not counted. A process that asks for as much as the limit, and is refused, shows that it binds. (mergekit is no measure here: torch maps
the files it reads as private and writable, so they count, though they are page cache. Its anonymous memory stands in the part "methods".)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import METHODS, Method, ours, sources_of, write_config
from benchmarks.contest import Contender, attempt, python, remove

LIMIT = 1_000_000_000
TOGETHER = Method("linear", ("base", "a", "b"), None, (0.2, 0.3, 0.5), {}, {})
CONTROL = Contender("a process that asks for 1 GB at once", python("-I", "-S", "-c", f"bytearray({LIMIT})"))


def measure_limits(directory: Path, names: Sequence[str]) -> dict[str, Any]:
    """Merge under the limit -> the bytes of its sources, exit code, last words, seconds, and the most anonymous memory."""
    found = {CONTROL.name: outcome(CONTROL, [])}
    for name in names:
        method = TOGETHER if name == "linear" else METHODS[name]
        sources = sources_of(method, directory)
        contender = ours(write_config(method, directory), directory / "out-limit")
        found[f"{name}, {len(sources)} checkpoints"] = outcome(contender, sources)
    return found


def outcome(contender: Contender, sources: Sequence[Path]) -> dict[str, Any]:
    """One attempt under the limit."""
    result = attempt(contender, sources, LIMIT)
    remove(contender.output)
    words = [line.strip() for line in result.output.splitlines() if line.strip()]
    return {
        "sources": sum(path.stat().st_size for source in sources for path in source.glob("*.safetensors")),
        "code": result.code,
        "said": words[-1] if words else "",
        "wall": result.wall,
        "anonymous": result.anonymous,
    }
