"""`namedtensor image manifest`: what Kubernetes is told to run an image."""

from __future__ import annotations

from pathlib import Path

import click

from namedtensor.cli import _app, _output

_ENDS = """\
The program answers and ends, so Kubernetes would start it again for ever: a Deployment is for an image
whose --base brings a server, or whose arguments make the program serve.
"""


@click.command(short_help="Print what Kubernetes runs an image with.")
@click.argument("archive", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, metavar="[-- ARGUMENTS...]")
@click.option("--image", required=True, metavar="REGISTRY/REPOSITORY:TAG", help="The image as it was pushed.")
@click.option("--target", metavar="TARGET", help="Which of the archive's targets, where they are of several platforms.")
@click.option("--name", help="Name of the objects; by default the model's.")
@click.option("--namespace", help="Where they are made; by default wherever kubectl makes them.")
@click.option(
    "--weights",
    metavar="VOLUME|URL",
    help="Weights outside of the archive: pvc:CLAIM, pvc:CLAIM/PATH, image:REFERENCE, or https:// to download them.",
)
@click.option(
    "--files", metavar="VOLUME", help="What is mounted at /data, where the program looks: pvc:CLAIM, image:REFERENCE."
)
@click.option("--cpus", default="1", show_default=True, help="Processors that are asked for: 4, 500m.")
@click.option(
    "--kind",
    type=click.Choice(["job", "deployment"]),
    default="job",
    show_default=True,
    help="A Job runs to its end; a Deployment with a Service is for what serves.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Of a Deployment: where it serves.")
@click.option(
    "--health", metavar="PATH", help="Of a Deployment: what HTTP probes ask for; without it they only connect."
)
@click.option("--replicas", type=click.IntRange(min=0), default=1, show_default=True, help="Of a Deployment.")
@_app.as_json
@_app.debug
def command(
    archive: Path,
    arguments: tuple[str, ...],
    image: str,
    target: str | None,
    name: str | None,
    namespace: str | None,
    weights: str | None,
    files: str | None,
    cpus: str,
    kind: str,
    port: int | None,
    health: str | None,
    replicas: int,
    as_json: bool,
) -> None:
    """Print the Kubernetes objects that run the image of ARCHIVE on ARGUMENTS, for `kubectl apply -f -`.

    They ask for the accelerator of the target, run without root and without privileges, and write nothing.
    """
    import json
    import re

    import yaml

    from namedtensor.export import oci
    from namedtensor.export.archive import read

    if (kind == "deployment") != (port is not None):
        raise click.UsageError("--kind deployment and --port belong together")
    if health is not None and (port is None or not health.startswith("/")):
        raise click.UsageError("--health is a path, /healthz, of a Deployment")
    if not re.fullmatch(r"[0-9]+m?|[0-9]+\.[0-9]+", cpus):
        raise click.UsageError(f"--cpus {cpus}: a number, or one of thousandths (500m)")
    wanted = oci.Wanted(
        image=image,
        arguments=arguments,
        target=target,
        name=name,
        namespace=namespace,
        weights=None if weights is None else oci.weights_from(weights),
        files=None if files is None else oci.Volume.parse(files, "--files"),
        cpus=cpus,
        port=port,
        health=health,
        replicas=replicas,
    )
    objects = oci.manifest(read(archive), wanted)
    if port is not None:
        click.echo(_ENDS, err=True, nl=False)
    if as_json:
        _output.print_json({"apiVersion": "v1", "kind": "List", "items": objects})
    else:
        # A copy of each: what stands twice would be written as a reference, which people find hard to read and change.
        plain = [json.loads(json.dumps(one)) for one in objects]
        click.echo(yaml.safe_dump_all(plain, sort_keys=False, explicit_start=len(plain) > 1), nl=False)
