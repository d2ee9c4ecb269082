"""nt_model: a model, its weights and its options."""

load("//private:launcher.bzl", "FROM_CALLER", "launcher", "quoted", "runfile")
load("//private:toolchain.bzl", "TOOLCHAIN", "namedtensor", "run")

NtModelInfo = provider(
    doc = "A model and its weights.",
    fields = {
        "model": "The model as the namedtensor command takes it: a path in the execution root, or a name in the zoo.",
        "sources": "depset of the files that the model's code may read.",
        "weights": "Path of the checkpoint in the execution root.",
        "weights_files": "depset of the checkpoint's files.",
        "header": "Directory with the checkpoint's header: names, shapes and formats, and no weight.",
        "options": "List of `option=value`.",
    },
)

def _checkpoint(ctx):
    """The file or directory that holds the weights: its path, and that in the runfiles."""
    files = ctx.files.weights
    if len(files) == 1:
        return files[0].path, runfile(ctx, files[0])
    directories = {file.dirname: True for file in files}
    if len(directories) != 1:
        fail("weights: the files of one checkpoint lie in one directory, and these in " + ", ".join(directories))
    return files[0].dirname, '"$(dirname {})"'.format(runfile(ctx, files[0]))

def _nt_model(ctx):
    if bool(ctx.file.main) == bool(ctx.attr.zoo):
        fail("give either main, a model file, or zoo, the name of a model that comes with namedtensor")
    path, at_run_time = _checkpoint(ctx)
    weights = depset(ctx.files.weights)
    options = ["{}={}".format(name, value) for name, value in ctx.attr.options.items()]

    header = ctx.actions.declare_directory(ctx.label.name + ".header")
    arguments = ctx.actions.args()
    arguments.add_all(["header", path, "-o", header.path])
    run(ctx, "NtHeader", "Reading the header of {}'s weights".format(ctx.label), arguments, weights, [header])

    words = ["exec", runfile(ctx, namedtensor(ctx).tool.executable), "run"]
    words.append(runfile(ctx, ctx.file.main) if ctx.file.main else quoted(ctx.attr.zoo))
    words += ["--weights", at_run_time]
    for option in options:
        words += ["--set", quoted(option)]

    # Without arguments it runs on the declared inputs, which are named as they are in the workspace.
    inputs = " ".join([quoted(file.short_path) for file in ctx.files.inputs])
    if inputs:
        body = "if [ $# -eq 0 ]; then\n    cd \"$runfiles\"/{}\n    set -- {}\nelse\n    {}\nfi\n"
        body = body.format(quoted(ctx.workspace_name), inputs, FROM_CALLER)
    else:
        body = FROM_CALLER + "\n"
    script = launcher(ctx, "nt_model", body + " ".join(words + ['"$@"']) + "\n")

    sources = depset(([ctx.file.main] if ctx.file.main else []) + ctx.files.srcs)
    runfiles = ctx.runfiles(ctx.files.inputs, transitive_files = depset(transitive = [sources, weights]))
    return [
        DefaultInfo(
            executable = script,
            files = depset([script]),
            runfiles = runfiles.merge(namedtensor(ctx).runfiles),
        ),
        NtModelInfo(
            model = ctx.file.main.path if ctx.file.main else ctx.attr.zoo,
            sources = sources,
            weights = path,
            weights_files = weights,
            header = header,
            options = options,
        ),
        OutputGroupInfo(header = depset([header])),
    ]

nt_model = rule(
    implementation = _nt_model,
    executable = True,
    doc = """A model and its weights. `bazel run` runs it on this machine, as `namedtensor run` does.

Arguments after `--` are the command's; without any, it runs on `inputs`.""",
    attrs = dict(
        TOOLCHAIN,
        main = attr.label(
            doc = "The model file, which defines `program(ckpt) -> nt.Program`.",
            allow_single_file = [".py"],
        ),
        zoo = attr.string(
            doc = "Instead of `main`, the name of a model that comes with namedtensor, such as `llama`.",
        ),
        srcs = attr.label_list(
            doc = "Other files that the model file imports or reads. What is not listed is not there when it is compiled.",
            allow_files = True,
        ),
        weights = attr.label_list(
            doc = "The checkpoint: one file or directory, or all files of one directory (shards with their index, " +
                  "config.json, tokenizer.json). They may come from another repository, such as an `http_file`.",
            allow_files = True,
            mandatory = True,
            allow_empty = False,
        ),
        options = attr.string_dict(
            doc = "Options of the model: keywords of its `program`, and their values.",
        ),
        inputs = attr.label_list(
            doc = "What `bazel run` gives the model where the command line says nothing.",
            allow_files = True,
        ),
    ),
)
