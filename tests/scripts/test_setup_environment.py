"""scripts/setup_environment.py: when an environment is current, and when it is made anew."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import setup_environment


class Installers:
    """Stands for uv, pip and the checkout's own build: notes what was called, and succeeds or fails as told."""

    def __init__(self, *, uv: bool = True, pip: bool = True, checkout: bool = True) -> None:
        self.calls: list[str] = []
        self.results = {"uv": uv, "pip": pip, "checkout": checkout}

    def __getitem__(self, name: str) -> Callable[[], bool]:
        def install() -> bool:
            # Whatever interrupts an installation, there must be no stamp for the next call to believe.
            assert not setup_environment.STAMP.exists()
            self.calls.append(name)
            return self.results[name]

        return install

    def put_in_place(self, monkeypatch: pytest.MonkeyPatch) -> "Installers":
        monkeypatch.setattr(setup_environment, "install_with_uv", self["uv"])
        monkeypatch.setattr(setup_environment, "install_with_pip", self["pip"])
        monkeypatch.setattr(setup_environment, "install_checkout", self["checkout"])
        return self


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, whose environments are bare directories."""
    (tmp_path / "requirements.lock").write_text("jax==1.0 \\\n    --hash=sha256:00\n", encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    environment = tmp_path / ".venv"
    monkeypatch.setattr(setup_environment, "ROOT", tmp_path)
    monkeypatch.setattr(setup_environment, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(setup_environment, "ENVIRONMENT", environment)
    monkeypatch.setattr(setup_environment, "STAMP", environment / "namedtensor-setup.json")

    def create(directory: Path, **_: object) -> None:
        if directory.exists():
            (directory / "left over").unlink(missing_ok=True)
        directory.mkdir(exist_ok=True)

    monkeypatch.setattr("venv.create", create)
    return tmp_path


def test_nothing_is_current_before_it_was_made() -> None:
    assert setup_environment.main(["--check"]) == 1


def test_second_call_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    installers = Installers().put_in_place(monkeypatch)
    assert setup_environment.main([]) == 0
    assert setup_environment.main(["--check"]) == 0
    assert setup_environment.main([]) == 0
    assert installers.calls == ["uv", "checkout"]


def test_pip_stands_in_for_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    installers = Installers(uv=False).put_in_place(monkeypatch)
    assert setup_environment.main([]) == 0
    assert installers.calls == ["uv", "pip", "checkout"]
    assert setup_environment.main(["--check"]) == 0


def test_failure_is_said_and_not_taken_for_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Installers(uv=False, pip=False).put_in_place(monkeypatch)
    assert setup_environment.main([]) == 1
    assert "requirements.lock" in capsys.readouterr().err
    assert setup_environment.main(["--check"]) == 1


def test_checkout_that_cannot_be_built_is_no_matter_of_the_registry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installers = Installers(checkout=False).put_in_place(monkeypatch)
    assert setup_environment.main([]) == 1
    assert installers.calls == ["uv", "checkout"]
    assert "The checkout could not be installed" in capsys.readouterr().err
    assert setup_environment.main(["--check"]) == 1


def test_interruption_is_not_taken_for_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> bool:
        raise KeyboardInterrupt

    Installers().put_in_place(monkeypatch)
    assert setup_environment.main([]) == 0
    setup_environment.LOCK.write_text("jax==2.0\n", encoding="utf-8")
    monkeypatch.setattr(setup_environment, "install_with_uv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        setup_environment.main([])
    assert setup_environment.main(["--check"]) == 1


@pytest.mark.parametrize("file", ["requirements.lock", "pyproject.toml"])
def test_changed_file_installs_again_into_the_same_environment(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    installers = Installers().put_in_place(monkeypatch)
    assert setup_environment.main([]) == 0
    kept = setup_environment.ENVIRONMENT / "left over"
    kept.touch()
    (checkout / file).write_text("# changed\n", encoding="utf-8")
    assert setup_environment.main(["--check"]) == 1
    assert setup_environment.main([]) == 0
    assert installers.calls == ["uv", "checkout", "uv", "checkout"]
    assert kept.exists()


@pytest.mark.parametrize("key", ["place", "python", "base"])
def test_another_interpreter_or_place_makes_the_environment_anew(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    Installers().put_in_place(monkeypatch)
    assert setup_environment.main([]) == 0
    record = json.loads(setup_environment.STAMP.read_text(encoding="utf-8"))
    setup_environment.STAMP.write_text(json.dumps(record | {key: "another"}), encoding="utf-8")
    old = setup_environment.ENVIRONMENT / "left over"
    old.touch()
    assert setup_environment.main([]) == 0
    assert not old.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "\0"])
def test_stamp_that_cannot_be_read_counts_as_none(content: str) -> None:
    setup_environment.ENVIRONMENT.mkdir()
    setup_environment.STAMP.write_text(content, encoding="utf-8")
    assert setup_environment.main(["--check"]) == 1


def test_entry_is_one_package_with_all_its_hashes() -> None:
    before = "uvloop==1 \\\n    --hash=sha256:00\n"
    wanted = "uv==2 ; x \\\n    --hash=sha256:01 \\\n    --hash=sha256:02\n"
    after = "    # via y\nz==3\n"
    setup_environment.LOCK.write_text(before + wanted + after, encoding="utf-8")
    assert setup_environment.entry("uv") == wanted


class TestUvEnvironment:
    """pip's configuration, in uv's terms."""

    @pytest.fixture(autouse=True)
    def bare(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(setup_environment, "PYTHON", Path(sys.executable))
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_TRUSTED_HOST"):
            monkeypatch.delenv(name, raising=False)
        for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "UV_INSECURE_HOST", "SSL_CERT_FILE"):
            monkeypatch.delenv(name, raising=False)

    def test_reads_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://one.example https://two.example")
        monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path} {tmp_path}/not-there")
        monkeypatch.setenv("PIP_CERT", "/certificates.pem")
        found = setup_environment.uv_environment()
        assert found["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
        assert found["UV_INDEX"] == "https://one.example https://two.example"
        assert found["UV_FIND_LINKS"] == str(tmp_path)
        assert found["SSL_CERT_FILE"] == "/certificates.pem"

    def test_reads_the_file_and_lets_the_environment_overrule_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "pip.conf").write_text(
            "[global]\nindex-url = https://file.example/simple\ntrusted-host =\n  one.example\n  two.example\n",
            encoding="utf-8",
        )
        assert setup_environment.uv_environment()["UV_DEFAULT_INDEX"] == "https://file.example/simple"
        assert setup_environment.uv_environment()["UV_INSECURE_HOST"] == "one.example two.example"
        monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example/simple")
        assert setup_environment.uv_environment()["UV_DEFAULT_INDEX"] == "https://variable.example/simple"

    def test_keeps_what_uv_was_told_already(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
        monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
        assert setup_environment.uv_environment()["UV_DEFAULT_INDEX"] == "https://uv.example/simple"

    def test_names_no_registry_where_pip_names_none(self) -> None:
        found = setup_environment.uv_environment()
        assert not {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS"} & found.keys()
