"""Kubernetes objects that run an image: a Job by default, since the program answers and ends."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from namedtensor._errors import InputError
from namedtensor.export.archive import Contents
from namedtensor.export.oci._libraries import USER
from namedtensor.export.oci._pack import WORKING_DIRECTORY
from namedtensor.zoo import ChoiceError

# What device plugins call the accelerators of a platform.
_RESOURCES = {"cuda": "nvidia.com/gpu", "rocm": "amd.com/gpu", "tpu": "google.com/tpu"}
# What Kubernetes Engine calls the nodes of a TPU's generation.
_TPUS = {"v4": "tpu-v4-podslice", "v5e": "tpu-v5-lite-podslice", "v5p": "tpu-v5p-slice", "v6e": "tpu-v6e-slice"}
# The program's own codes for wrong usage and bad input: another try gives the same (docs/deploy.md).
_HOPELESS = (2, 3)
# Besides weights and state: the program, its buffers, what the plugin keeps on the host.
_SPARE = {"cpu": 64 << 20, "cuda": 1 << 30, "rocm": 1 << 30, "tpu": 1 << 30}
_WEIGHTS, _WEIGHTS_FILE = "/weights", "model.safetensors"
# Where the program may write what it downloads; its root file system is read-only.
_CACHE = "/cache"
# Besides the weights that are downloaded there: what is compiled on the spot.
_CACHE_SPARE = 64 << 20
_DTYPES = {
    "float64": 8,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "int32": 4,
    "uint32": 4,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True)
class Volume:
    """Where files come from: a claim of storage, or an image whose files are mounted.

    `file` is the path of the weights in it.
    """

    kind: str
    source: str
    file: str = _WEIGHTS_FILE

    @classmethod
    def parse(cls, text: str, option: str) -> Volume:
        """`pvc:CLAIM`, `pvc:CLAIM/PATH` or `image:REFERENCE`. Raises `ChoiceError` for anything else."""
        kind, _, rest = text.partition(":")
        if kind == "image" and rest:
            return cls(kind, rest)
        claim, _, path = rest.partition("/")
        parts = path.split("/") if path else []
        if kind != "pvc" or not _name(claim) or any(part in ("", ".", "..") for part in parts):
            raise ChoiceError(f"{option} {text}: pvc:CLAIM, pvc:CLAIM/PATH or image:REFERENCE is wanted")
        return cls(kind, claim, path or _WEIGHTS_FILE)

    def json(self, name: str) -> dict[str, Any]:
        """As a pod lists it."""
        if self.kind == "image":
            return {"name": name, "image": {"reference": self.source}}
        return {"name": name, "persistentVolumeClaim": {"claimName": self.source, "readOnly": True}}


@dataclass(frozen=True)
class Download:
    """Weights that the program fetches as it starts."""

    url: str


def weights_from(text: str) -> Volume | Download:
    """Where weights come from, as `--weights` has it: an https:// address, or what `Volume.parse` takes.

    Raises `ChoiceError` for anything else, and for an address with a password.
    """
    if "://" not in text:
        return Volume.parse(text, "--weights")
    shown = text.partition("?")[0].rpartition("@")[2]
    try:
        parts = urllib.parse.urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme != "https" or not re.fullmatch(r"[!-~]+", text) or parts.fragment:
        raise ChoiceError(f"--weights {shown}: an address is https://HOST/FILE")
    if "@" in parts.netloc:
        raise ChoiceError(f"--weights {shown}: no credentials in an address, which whoever sees the pod would read")
    return Download(text)


@dataclass(frozen=True)
class Wanted:
    """What is to run: an image, on which of the archive's targets, under which name, with which files and arguments."""

    image: str
    arguments: Sequence[str] = ()
    target: str | None = None
    name: str | None = None
    namespace: str | None = None
    weights: Volume | Download | None = None
    files: Volume | None = None
    cpus: str = "1"
    # Of a Deployment; a Job has none.
    port: int | None = None
    health: str | None = None
    replicas: int = 1


def manifest(contents: Contents, wanted: Wanted) -> list[dict[str, Any]]:
    """A Job; with a port a Deployment and its Service.

    Raises `ChoiceError` where a choice is missing or does not fit the archive, `InputError` where it is not known what
    nodes with the target are called.
    """
    name = wanted.name or re.sub(r"[._]+", "-", contents.name.lower()).strip("-")
    if not _name(name):
        raise ChoiceError(f"--name {name}: small letters, digits and dashes are wanted, at most 63")
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "namedtensor"}
    about = {"name": name, **({"namespace": wanted.namespace} if wanted.namespace else {}), "labels": labels}
    target = _target(contents, wanted.target)
    pod = _pod(contents, wanted, target)
    if wanted.port is None:
        return [_job(about, labels, pod)]
    return [_deployment(about, labels, pod, wanted, target), _service(about, labels)]


def _job(about: dict[str, Any], labels: dict[str, str], pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    hopeless = {"containerName": container["name"], "operator": "In", "values": list(_HOPELESS)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": about,
        "spec": {
            "backoffLimit": 3,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": hopeless}]},
            "template": {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", **pod}},
        },
    }


def _deployment(
    about: dict[str, Any], labels: dict[str, str], pod: dict[str, Any], wanted: Wanted, target: str
) -> dict[str, Any]:
    (container,) = pod["containers"]
    probe = {"httpGet": {"path": wanted.health, "port": "serve"}} if wanted.health else {"tcpSocket": {"port": "serve"}}
    serving = {
        **container,
        "ports": [{"name": "serve", "containerPort": wanted.port}],
        # Reading weights may take minutes where they come over a network.
        "startupProbe": {**probe, "periodSeconds": 5, "failureThreshold": 120},
        "readinessProbe": {**probe, "periodSeconds": 5},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
    }
    # There may be no accelerator left to start the next one on before the last one ends.
    rolling = {} if target.startswith("cpu:") else {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": about,
        "spec": {
            "replicas": wanted.replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": labels["app.kubernetes.io/name"]}},
            "strategy": {"type": "RollingUpdate", **rolling},
            "template": {"metadata": {"labels": labels}, "spec": {**pod, "containers": [serving]}},
        },
    }


def _service(about: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": about,
        "spec": {
            "selector": {"app.kubernetes.io/name": labels["app.kubernetes.io/name"]},
            "ports": [{"name": "serve", "port": 80, "targetPort": "serve"}],
        },
    }


def _pod(contents: Contents, wanted: Wanted, target: str) -> dict[str, Any]:
    arguments, environment = list(wanted.arguments), []
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    requests = {"cpu": wanted.cpus, "memory": ""}
    inside = contents.manifest["weights"].get("file")
    if inside and wanted.weights:
        raise ChoiceError("--weights: the archive holds its weights; build it with --weights-outside to give others")
    if not inside:
        if wanted.weights is None:
            raise ChoiceError(
                "the archive's weights are outside: say where with --weights pvc:CLAIM, image:REFERENCE or https://..."
            )
        if isinstance(wanted.weights, Download):
            volumes.append({"name": "cache", "emptyDir": {}})
            mounts.append({"name": "cache", "mountPath": _CACHE})
            environment.append({"name": "NAMEDTENSOR_CACHE", "value": _CACHE})
            requests["ephemeral-storage"] = f"{-(-(_weights(contents) + _CACHE_SPARE) >> 20)}Mi"
            arguments[:0] = ["--weights", wanted.weights.url]
        else:
            volumes.append(wanted.weights.json("weights"))
            mounts.append({"name": "weights", "mountPath": _WEIGHTS, "readOnly": True})
            arguments[:0] = ["--weights", f"{_WEIGHTS}/{wanted.weights.file}"]
    if wanted.files is not None:
        volumes.append(wanted.files.json("files"))
        mounts.append({"name": "files", "mountPath": f"/{WORKING_DIRECTORY}", "readOnly": True})
    platform = target.partition(":")[0]
    if platform != "cpu":
        # Plugins write what they compile on the spot, and logs.
        volumes.append({"name": "tmp", "emptyDir": {}})
        mounts.append({"name": "tmp", "mountPath": "/tmp"})
    accelerators, selector = _hardware(target)
    requests["memory"] = f"{-(-(_bytes(contents) + _SPARE[platform]) >> 20)}Mi"
    container = {
        "name": "model",
        "image": wanted.image,
        **({"args": arguments} if arguments else {}),
        **({"env": environment} if environment else {}),
        "resources": {
            "requests": requests,
            **({"limits": accelerators} if accelerators else {}),
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        **({"volumeMounts": mounts} if mounts else {}),
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", **selector},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"tolerations": [_toleration(key) for key in accelerators]} if accelerators else {}),
        "containers": [container],
        **({"volumes": volumes} if volumes else {}),
    }


def _toleration(resource: str) -> dict[str, str]:
    """Nodes with accelerators are commonly kept from pods that ask for none, by a taint of the resource's name."""
    return {"key": resource, "operator": "Exists", "effect": "NoSchedule"}


def _hardware(target: str) -> tuple[dict[str, int], dict[str, str]]:
    """How many accelerators a target takes, by what they are called, and the labels of nodes that have them."""
    platform = target.partition(":")[0]
    if platform == "cpu":
        return {}, {}
    if platform != "tpu":
        return {_RESOURCES[platform]: 1}, {}
    from namedtensor import compilers

    chip = compilers.target(target)
    generation, shape = chip.topology()[0].split(":")
    if generation not in _TPUS:
        raise InputError(f"{target}: it is not known what nodes with a TPU {generation} are called")
    selector = {
        "cloud.google.com/gke-tpu-accelerator": _TPUS[generation],
        "cloud.google.com/gke-tpu-topology": shape,
    }
    return {_RESOURCES[platform]: chip.chips}, selector


def _target(contents: Contents, wanted: str | None) -> str:
    """The target to run; which one of several for CPUs makes no difference here."""
    names = [target["name"] for target in contents.manifest["targets"]]
    if wanted is not None and wanted not in names:
        raise ChoiceError(f"--target {wanted}: the archive has {', '.join(names)}")
    platforms = {name.partition(":")[0] for name in names}
    found = wanted or (names[0] if len(names) == 1 or platforms == {"cpu"} else None)
    if found is None:
        raise ChoiceError(f"a pod asks for one kind of accelerator: choose with --target one of {', '.join(names)}")
    if found.partition(":")[0] not in _SPARE:
        raise InputError(f"{found}: it is not known what nodes with that are called")
    return found


def _bytes(contents: Contents) -> int:
    """Weights, and the largest arguments that an entry point takes besides."""
    largest = 0
    for entry in contents.manifest["entries"]:
        for variant in entry["variants"]:
            arguments = variant.get("arguments") if isinstance(variant, dict) else None
            largest = max(largest, sum(map(_size, arguments if isinstance(arguments, list) else [])))
    return _weights(contents) + largest


def _weights(contents: Contents) -> int:
    weights = contents.manifest["weights"].get("bytes")
    return weights if type(weights) is int and weights >= 0 else 0


def _size(argument: Any) -> int:
    if not isinstance(argument, dict) or argument.get("kind") == "weight":
        return 0
    size = _DTYPES.get(str(argument.get("dtype")), 2)
    for side in argument.get("shape") or []:
        size = min(size * side, 1 << 50) if type(side) is int and side >= 0 else size
    return size


def _name(text: str) -> bool:
    """Whether a text is a name by RFC 1123, as Kubernetes wants for most of its objects."""
    return re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text) is not None
