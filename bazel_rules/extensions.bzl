"""What a MODULE.bazel uses: see docs/bazel.md."""

load("//private:environment.bzl", "nt_environment")

_NAME = "namedtensor_environment"

def _namedtensor(module_ctx):
    # The root module decides, for all of the build has one environment.
    for module in module_ctx.modules:
        if module.is_root and len(module.tags.environment) > 1:
            fail("namedtensor.environment stands {} times; one is enough".format(len(module.tags.environment)))
        for tag in module.tags.environment:
            if module.is_root:
                nt_environment(name = _NAME, interpreter = tag.interpreter, fetch = tag.fetch)
                return
    nt_environment(name = _NAME)

_environment = tag_class(
    doc = "A Python environment with namedtensor in it, for the rules to use.",
    attrs = {
        "interpreter": attr.string(
            doc = "Path of the environment's interpreter, absolute or relative to the workspace. " +
                  "`NAMEDTENSOR_PYTHON` overrules it; without either, it is the `python3` of the PATH.",
        ),
        "fetch": attr.string_list(
            doc = "Accelerators (`cuda`, `rocm`, `tpu`) whose compilers are fetched into namedtensor's cache, by hash.",
        ),
    },
)

namedtensor = module_extension(
    implementation = _namedtensor,
    doc = "Makes the repository `@namedtensor_environment`, which the rules use.",
    tag_classes = {"environment": _environment},
)
