"""What a WORKSPACE loads: see docs/bazel.md."""

load("//private:environment.bzl", _nt_environment = "nt_environment")

def nt_environment(name = "namedtensor_environment", **kwargs):
    """A Python environment with namedtensor in it, for the rules to use.

    Args:
      name: the repository's name; under another, set `@namedtensor//:toolchain` as well.
      **kwargs: the attributes of the repository rule `nt_environment`, `interpreter` and `fetch`.
    """
    _nt_environment(name = name, **kwargs)
