"""Where compiled programs are kept between processes."""

import jax
from jax.experimental.compilation_cache import compilation_cache

from namedtensor._home import cache_directory


class cached_on_disk:
    """Executables compiled inside are kept on disk, and found there by the next process.

    jax's own cache does the work: its key covers the program, the compiler's release, its options and the machine.
    A directory that the user gave jax is left in force; `NAMEDTENSOR_CACHE=off` leaves the disk alone.
    """

    _OPTIONS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")

    def __enter__(self) -> None:
        self._before = {option: getattr(jax.config, option) for option in self._OPTIONS}
        directory = cache_directory()
        if directory is None or self._before["jax_compilation_cache_dir"] is not None:
            self._before = {}
            return
        # jax opens its cache once and then keeps to that directory, whatever the options say later.
        compilation_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", str(directory / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    def __exit__(self, *_: object) -> None:
        for option, value in self._before.items():
            jax.config.update(option, value)
        if self._before:
            compilation_cache.reset_cache()  # what else this process compiles is none of our business
