"""What Kubernetes is given: objects that its own schemas accept, which ask for the accelerator and for nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from namedtensor.cli import main

IMAGE = "registry.example/models/digits:1"
RELEASES = ["1.31.0", "1.37.0"]
CHIPS = ["cuda:h100", "rocm:mi300x", "tpu:v5e-4", "cpu:x86-64-v3"]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The objects that the command prints, which Kubernetes' schemas were held against."""

    def manifest(archive: Path, *arguments: str) -> Any:
        capsys.readouterr()
        assert main(["image", "manifest", str(archive), "--image", IMAGE, *arguments]) == 0
        objects = list(yaml.safe_load_all(capsys.readouterr().out))
        for one in objects:
            for release in RELEASES:
                kubernetes_validate.validate(one, release, strict=True)
        return objects

    return manifest


@pytest.fixture
def everywhere(changed: Callable[..., Path]) -> Path:
    """An archive with a target of every platform."""
    return changed("everywhere", targets=[{"name": name, "executables": {}, "libraries": []} for name in CHIPS])


@pytest.fixture
def outside(changed: Callable[..., Path]) -> Path:
    weights: Any = {"file": None, "bytes": 16 << 30, "sha256": "0" * 64, "aliases": {}}
    return changed("outside", weights=weights)


def pod(manifest: Any) -> Any:
    return manifest["spec"]["template"]["spec"]


def container(manifest: Any) -> Any:
    (one,) = pod(manifest)["containers"]
    return one


def test_by_default_there_is_a_job_with_the_arguments(digits: Path, printed: Callable[..., Any]) -> None:
    (job,) = printed(digits, "--", "4.png", "--top", "3")
    assert (job["kind"], job["metadata"]["name"]) == ("Job", "digits")
    assert container(job)["image"] == IMAGE
    assert container(job)["args"] == ["4.png", "--top", "3"]
    assert pod(job)["restartPolicy"] == "Never"


def test_what_fails_for_its_input_is_not_tried_again(digits: Path, printed: Callable[..., Any]) -> None:
    (job,) = printed(digits)
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2, 3])
    assert rule["onExitCodes"]["containerName"] == container(job)["name"]


@pytest.mark.parametrize("arguments", [[], ["--kind", "deployment", "--port", "8080"]], ids=["job", "deployment"])
def test_it_has_no_privileges_and_writes_nothing(
    digits: Path, printed: Callable[..., Any], arguments: list[str]
) -> None:
    first = printed(digits, *arguments)[0]
    assert pod(first)["securityContext"]["runAsNonRoot"] is True
    assert pod(first)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(first)["automountServiceAccountToken"] is False
    assert container(first)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


@pytest.mark.parametrize(
    ("target", "resource", "count"),
    [("cuda:h100", "nvidia.com/gpu", 1), ("rocm:mi300x", "amd.com/gpu", 1), ("tpu:v5e-4", "google.com/tpu", 4)],
)
def test_it_asks_for_the_accelerator_of_the_target(
    everywhere: Path, printed: Callable[..., Any], target: str, resource: str, count: int
) -> None:
    (job,) = printed(everywhere, "--target", target)
    assert container(job)["resources"]["limits"] == {resource: count}
    assert [one["key"] for one in pod(job)["tolerations"]] == [resource]
    # A plugin writes; the root is read-only.
    assert {"name": "tmp", "mountPath": "/tmp"} in container(job)["volumeMounts"]
    assert {"name": "tmp", "emptyDir": {}} in pod(job)["volumes"]


def test_tpu_nodes_are_chosen_by_generation_and_topology(everywhere: Path, printed: Callable[..., Any]) -> None:
    (job,) = printed(everywhere, "--target", "tpu:v5e-4")
    selector = pod(job)["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"
    assert selector["cloud.google.com/gke-tpu-topology"] == "2x2"


def test_cpus_need_nothing_but_a_processor(digits: Path, printed: Callable[..., Any]) -> None:
    (job,) = printed(digits, "--cpus", "2500m")
    assert set(container(job)["resources"]) == {"requests"}
    assert container(job)["resources"]["requests"]["cpu"] == "2500m"
    assert "tolerations" not in pod(job)
    assert "volumes" not in pod(job)
    assert pod(job)["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}


@pytest.mark.parametrize(
    ("volume", "listed", "path"),
    [
        ("pvc:llamas", {"persistentVolumeClaim": {"claimName": "llamas", "readOnly": True}}, "model.safetensors"),
        ("pvc:llamas/one/b.safetensors", {"persistentVolumeClaim": {"claimName": "llamas", "readOnly": True}}, None),
        (
            "image:registry.example/weights:3",
            {"image": {"reference": "registry.example/weights:3"}},
            "model.safetensors",
        ),
    ],
)
def test_weights_outside_are_mounted_and_named(
    outside: Path, printed: Callable[..., Any], volume: str, listed: Any, path: str | None
) -> None:
    (job,) = printed(outside, "--weights", volume, "--", "4.png")
    assert pod(job)["volumes"] == [{"name": "weights", **listed}]
    assert container(job)["volumeMounts"] == [{"name": "weights", "mountPath": "/weights", "readOnly": True}]
    assert container(job)["args"] == ["--weights", f"/weights/{path or 'one/b.safetensors'}", "4.png"]


def test_weights_of_an_address_are_downloaded_into_a_volume(outside: Path, printed: Callable[..., Any]) -> None:
    url = "https://models.example/a/b.safetensors?version=2"
    (job,) = printed(outside, "--weights", url, "--", "4.png")
    assert container(job)["args"] == ["--weights", url, "4.png"]
    # All that it may write to, on a disk with room for the weights.
    assert pod(job)["volumes"] == [{"name": "cache", "emptyDir": {}}]
    assert container(job)["volumeMounts"] == [{"name": "cache", "mountPath": "/cache"}]
    assert container(job)["env"] == [{"name": "NAMEDTENSOR_CACHE", "value": "/cache"}]
    assert 16 << 10 < int(container(job)["resources"]["requests"]["ephemeral-storage"].removesuffix("Mi")) < 17 << 10


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://models.example/b.safetensors", "an address is https://HOST/FILE"),
        ("s3://bucket/b.safetensors", "an address is https://HOST/FILE"),
        ("https:///b.safetensors", "an address is https://HOST/FILE"),
        ("https://models.example/b c", "an address is https://HOST/FILE"),
        ("https://models.example:x/b", "an address is https://HOST/FILE"),
        ("https://me:secret@models.example/b", "--weights models.example/b: no credentials in an address"),
    ],
)
def test_an_address_that_is_none_to_download_from_is_refused(
    outside: Path, capsys: pytest.CaptureFixture[str], address: str, problem: str
) -> None:
    assert main(["image", "manifest", str(outside), "--image", IMAGE, "--weights", address]) == 2
    said = capsys.readouterr().err
    assert problem in said
    assert "secret" not in said


def test_memory_is_asked_for_the_weights(outside: Path, printed: Callable[..., Any]) -> None:
    (job,) = printed(outside, "--weights", "pvc:weights")
    memory = container(job)["resources"]["requests"]["memory"]
    assert 16 << 10 < int(memory.removesuffix("Mi")) < 17 << 10


def test_files_are_mounted_where_the_program_looks(digits: Path, printed: Callable[..., Any]) -> None:
    (job,) = printed(digits, "--files", "pvc:scans")
    assert container(job)["volumeMounts"] == [{"name": "files", "mountPath": "/data", "readOnly": True}]


def test_a_deployment_has_probes_and_a_service(everywhere: Path, printed: Callable[..., Any]) -> None:
    chosen = ["--target", "cuda:h100", "--kind", "deployment", "--port", "8080", "--replicas", "3", "--name", "llama"]
    deployment, service = printed(everywhere, *chosen, "--namespace", "models")
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert {one["metadata"]["namespace"] for one in (deployment, service)} == {"models"}
    ((port,),) = [container(deployment)["ports"]]
    assert (port["containerPort"], port["name"]) == (8080, service["spec"]["ports"][0]["targetPort"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(deployment)[probe]["tcpSocket"] == {"port": port["name"]}
    # There may be no fourth accelerator.
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_deployment_may_be_asked_over_http(digits: Path, printed: Callable[..., Any]) -> None:
    deployment, _ = printed(digits, "--kind", "deployment", "--port", "80", "--health", "/healthz")
    assert container(deployment)["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "serve"}


def test_that_a_deployment_of_what_ends_is_started_for_ever_is_said(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["image", "manifest", str(digits), "--image", IMAGE, "--kind", "deployment", "--port", "80"]
    assert main(arguments) == 0
    assert "answers and ends" in capsys.readouterr().err


def test_json_is_a_list_of_the_same(
    digits: Path, printed: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    objects = printed(digits)
    assert main(["image", "manifest", str(digits), "--image", IMAGE, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], document["items"]) == ("List", objects)


def test_names_become_those_of_kubernetes(changed: Callable[..., Path], printed: Callable[..., Any]) -> None:
    (job,) = printed(changed("named", name="Llama_3.2"))
    assert job["metadata"]["name"] == "llama-3-2"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--target", "cuda:h200"], "the archive has cpu:x86-64-v2"),
        (["--weights", "pvc:x"], "the archive holds its weights"),
        (["--weights", "https://models.example/x"], "the archive holds its weights"),
        (["--files", "/etc"], "pvc:CLAIM, pvc:CLAIM/PATH or image:REFERENCE"),
        (["--files", "pvc:a/../b"], "pvc:CLAIM, pvc:CLAIM/PATH or image:REFERENCE"),
        (["--name", "Digits!"], "small letters"),
        (["--kind", "deployment"], "belong together"),
        (["--port", "80"], "belong together"),
        (["--cpus", "many"], "--cpus many"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    digits: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert main(["image", "manifest", str(digits), "--image", IMAGE, *arguments]) == 2
    assert problem in capsys.readouterr().err


def test_of_several_platforms_one_has_to_be_chosen(
    everywhere: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "manifest", str(everywhere), "--image", IMAGE]) == 2
    assert "choose with --target one of cuda:h100" in capsys.readouterr().err
    assert main(["image", "manifest", str(outside), "--image", IMAGE]) == 2
    assert "weights are outside" in capsys.readouterr().err
