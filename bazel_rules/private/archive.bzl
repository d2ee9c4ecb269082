"""nt_archive: a model, compiled and packed with its weights and the native program that runs it."""

load("//private:model.bzl", "NtModelInfo")
load("//private:settings.bzl", "TARGET_SETTINGS", "wanted_targets")
load("//private:toolchain.bzl", "TOOLCHAIN", "run")

NtArchiveInfo = provider(
    doc = "An archive.",
    fields = {
        "archive": "The .tar.zst File.",
        "weights": "The File with the weights where they are outside of the archive, or None.",
        "targets": "List of the targets that there are executables for.",
    },
)

def _arguments(ctx, command, weights):
    model = ctx.attr.model[NtModelInfo]
    arguments = ctx.actions.args()
    arguments.add_all([command, model.model, "--weights", weights])
    arguments.add_all(model.options, before_each = "--set")
    return arguments

def _compiled(ctx, target):
    """A directory with the executables for one target, made from the header of the weights alone, and a report."""
    model = ctx.attr.model[NtModelInfo]
    place = "{}.compiled/{}".format(ctx.label.name, target.replace(":", "-"))
    directory = ctx.actions.declare_directory(place)
    report = ctx.actions.declare_file(place + ".report.json")
    arguments = _arguments(ctx, "compile", model.header.path)
    arguments.add_all(["--target", target, "--json", "-o", directory.dirname])
    run(
        ctx,
        "NtCompile",
        "Compiling {} for {}".format(ctx.label, target),
        arguments,
        depset([model.header], transitive = [model.sources]),
        [directory],
        stdout = report,
    )
    return directory, report

def _nt_archive(ctx):
    model = ctx.attr.model[NtModelInfo]
    targets = ctx.attr.targets or wanted_targets(ctx)
    if not targets:
        fail("nothing to compile for: every platform of @namedtensor//platforms is switched off")
    compiled = [_compiled(ctx, target) for target in targets]

    archive = ctx.actions.declare_file(ctx.label.name + ".tar.zst")
    weights = ctx.actions.declare_file(ctx.label.name + ".safetensors") if ctx.attr.weights_outside else None
    arguments = _arguments(ctx, "build", model.weights)
    arguments.add_all(targets, before_each = "--target")
    arguments.add_all([directory.path for directory, _ in compiled], before_each = "--compiled")
    if not ctx.attr.plugins:
        arguments.add("--no-plugins")
    if weights:
        arguments.add("--weights-outside", weights)
    arguments.add("-o", archive)
    inputs = [directory for directory, _ in compiled]
    outputs = [archive] + ([weights] if weights else [])
    run(
        ctx,
        "NtPack",
        "Packing {}".format(ctx.label),
        arguments,
        depset(inputs, transitive = [model.sources, model.weights_files]),
        outputs,
    )
    return [
        DefaultInfo(files = depset(outputs), runfiles = ctx.runfiles(outputs)),
        NtArchiveInfo(archive = archive, weights = weights, targets = targets),
        OutputGroupInfo(
            compiled = depset(inputs),
            reports = depset([report for _, report in compiled]),
        ),
    ]

nt_archive = rule(
    implementation = _nt_archive,
    doc = """A model's archive, NAME.tar.zst: unpacked, it runs without Python.

Each target is compiled by an action of its own, from the header of the weights; packing them is another. The output
group `reports` holds what the compiler said of each target (size, memory, bounds), `compiled` the executables.""",
    attrs = dict(
        dict(TARGET_SETTINGS, **TOOLCHAIN),
        model = attr.label(
            doc = "The `nt_model`.",
            mandatory = True,
            providers = [NtModelInfo],
        ),
        targets = attr.string_list(
            doc = "What to compile for, such as `cuda:h100`, whatever the settings are. Empty: what the settings of " +
                  "`@namedtensor//platforms` ask for.",
        ),
        plugins = attr.bool(
            doc = "Packs the plugins that run the executables of accelerators; without them, whoever runs the archive " +
                  "has them.",
            default = True,
        ),
        weights_outside = attr.bool(
            doc = "Leaves the weights out of the archive, in NAME.safetensors beside it.",
        ),
    ),
)
