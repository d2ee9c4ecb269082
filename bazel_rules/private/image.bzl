"""nt_image: archives as an OCI image."""

load("//private:archive.bzl", "NtArchiveInfo")
load("//private:toolchain.bzl", "TOOLCHAIN", "run")

NtImageInfo = provider(
    doc = "An OCI image.",
    fields = {
        "layout": "File: a tar of an OCI image layout.",
        "tag": "The name of the image in the layout.",
    },
)

def _nt_image(ctx):
    layout = ctx.actions.declare_file(ctx.label.name + ".tar")
    archives = [archive[NtArchiveInfo] for archive in ctx.attr.archives]
    arguments = ctx.actions.args()
    arguments.add_all(["image", "build"])
    arguments.add_all([archive.archive for archive in archives])
    arguments.add("-o", layout)
    arguments.add("--tag", ctx.attr.tag)
    arguments.add("--compression", ctx.attr.compression)
    arguments.add_all(ctx.attr.ports, before_each = "--port")
    if ctx.attr.user:
        arguments.add("--user", ctx.attr.user)
    if ctx.attr.version:
        arguments.add("--version", ctx.attr.version)
    if ctx.file.base:
        arguments.add("--base", "oci:{}:{}".format(ctx.file.base.path, ctx.attr.base_tag))
    run(
        ctx,
        "NtImage",
        "Making the image {}".format(ctx.label),
        arguments,
        depset([archive.archive for archive in archives] + ctx.files.base),
        [layout],
    )
    return [
        DefaultInfo(files = depset([layout]), runfiles = ctx.runfiles([layout])),
        NtImageInfo(layout = layout, tag = ctx.attr.tag),
    ]

nt_image = rule(
    implementation = _nt_image,
    doc = """Archives as an OCI image: NAME.tar, a tar of an OCI image layout. The same archives give the same digest.""",
    attrs = dict(
        TOOLCHAIN,
        archives = attr.label_list(
            doc = "`nt_archive` targets: one is an image, several are an index of images under one tag.",
            mandatory = True,
            allow_empty = False,
            providers = [NtArchiveInfo],
        ),
        tag = attr.string(
            doc = "The image's name within the layout.",
            default = "latest",
        ),
        base = attr.label(
            doc = "The OCI image layout, a directory or a tar of it, of the image to build upon. Images for CPUs need none.",
            allow_single_file = True,
        ),
        base_tag = attr.string(
            doc = "The name of the image in the layout of `base`.",
            default = "latest",
        ),
        compression = attr.string(
            doc = "Of the layers. Docker before 23 knows only gzip.",
            default = "zstd",
            values = ["gzip", "none", "zstd"],
        ),
        user = attr.string(
            doc = "Who the program runs as, `UID` or `UID:GID`; nobody by default.",
        ),
        ports = attr.string_list(
            doc = "Ports that the image says it listens on.",
        ),
        version = attr.string(
            doc = "The version that the image's annotations and bill of materials name.",
        ),
    ),
)
