"""nt_load: an image into the container engine of this machine."""

load("//private:image.bzl", "NtImageInfo")
load("//private:launcher.bzl", "launcher", "quoted", "runfile")

# The order is that of what people have rather than of what is best: who has several says which. An image is taken out of
# the layout by its tag, for its bill of materials and provenance are there beside it. Docker itself loads a layout only
# since it can keep images in containerd's store; skopeo gives one to any Docker.
_BODY = """engine={engine}
while [ $# -gt 0 ]; do
    case $1 in
        --engine) shift; engine=${{1?--engine needs a value}} ;;
        --engine=*) engine=${{1#*=}} ;;
        --) ;;
        *) echo "{label}: $1 is not understood; there is --engine docker, podman or ctr" >&2; exit 2 ;;
    esac
    shift
done
if [ -z "$engine" ]; then
    for engine in docker podman ctr none; do
        ! command -v "$engine" >/dev/null 2>&1 || break
    done
fi
layout={layout}
name={name}
tag={tag}
case $engine in
    docker)
        if command -v skopeo >/dev/null 2>&1; then
            exec skopeo copy "oci-archive:$layout:$tag" "docker-daemon:$name:$tag"
        fi
        exec docker load --input "$layout" ;;
    podman)
        image=$(podman pull --quiet "oci-archive:$layout:$tag")
        podman tag "$image" "$name:$tag"
        echo "$name:$tag" ;;
    ctr)
        exec ctr images import --base-name "$name" "$layout" ;;
    none)
        echo "{label}: there is no docker, podman or ctr here to load the image into" >&2
        exit 1 ;;
    *)
        echo "{label}: $engine is not an engine that images are loaded into: docker, podman, ctr" >&2
        exit 2 ;;
esac
"""

def _nt_load(ctx):
    image = ctx.attr.image[NtImageInfo]
    body = _BODY.format(
        engine = quoted(ctx.attr.engine),
        label = str(ctx.label),
        layout = runfile(ctx, image.layout),
        name = quoted(ctx.attr.image_name or "localhost/" + (ctx.label.package or ctx.label.name)),
        tag = quoted(image.tag),
    )
    script = launcher(ctx, "nt_load", body)
    return [DefaultInfo(executable = script, files = depset([script]), runfiles = ctx.runfiles([image.layout]))]

nt_load = rule(
    implementation = _nt_load,
    executable = True,
    doc = """Loads an image into this machine's container engine when it is run: Docker, Podman or containerd's ctr.

The first of these that is there is taken; `-- --engine podman` overrules that.""",
    attrs = {
        "image": attr.label(
            doc = "The `nt_image`.",
            mandatory = True,
            providers = [NtImageInfo],
        ),
        "engine": attr.string(
            doc = "The engine to load into: docker, podman or ctr. Empty: the first that is there.",
            values = ["", "ctr", "docker", "podman"],
        ),
        "image_name": attr.string(
            doc = "What the image is called in the engine, before `:` and its tag; by default `localhost/` and the package.",
        ),
    },
)
