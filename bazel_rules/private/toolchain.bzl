"""The toolchain: the namedtensor command, and what its results depend on."""

NtToolchainInfo = provider(
    doc = "The namedtensor command.",
    fields = {
        "tool": "FilesToRunProvider of the command.",
        "files": "depset of the files that its results depend on besides itself; inputs of every action.",
        "runfiles": "Runfiles of the command and of those files.",
        "compilers": "Absolute path of the directory with the compilers of accelerators; empty where there are none.",
    },
)

def _nt_toolchain(ctx):
    tool = ctx.attr.tool[DefaultInfo]
    files = depset(ctx.files.data, transitive = [tool.default_runfiles.files])
    info = NtToolchainInfo(
        tool = tool.files_to_run,
        files = files,
        runfiles = ctx.runfiles([tool.files_to_run.executable] + ctx.files.data).merge(tool.default_runfiles),
        compilers = ctx.attr.compilers,
    )
    return [DefaultInfo(files = files), info]

nt_toolchain = rule(
    implementation = _nt_toolchain,
    doc = """A namedtensor command for the rules to use: what the setting `@namedtensor//:toolchain` names.

The repository rule `nt_environment` makes one of a Python environment, which is the default. Write your own where Bazel
builds the command, say as a `py_console_script_binary` of rules_python, and name it in `.bazelrc`:
`build --@namedtensor//:toolchain=//tools:namedtensor`.""",
    attrs = {
        "tool": attr.label(
            doc = "The namedtensor command.",
            mandatory = True,
            allow_files = True,
            executable = True,
            cfg = "exec",
        ),
        "data": attr.label_list(
            doc = "Files that the command's results depend on besides its runfiles. When one changes, everything is built again.",
            allow_files = True,
            cfg = "exec",
        ),
        "compilers": attr.string(
            doc = "Absolute path of the cache that holds the compilers of accelerators (`NAMEDTENSOR_CACHE`). " +
                  "Empty: only CPUs can be compiled for.",
        ),
    },
)

# Attributes of a rule that uses the command.
TOOLCHAIN = {
    "_toolchain": attr.label(
        default = Label("//:toolchain"),
        providers = [NtToolchainInfo],
        cfg = "exec",
    ),
}

def namedtensor(ctx):
    """The toolchain that a rule uses.

    Args:
      ctx: the context of a rule with TOOLCHAIN among its attributes.

    Returns:
      Its NtToolchainInfo.
    """
    return ctx.attr._toolchain[NtToolchainInfo]

def run(ctx, mnemonic, message, arguments, inputs, outputs, stdout = None):
    """Declares an action that runs the namedtensor command.

    Args:
      ctx: the context of a rule with TOOLCHAIN among its attributes.
      mnemonic: the action's mnemonic.
      message: what to show while it runs.
      arguments: an Args.
      inputs: a depset of files.
      outputs: a list of files or directories.
      stdout: the file that takes what the command prints; without one it is discarded.
    """
    toolchain = namedtensor(ctx)
    first = ctx.actions.args()
    first.add(stdout.path if stdout else "/dev/null")
    first.add(toolchain.tool.executable)
    ctx.actions.run_shell(
        mnemonic = mnemonic,
        progress_message = message,
        command = 'output=$1; shift; exec "$@" >"$output"',
        arguments = [first, arguments],
        inputs = depset(transitive = [inputs, toolchain.files]),
        tools = [toolchain.tool],
        outputs = outputs + ([stdout] if stdout else []),
        env = {
            # Nothing of the machine, its accelerators included, and nothing from the network may change a result.
            "HF_HUB_OFFLINE": "1",
            "JAX_PLATFORMS": "cpu",
            "NAMEDTENSOR_CACHE": toolchain.compilers or "off",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
        },
        execution_requirements = {} if not toolchain.compilers else {"no-remote-exec": "1"},
    )
