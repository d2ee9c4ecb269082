"""Build settings: what `--@namedtensor//platforms:cuda=true` sets, and the targets that follow from it."""

SettingInfo = provider(
    doc = "The value of a build setting.",
    fields = {"value": "A bool, or a list of strings."},
)

def _setting(ctx):
    return [SettingInfo(value = ctx.build_setting_value)]

bool_setting = rule(
    implementation = _setting,
    build_setting = config.bool(flag = True),
    doc = "A setting that is true or false.",
)

list_setting = rule(
    implementation = _setting,
    build_setting = config.string_list(flag = True),
    doc = "A setting that is a comma-separated list.",
)

PLATFORMS = ["cpu", "cuda", "rocm", "tpu"]

def _setting_attr(name):
    return attr.label(default = Label("//platforms:" + name), providers = [SettingInfo])

# Attributes of a rule that reads the settings with wanted_targets().
TARGET_SETTINGS = {
    "_" + name: _setting_attr(name)
    for platform in PLATFORMS
    for name in (platform, platform + "_chips")
}

def wanted_targets(ctx):
    """The targets that the settings ask for.

    Args:
      ctx: the context of a rule with TARGET_SETTINGS among its attributes.

    Returns:
      A list of targets as the namedtensor command names them: `cpu:x86-64-v3`, `cuda:h100`.
    """
    return [
        "{}:{}".format(platform, chip)
        for platform in PLATFORMS
        if getattr(ctx.attr, "_" + platform)[SettingInfo].value
        for chip in getattr(ctx.attr, "_{}_chips".format(platform))[SettingInfo].value
    ]
