"""What `doctor` found, and what it makes of it: each function takes what nodes answered and gives findings. Asks nothing itself."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from foundation.sizes import size
from pipeline.doctor.facts import Facts, TokenFile

CLOCK_SECONDS = 5.0
"""Clocks further apart than this make times in records and locks' ages misleading."""
SHARED_MEMORY = 1e9
"""Bytes of /dev/shm that loading data in several processes takes at times; containers often have 64 MB."""
SHOWN = 12
"""Digits of a digest that are shown."""
CODE = "the project's code"


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One check: what was seen (with the nodes, where they differ) and, for a problem, what to do."""

    check: str
    state: State
    seen: str
    remedy: str = ""


def fine(check: str, seen: str) -> Finding:
    return Finding(check, State.OK, seen)


def problem(check: str, seen: str, remedy: str) -> Finding:
    return Finding(check, State.PROBLEM, seen, remedy)


def on_nodes(names: Iterable[str]) -> str:
    """Nodes as they are told in a finding."""
    return ", ".join(sorted(names))


def judge(check: str, bad: Mapping[str, str], good: str, remedy: str) -> Finding:
    """A problem that tells each bad node with its reason, or `good`."""
    if not bad:
        return fine(check, good)
    return problem(check, "; ".join(f"{name}: {why}" for name, why in sorted(bad.items())), remedy)


def judge_workspace(facts: Mapping[str, Facts], workspace: str) -> Finding:
    bad = {name: fact.workspace for name, fact in facts.items() if fact.workspace}
    return judge("workspace", bad, workspace, "make it, mount it at one path on every machine, and let this user write there")


def judge_free(facts: Mapping[str, Facts], needed: float) -> Finding:
    low = {name: f"{size(fact.free)} free" for name, fact in facts.items() if not fact.workspace and fact.free < needed}
    known = [fact.free for fact in facts.values() if not fact.workspace]
    told = f"{size(min(known))} (asked for: {size(needed)})" if known else "not known without the workspace"
    remedy = f"{size(needed)} are asked for (--need): make room, or choose another workspace"
    return judge("free space", low, told, remedy)


def judge_versions(facts: Mapping[str, Facts]) -> list[Finding]:
    """A finding for the libraries and one for the code: everywhere the same, nothing missing."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, fact in facts.items():
        for library, version in {**fact.versions, CODE: fact.code[:SHOWN]}.items():
            found.setdefault(library, {}).setdefault(version, []).append(name)
    code = found.pop(CODE, {})
    bad = {library: _by_version(versions) for library, versions in found.items() if len(versions) > 1 or "not installed" in versions}
    good = ", ".join(f"{library} {next(iter(versions))}" for library, versions in found.items() if len(versions) == 1)
    return [
        judge("versions", bad, good, "install the same versions everywhere: pip install -c constraints.txt -e ."),
        judge(
            "code",
            {CODE: _by_version(code)} if len(code) > 1 else {},
            next(iter(code), ""),
            "bring the same checkout to every node, or submit the code with the job (mergeline submit)",
        ),
    ]


def _by_version(versions: Mapping[str, list[str]]) -> str:
    if len(versions) == 1:
        return next(iter(versions))
    return ", ".join(f"{version} on {on_nodes(names)}" for version, names in sorted(versions.items()))


def judge_shared_memory(facts: Mapping[str, Facts], object_stores: Mapping[str, float]) -> Finding:
    """`object_stores`: bytes that Ray takes there on each node; on a machine without Ray, what data loading may take is asked."""
    low = {}
    for name, fact in facts.items():
        wanted = object_stores.get(name, SHARED_MEMORY)
        if fact.shared_memory < wanted:
            low[name] = f"{size(fact.shared_memory)} in all, {size(wanted)} wanted"
    least = min((fact.shared_memory for fact in facts.values()), default=0)
    remedy = "give more (docker run --shm-size, an emptyDir of medium Memory), or lower --object-store-memory of `ray start`"
    return judge("/dev/shm", low, size(least), remedy)


def judge_tokens(facts: Mapping[str, Facts], clustered: bool) -> list[Finding]:
    """A finding for the token file (nobody else may read it) and one for the mode that makes Ray ask for the token."""
    open_ones = {name: f"{fact.token.path} has mode {fact.token.mode:04o}" for name, fact in facts.items() if fact.token.exposed}
    lacking = {name: f"no {fact.token.path}" for name, fact in facts.items() if clustered and not fact.token.present}
    remedy = (
        "run doctor again with --fix (or: chmod 600)"
        if open_ones
        else "bring one token to every node: `ray get-auth-token --generate`, then copy the file"
    )
    mode = {name: fact.auth_mode or "not set" for name, fact in facts.items() if not _asks(fact.auth_mode, fact.token, clustered)}
    told = "token" if clustered else "a Ray that starts here asks for its token"
    return [
        judge("token file", {**lacking, **open_ones}, _token_told(facts), remedy),
        judge("RAY_AUTH_MODE", mode, told, "export RAY_AUTH_MODE=token before Ray starts, on every node and where jobs are submitted"),
    ]


def _asks(mode: str, token: TokenFile, clustered: bool) -> bool:
    """On a cluster the mode must be said: `ray start` and its clients go by different defaults."""
    return mode.lower() == "token" or (not mode and not clustered)


def _token_told(facts: Mapping[str, Facts]) -> str:
    tokens = [fact.token for fact in facts.values()]
    if any(token.in_environment for token in tokens):
        return "in the environment"
    if not any(token.present for token in tokens):
        return "none yet; Ray makes it when it first starts here"
    return f"{tokens[0].path}, readable by its owner only"


def judge_gpus(facts: Mapping[str, Facts], counted: Mapping[str, float]) -> Finding:
    """`counted`: the GPUs that Ray counts on each node; empty without Ray."""
    bad = {}
    for name, fact in facts.items():
        if counted.get(name, 0) > fact.gpus:
            bad[name] = f"Ray counts {counted[name]:g}, torch sees {fact.gpus}"
        elif fact.gpus and counted and not any(counted.values()):  # a head that is to have none is no mistake, a cluster without is
            bad[name] = f"torch sees {fact.gpus}, Ray counts none"
        elif fact.devices and not fact.gpus:
            bad[name] = f"the machine has {fact.devices}, torch sees none"
    seen = {name: fact.gpus for name, fact in sorted(facts.items()) if fact.gpus}
    remedy = "install a torch that fits the driver (nvidia-smi), look at CUDA_VISIBLE_DEVICES, or start Ray with --num-gpus"
    return judge("GPUs", bad, " + ".join(map(str, seen.values())) or "none", remedy)


def judge_clocks(offsets: Mapping[str, tuple[float, float]]) -> Finding:
    """`offsets`: of each node, how far its clock is from this one's in seconds, and how uncertain that is.

    A problem only where the clocks of two nodes are apart by more than CLOCK_SECONDS for certain.
    """
    if len(offsets) < 2:
        return fine("clocks", "one clock")
    first = min(offsets, key=lambda name: sum(offsets[name]))
    last = max(offsets, key=lambda name: offsets[name][0] - offsets[name][1])
    certain = (offsets[last][0] - offsets[last][1]) - sum(offsets[first])
    apart = max(offset for offset, _ in offsets.values()) - min(offset for offset, _ in offsets.values())
    if certain <= CLOCK_SECONDS:
        return fine("clocks", f"{apart:.2f} s apart at most")
    return problem(
        "clocks", f"{last} is at least {certain:.1f} s ahead of {first}", "run a time service on every node (chrony, systemd-timesyncd)"
    )


def judge_seen(unseen: Mapping[str, list[str]], nodes: int) -> Finding:
    bad = {name: f"does not see what {on_nodes(writers)} wrote" for name, writers in unseen.items() if writers}
    remedy = "the workspace must be one file system, mounted at the same path on every node (NFS: lookupcache=positive)"
    return judge("shared files", bad, f"each of {nodes} nodes reads what each wrote", remedy)


def judge_rename(watched: Mapping[str, tuple[int, int]]) -> Finding:
    """`watched`: of each node, how often it read a file that another replaced by renaming all the while, and how often it was not whole."""
    bad = {name: f"{broken} of {reads} reads found no whole file" for name, (reads, broken) in watched.items() if broken}
    reads = sum(each for each, _ in watched.values())
    remedy = "this file system does not rename atomically: keep the workspace on another (local disk, NFSv4, Lustre, GPFS)"
    return judge("rename", bad, f"atomic in {reads} reads", remedy)


def judge_locks(holder: str, refused: Mapping[str, bool], taken_over: bool) -> Finding:
    """`refused`: of each other node, whether the lock that `holder` held was refused to it; `taken_over`: whether it was free after."""
    bad = {name: f"was given a lock that {holder} held" for name, held in refused.items() if not held}
    if not taken_over:
        bad[holder] = "its lock could not be had after it was given back"
    remedy = "mount the workspace with locks (NFSv4, or NFSv3 with lockd; not nolock): two runs could do the same step at once"
    return judge("file locks", bad, "refused while another holds it, free after", remedy)


def judge_dashboard(host: str, port: int, unasked: int | None) -> Finding:
    """`unasked`: the status of a request without the token, None where nothing answered."""
    if unasked == 200:
        return problem(
            "dashboard",
            f"{host}:{port} answers without the token: whoever reaches it can run programs",
            "start Ray with RAY_AUTH_MODE=token, and with --dashboard-host 127.0.0.1",
        )
    if _is_public(host):
        return problem("dashboard", f"listens on the public address {host}:{port}", "start Ray with --dashboard-host 127.0.0.1")
    asks = {401: ", asks for the token", 403: ", asks for the token", None: ", not reached from here"}.get(unasked, "")
    return fine("dashboard", f"{host}:{port}{asks}")


def _is_public(host: str) -> bool:
    """Whether an address can be reached from everywhere; of a name nothing is known."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_global or address.is_unspecified
