"""Shell scripts that `bazel run` and `bazel test` start."""

_START = """#!/bin/sh
# Written by Bazel's rule {rule} for {label}.
set -eu
runfiles=${{RUNFILES_DIR:-${{TEST_SRCDIR:-$0.runfiles}}}}
case $runfiles in
    /*) ;;
    *) runfiles=$PWD/$runfiles ;;
esac
{body}"""

# Bazel starts a script in the tree of runfiles, and says where `bazel run` was typed: what stands on the command line
# is relative to that.
FROM_CALLER = 'cd "${BUILD_WORKING_DIRECTORY:-.}"'

def quoted(text):
    """A text as one word of the shell.

    Args:
      text: any text.

    Returns:
      The word.
    """
    return "'" + text.replace("'", "'\\''") + "'"

def runfile(ctx, file):
    """Where a script finds a file.

    Args:
      ctx: the rule's context.
      file: a File among the script's runfiles.

    Returns:
      The path, as a word of the shell.
    """
    path = file.short_path
    path = path[len("../"):] if path.startswith("../") else ctx.workspace_name + "/" + path
    return '"$runfiles"/' + quoted(path)

def launcher(ctx, rule, body):
    """Writes the script that a target runs as.

    Args:
      ctx: the rule's context.
      rule: the rule's name.
      body: what follows once `$runfiles` is known.

    Returns:
      The script's File.
    """
    script = ctx.actions.declare_file(ctx.label.name)
    content = _START.format(rule = rule, label = str(ctx.label), body = body)
    ctx.actions.write(script, content, is_executable = True)
    return script
