"""Whether a Ray cluster answers at an address and lets this machine in, found out in seconds: Ray itself tries a dead one for minutes.

Asked before a driver connects: who listens there, by one call of Ray's own protocol; then the token, the versions, and whether this machine
is a node, since a driver works through the Ray on its own machine.
"""

import json
import os
import socket
import sys
import time

from foundation.errors import ResourceError
from pipeline.config.inputs import check_address

CLIENT = "ray://"
START_SECONDS = 3.0
"""A head that is just being started may take so long to listen."""
ASK_SECONDS = 5.0
LOOK_SECONDS = 0.25
ELSEWHERE = "check --address or RAY_ADDRESS, or leave both out to run on this machine"


def check_cluster(address: str) -> None:
    """ConfigError unless `address` has the form of a cluster's, ResourceError unless a Ray cluster answers there that this process fits.

    `local` is no cluster, and always right. Starts nothing; ends within `START_SECONDS`, two calls and the search for the host's name.
    """
    if address == "local":
        return
    where = running_here() if address == "auto" else address
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            check_address(where)
            break
        except ResourceError as error:
            if time.monotonic() > deadline or isinstance(error.__cause__, socket.gaierror):
                raise
        time.sleep(LOOK_SECONDS)
    _ask(where)
    if not where.startswith(CLIENT):  # Ray's client asks for the versions itself, at once, and needs no node here
        _check_admission(where)


def running_here() -> str:
    """The address that Ray takes `auto` for: of the Ray that runs on this machine, or was the last one started here."""
    from ray._private.services import get_ray_address_from_environment

    try:
        found = get_ray_address_from_environment("auto", None)
    except ConnectionError as error:
        raise ResourceError(
            "no Ray runs on this machine, where auto looks for one; start it (ray start --head), name another with --address host:port, "
            "or leave --address out to run on this machine alone"
        ) from error
    return str(found)


def _ask(where: str) -> None:
    """ResourceError unless Ray answers one call to it."""
    import grpc  # type: ignore[import-untyped]
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc, ray_client_pb2, ray_client_pb2_grpc
    from ray.exceptions import AuthenticationError

    try:
        with init_grpc_channel(where.removeprefix(CLIENT), options=(("grpc.enable_http_proxy", 0),)) as channel:  # with TLS and the token
            if where.startswith(CLIENT):
                ping = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)
                ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo(ping, timeout=ASK_SECONDS)
            else:
                alive = gcs_service_pb2.CheckAliveRequest()
                gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).CheckAlive(alive, timeout=ASK_SECONDS)
    except AuthenticationError as error:
        raise no_token(where) from error
    except grpc.RpcError as error:
        code = error.code().name
        raise (no_token(where) if code == "UNAUTHENTICATED" else ResourceError(_no_head(where, code))) from error


def _no_head(where: str, code: str) -> str:
    """What it means that a call to the head came back with this gRPC status, and what to do."""
    if code == "UNIMPLEMENTED":
        other = (
            f"leave out {CLIENT}, or give the port of Ray's client" if where.startswith(CLIENT) else f"put {CLIENT} before a client's port"
        )
        return f"{where} answers, but this is another of Ray's ports; give the head's (6379 by default), and {other}"
    if code == "DEADLINE_EXCEEDED":
        return (
            f"something listens at {where}, but does not answer within {ASK_SECONDS:.0f} s: the head hangs, or a tunnel leads nowhere; "
            f"{ELSEWHERE}"
        )
    return f"something listens at {where}, but it is not the head of a Ray cluster; {ELSEWHERE}"


def _check_admission(where: str) -> None:
    """ResourceError where the cluster's token is lacking, its versions are others, or this machine is none of its nodes."""
    import ray
    from ray._private.services import find_node_ids
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    deadline = time.monotonic() + START_SECONDS
    try:
        client = ray._raylet.GcsClient(address=where)
        check_versions(where, client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster", timeout=ASK_SECONDS))
        while True:
            alive = client.get_all_node_info(timeout=ASK_SECONDS, state_filter=GcsNodeInfo.GcsNodeState.ALIVE)
            if {node.node_id.hex() for node in alive.values()} & set(find_node_ids()):
                return
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_SECONDS)
    except ray.exceptions.AuthenticationError as error:
        raise no_token(where) from error
    except ray.exceptions.RayError as error:
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise ResourceError(f"the Ray cluster at {where} does not answer as it should ({reason}); {ELSEWHERE}") from error
    raise ResourceError(
        f"the cluster at {where} answers, but this machine is none of its {len(alive)} nodes, and a driver needs a node's Ray; "
        f"run this on one (the head), send it as a job (python -m pipeline submit), or join with: ray start --address={where}"
    )


def check_versions(where: str, metadata: bytes | None) -> None:
    """ResourceError, with both versions, where the cluster was started with another Ray or Python, by the rule that Ray has for it."""
    from ray._private.utils import check_version_info

    try:
        check_version_info(json.loads(metadata or b"{}"), "this machine")
    except RuntimeError as error:
        raise other_versions(where, error) from error
    except (KeyError, ValueError):  # it does not say: Ray will find out
        return


def other_versions(where: str, error: Exception) -> ResourceError:
    """What Ray says of versions that do not match, in one line, and what to do."""
    found = [line.partition(":")[2].strip() for line in str(error).splitlines() if line.strip().startswith(("Ray:", "Python:"))]
    if len(found) != 4:
        return ResourceError(f"the cluster at {where} has other versions of Ray or Python than this ({error}); install the same here")
    return ResourceError(
        f"the cluster at {where} runs Ray {found[0]} with Python {found[1]}, and this is Ray {found[2]} with Python {found[3]} "
        f"({sys.executable}), which do not work together; run this with the cluster's versions (in the nodes' own environment, or as a job)"
    )


def no_token(where: str) -> ResourceError:
    """That the cluster's token is lacking here, or another one."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return ResourceError(
            f"the cluster at {where} asks for a token; set RAY_AUTH_MODE=token, with the head's ~/.ray/auth_token here (mode 600)"
        )
    return ResourceError(
        f"the cluster at {where} asks for a token, and there is none here or another one; copy the head's ~/.ray/auth_token to "
        "~/.ray/auth_token (mode 600), or name its place in RAY_AUTH_TOKEN_PATH"
    )
