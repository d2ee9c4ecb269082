"""The rules that build files load: see docs/bazel.md.

    load("@namedtensor//:defs.bzl", "nt_archive", "nt_image", "nt_model", "nt_push")
"""

load("//private:archive.bzl", _NtArchiveInfo = "NtArchiveInfo", _nt_archive = "nt_archive")
load("//private:image.bzl", _nt_image = "nt_image")
load("//private:load.bzl", _nt_load = "nt_load")
load("//private:model.bzl", _NtModelInfo = "NtModelInfo", _nt_model = "nt_model")
load("//private:push.bzl", _nt_push = "nt_push")
load("//private:test.bzl", _nt_test = "nt_test")
load("//private:toolchain.bzl", _nt_toolchain = "nt_toolchain")

NtArchiveInfo = _NtArchiveInfo
NtModelInfo = _NtModelInfo
nt_archive = _nt_archive
nt_image = _nt_image
nt_load = _nt_load
nt_model = _nt_model
nt_push = _nt_push
nt_test = _nt_test
nt_toolchain = _nt_toolchain
