"""What holds for every test: the CPU, no network, no deadline."""

import os

# Before anything imports jax: the tests ask for the CPU even where there is an accelerator, and no client
# library looks anything up.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"

from hypothesis import settings

# The first example of a property compiles what the later ones reuse, so a limit per example says nothing.
settings.register_profile("namedtensor", deadline=None, print_blob=True)
settings.load_profile("namedtensor")
