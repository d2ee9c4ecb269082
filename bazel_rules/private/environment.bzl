"""nt_environment: a Python environment that is there, as a repository with a toolchain."""

_VARIABLE = "NAMEDTENSOR_PYTHON"

# Run isolated, so that neither the caller's directory nor variables decide which packages are found. Of the packages, those
# count that namedtensor needs; all do where it was not installed as one.
_LOOK = """
import importlib.metadata, json, os, pathlib, re, sys
try:
    import namedtensor
    from namedtensor.lowering._cache import cache_directory
except ImportError as error:
    sys.exit(f"it has no namedtensor ({error})")

def plain(name):
    return re.sub("[-_.]+", "-", name).lower()

packages = {}
for one in importlib.metadata.distributions():
    packages.setdefault(plain(one.metadata["Name"]), one)
needed, left = set(), ["namedtensor"] if "namedtensor" in packages else list(packages)
while left:
    name = left.pop()
    if name in packages and name not in needed:
        needed.add(name)
        left += [plain(re.match("[A-Za-z0-9._-]+", text)[0]) for text in packages[name].requires or ()]
records = {}
for name in sorted(needed):
    for file in packages[name].files or ():
        if file.name == "RECORD" and len(file.parts) == 2:
            records[f"{name}-{packages[name].version}"] = str(packages[name].locate_file(file))
cache = cache_directory()
print(json.dumps({
    "python": sys.version.split()[0],
    "version": namedtensor.__version__,
    "package": os.path.dirname(os.path.realpath(namedtensor.__file__)),
    "records": records,
    "configuration": str(pathlib.Path(sys.prefix) / "pyvenv.cfg"),
    "cache": "" if cache is None else str(cache.absolute()),
}))
"""

_LAUNCHER = """#!/bin/sh
# The namedtensor command of the environment that nt_environment was given.
exec {interpreter} -I -c 'import sys; from namedtensor.cli import main; sys.exit(main())' "$@"
"""

_BUILD = """# Written by nt_environment for {interpreter}: namedtensor {version}, Python {python}.

load("{defs}", "nt_toolchain")

package(default_visibility = ["//visibility:public"])

# The package file by file, and pip's record of every other one, which has a digest of each of its files.
filegroup(
    name = "files",
    srcs = glob(
        ["records/**", "package/**"],
        # An environment that pip did not make has no records.
        allow_empty = True,
        exclude = ["**/__pycache__/**"],
    ) + ["environment.txt"],
)

nt_toolchain(
    name = "toolchain",
    compilers = {compilers},
    data = [":files"],
    tool = "namedtensor.sh",
)
"""

def _interpreter(rctx):
    """The interpreter's path, and who named it."""
    named = rctx.os.environ.get(_VARIABLE, "")
    if named:
        return named, _VARIABLE
    if rctx.attr.interpreter.startswith("/"):
        return rctx.attr.interpreter, "interpreter"
    if rctx.attr.interpreter:
        # Bazel before 6 has no workspace_root, and current Bazel need not have a WORKSPACE.
        root = rctx.workspace_root if hasattr(rctx, "workspace_root") else rctx.path(Label("@//:WORKSPACE")).dirname
        return str(root) + "/" + rctx.attr.interpreter, "interpreter"
    found = rctx.which("python3")
    if not found:
        fail("nt_environment: there is no python3 in the PATH; set interpreter or " + _VARIABLE)
    return str(found), "PATH"

def _checked(rctx, interpreter, source, arguments):
    """What a command of the interpreter prints."""
    done = rctx.execute([interpreter] + arguments, timeout = 1800)
    if done.return_code:
        reason = done.stderr.strip().split("\n")[-1]
        fail("nt_environment: {}, from {}, cannot be used: {}\n".format(interpreter, source, reason) +
             "  fix  install namedtensor into it, or name an interpreter that has it: interpreter = \"...\", " +
             "or --repo_env={}=/path/to/python".format(_VARIABLE))
    return done.stdout

def _nt_environment(rctx):
    interpreter, source = _interpreter(rctx)
    found = json.decode(_checked(rctx, interpreter, source, ["-I", "-c", _LOOK]))
    for platform in rctx.attr.fetch:
        if platform not in ("cuda", "rocm", "tpu"):
            fail("nt_environment: fetch: {} is not cuda, rocm or tpu".format(repr(platform)))
        rctx.report_progress("fetching the compiler and plugin for " + platform)
        code = "import sys; from namedtensor.export.archive import fetch; fetch(sys.argv[1])"
        _checked(rctx, interpreter, source, ["-I", "-c", code, platform])

    # Links to files outside of Bazel's own tree are looked at by every build, so that an upgrade is seen.
    rctx.symlink(found["package"], "package")
    for name, record in found["records"].items():
        rctx.symlink(record, "records/{}/RECORD".format(name))
    if rctx.path(found["configuration"]).exists:
        rctx.symlink(found["configuration"], "records/pyvenv.cfg")
    rctx.file("environment.txt", "interpreter {}\npython {}\n".format(interpreter, found["python"]), executable = False)
    rctx.file("namedtensor.sh", _LAUNCHER.format(interpreter = "'" + interpreter.replace("'", "'\\''") + "'"))
    rctx.file(
        "BUILD.bazel",
        _BUILD.format(
            compilers = repr(found["cache"]),
            defs = str(Label("//:defs.bzl")),
            interpreter = interpreter,
            python = found["python"],
            version = found["version"],
        ),
        executable = False,
    )

nt_environment = repository_rule(
    implementation = _nt_environment,
    doc = """A Python environment that is on this machine and has namedtensor in it, for the rules to use.

Bazel does not hold the environment: it holds its fingerprint. namedtensor's own files are inputs of every action, and so is
the RECORD of every package that it needs, which has a digest of each of its files. What is upgraded builds everything again;
what is edited by hand inside another package is not seen.""",
    attrs = {
        "interpreter": attr.string(
            doc = "Path of the environment's interpreter, absolute or relative to the workspace. `NAMEDTENSOR_PYTHON` " +
                  "(in the environment, or --repo_env) overrules it; without either, it is the `python3` of the PATH.",
        ),
        "fetch": attr.string_list(
            doc = "Accelerators (`cuda`, `rocm`, `tpu`) whose compilers are fetched into namedtensor's cache, by hash: " +
                  "a quarter gigabyte each, half to three quarters unpacked. Actions fetch nothing.",
        ),
    },
    environ = [_VARIABLE, "NAMEDTENSOR_CACHE", "PATH"],
    local = True,
)
