"""The Kubernetes files: fields that KubeRay and Kubernetes document, at the places they document, and what the project promises of them.

The fields are written down here by hand: those of a RayJob from KubeRay's source, the others from its samples and documentation.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOM = Path(__file__).parents[2] / "deploy" / "kubernetes"
CODE = ("foundation", "mergers", "tasks", "models", "trainers", "evaluators", "pipeline")


def words(text: str) -> set[str]:
    return set(text.split())


JOB = words("""
    entrypoint backoffLimit activeDeadlineSeconds shutdownAfterJobFinishes ttlSecondsAfterFinished submitterPodTemplate rayClusterSpec
    metadata clusterSelector submitterConfig managedBy deletionStrategy runtimeEnvYAML jobId submissionMode entrypointResources
    entrypointNumCpus entrypointNumGpus suspend
""")
CLUSTER = words("""
    rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec workerGroupSpecs headServiceAnnotations
    gcsFaultToleranceOptions managedBy upgradeStrategy suspend
""")
HEAD = words("rayStartParams template serviceType headService enableIngress resources labels")
WORKERS = words("groupName replicas minReplicas maxReplicas idleTimeoutSeconds rayStartParams template numOfHosts scaleStrategy suspend")
POD = words("securityContext containers volumes restartPolicy terminationGracePeriodSeconds automountServiceAccountToken tolerations")
CONTAINER = words("name image securityContext env envFrom resources volumeMounts ports imagePullPolicy lifecycle")


def read(name: str) -> dict[str, Any]:
    (document,) = yaml.safe_load_all((ROOM / name).read_text())
    return document


@pytest.fixture
def job() -> dict[str, Any]:
    return read("rayjob.yaml")


def pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pod templates by what they are for."""
    cluster = job["spec"]["rayClusterSpec"]
    return {
        "submitter": job["spec"]["submitterPodTemplate"],
        "head": cluster["headGroupSpec"]["template"],
        **{group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]},
    }


def test_every_field_is_one_that_is_documented(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert set(spec) <= JOB
    assert set(cluster) <= CLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD
    assert all(set(group) <= WORKERS for group in cluster["workerGroupSpecs"])
    for pod in pods(job).values():
        assert set(pod["spec"]) <= POD
        for container in pod["spec"]["containers"]:
            assert set(container) <= CONTAINER
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes text"


def test_a_lost_cluster_is_tried_again_and_a_finished_one_goes(job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert spec["backoffLimit"] >= 1
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"
    assert all(pods(job)[name]["spec"]["terminationGracePeriodSeconds"] >= 60 for name in ("head", "gpu"))


def test_head_and_workers_share_the_volume_that_the_workspace_lies_on(job: dict[str, Any]) -> None:
    claim = read("pvc.yaml")
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (workspace,) = [word.removeprefix("workspace=") for word in job["spec"]["entrypoint"].split() if word.startswith("workspace=")]
    for name in ("head", "gpu"):
        spec = pods(job)[name]["spec"]
        (shared,) = [
            each["name"] for each in spec["volumes"] if each.get("persistentVolumeClaim") == {"claimName": claim["metadata"]["name"]}
        ]
        (container,) = spec["containers"]
        (mount,) = [each for each in container["volumeMounts"] if each["name"] == shared]
        assert Path(workspace).is_relative_to(mount["mountPath"])
        assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in spec["volumes"]}


def test_no_pod_is_root_or_may_become_it(job: dict[str, Any]) -> None:
    for name, pod in pods(job).items():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]


def test_a_token_is_asked_for_and_no_secret_is_written_down(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0), "older ones have no tokens"
    for pod in pods(job).values():
        for container in pod["spec"]["containers"]:
            assert {each["name"] for each in container.get("env", [])} <= {"RAY_USAGE_STATS_ENABLED"}
    text = (ROOM / "rayjob.yaml").read_text()
    assert "LoadBalancer" not in text
    assert "NodePort" not in text


def test_all_pods_run_one_image_with_the_ray_that_is_pinned(job: dict[str, Any]) -> None:
    images = {container["image"] for pod in pods(job).values() for container in pod["spec"]["containers"]}
    assert len(images) == 1
    pins = (ROOM.parents[1] / "constraints.txt").read_text().splitlines()
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in pins


def test_the_network_policy_covers_every_pod(job: dict[str, Any]) -> None:
    policy = read("networkpolicy.yaml")
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    labels = policy["spec"]["podSelector"]["matchLabels"].items()
    assert all(labels <= pod["metadata"]["labels"].items() for pod in pods(job).values())
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    own, operator = policy["spec"]["ingress"]
    assert own["from"] == [{"podSelector": policy["spec"]["podSelector"]}]
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert all(set(source) for rule in policy["spec"]["ingress"] for source in rule["from"]), "an empty source lets in everyone"


def test_the_image_has_the_pins_and_the_code_and_is_not_roots() -> None:
    lines = [line for line in (ROOM / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    installs = [line for line in lines if "pip install" in line]
    assert len(installs) == 2
    assert all("-c constraints.txt" in line for line in installs)
    assert installs[0].endswith(" torch")
    copied = {line.split()[1] for line in lines if line.startswith("COPY") and len(line.split()) == 3} - {"constraints.txt"}
    assert copied == set(CODE)
    assert lines[-1] == "USER 1000"
    ignored = (ROOM / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == {*CODE, "constraints.txt", "pyproject.toml", "README.md", "LICENSE"}
