"""nt_push: an image to a registry."""

load("//private:image.bzl", "NtImageInfo")
load("//private:launcher.bzl", "FROM_CALLER", "launcher", "quoted", "runfile")
load("//private:toolchain.bzl", "TOOLCHAIN", "namedtensor")

_BODY = """repository={repository}
tags=
while [ $# -gt 0 ]; do
    case $1 in
        --repository) shift; repository=${{1?--repository needs a value}} ;;
        --repository=*) repository=${{1#*=}} ;;
        --tag) shift; tags="$tags ${{1?--tag needs a value}}" ;;
        --tag=*) tags="$tags ${{1#*=}}" ;;
        --) ;;
        *) break ;;
    esac
    shift
done
if [ -z "$repository" ]; then
    echo "{label}: where to? Give nt_push a repository, or say -- --repository HOST/REPO" >&2
    exit 2
fi
{from_caller}
for tag in ${{tags:-{tags}}}; do
    {tool} image push "$@" {layout} "$repository:$tag"
done
"""

def _nt_push(ctx):
    image = ctx.attr.image[NtImageInfo]
    for tag in ctx.attr.remote_tags:
        if not tag or [c for c in tag.elems() if not (c.isalnum() or c in "._-")]:
            fail("remote_tags: {} is no tag: letters, digits, . _ and - are for that".format(repr(tag)))
    body = _BODY.format(
        from_caller = FROM_CALLER,
        label = str(ctx.label),
        layout = runfile(ctx, image.layout),
        repository = quoted(ctx.attr.repository),
        tags = " ".join(ctx.attr.remote_tags),
        tool = runfile(ctx, namedtensor(ctx).tool.executable),
    )
    script = launcher(ctx, "nt_push", body)
    runfiles = ctx.runfiles([image.layout]).merge(namedtensor(ctx).runfiles)
    return [DefaultInfo(executable = script, files = depset([script]), runfiles = runfiles)]

nt_push = rule(
    implementation = _nt_push,
    executable = True,
    doc = """Pushes an image when it is run: `bazel run //models/digits:push -- --repository HOST/REPO`.

After `--`, `--repository` and `--tag` overrule the attributes, `--tag` as often as there are tags; other arguments
follow them, and are those of `namedtensor image push`. Blobs that the registry has are not sent again, and the
credentials are those of Docker's config.json.""",
    attrs = dict(
        TOOLCHAIN,
        image = attr.label(
            doc = "The `nt_image`.",
            mandatory = True,
            providers = [NtImageInfo],
        ),
        repository = attr.string(
            doc = "Where to, such as `registry.example.com/models/digits`.",
        ),
        remote_tags = attr.string_list(
            doc = "The tags that the image gets.",
            default = ["latest"],
            allow_empty = False,
        ),
    ),
)
