"""nt_test: an archive's program at work, and its answer held against a recorded one."""

load("//private:archive.bzl", "NtArchiveInfo")
load("//private:launcher.bzl", "launcher", "quoted", "runfile")
load("//private:toolchain.bzl", "TOOLCHAIN", "namedtensor")

def _nt_test(ctx):
    archive = ctx.attr.archive[NtArchiveInfo]
    words = ["exec", runfile(ctx, namedtensor(ctx).tool.executable), "check", runfile(ctx, archive.archive)]
    words += ["--expect", runfile(ctx, ctx.file.expected), "--tolerance", quoted(ctx.attr.tolerance)]
    if archive.weights:
        words += ["--weights", runfile(ctx, archive.weights)]

    # Paths as they are seen from the workspace stand in the answer, so the inputs are given in that way.
    words += ["--"] + [quoted(argument) for argument in ctx.attr.arguments]
    words += [quoted(file.short_path) for file in ctx.files.inputs]
    body = 'cd "$runfiles"/{}\n{}\n'.format(quoted(ctx.workspace_name), " ".join(words))
    script = launcher(ctx, "nt_test", body)
    files = [ctx.file.expected, archive.archive] + ctx.files.inputs + ([archive.weights] if archive.weights else [])
    runfiles = ctx.runfiles(files).merge(namedtensor(ctx).runfiles)
    return [DefaultInfo(executable = script, files = depset([script]), runfiles = runfiles)]

nt_test = rule(
    implementation = _nt_test,
    test = True,
    doc = """Unpacks an archive, runs its program on `inputs`, and fails where the answer is not the `expected` one.

`namedtensor check ARCHIVE --record FILE -- INPUTS` writes such an answer.""",
    attrs = dict(
        TOOLCHAIN,
        archive = attr.label(
            doc = "The `nt_archive`. It must be for this machine's processor.",
            mandatory = True,
            providers = [NtArchiveInfo],
        ),
        inputs = attr.label_list(
            doc = "Files that the program gets as arguments.",
            allow_files = True,
        ),
        arguments = attr.string_list(
            doc = "Arguments before the inputs, such as `--prompt`.",
        ),
        expected = attr.label(
            doc = "The answer that was recorded: what the program prints with `--json`.",
            allow_single_file = [".json"],
            mandatory = True,
        ),
        tolerance = attr.string(
            doc = "How far numbers may differ, absolutely and relatively.",
            default = "1e-4",
        ),
    ),
)
