"""Weights that the program downloads: from a server on loopback that breaks off, lies, redirects, knows no ranges."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

import namedtensor as nt
from namedtensor.export import archive
from namedtensor.export.archive._build import RUNNER
from namedtensor.tasks import Classify, ImagePreprocess
from tests.export.unpack import unpack

SIDE, LABELS = 4, 64

pytestmark = pytest.mark.skipif(not RUNNER.is_file(), reason="scripts/build-runner has not built the runner")


class Linear(nt.Module):
    weight: nt.Tensor


def classify(model: Linear, images: nt.Tensor) -> dict[str, nt.Tensor]:
    logits = images.merge("h w c -> d").dot(model.weight, "d")
    return {"logits": logits, "probabilities": logits * 1}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """An archive without its weights, and those."""
    directory = tmp_path_factory.mktemp("archive")
    inputs = SIDE * SIDE * 3
    weight = np.random.default_rng(0).standard_normal((LABELS, inputs)).astype(np.float32)
    program = nt.Program(
        Linear(nt.wrap(weight, "label d")),
        {"classify": nt.entry(classify, images=nt.spec("b h w c", b=1, h=SIDE, w=SIDE, c=3))},
        task=Classify(ImagePreprocess(SIDE, SIDE), labels=tuple(map(str, range(LABELS)))),
        name="linear",
    )
    outside = directory / "weights.safetensors"
    archive.build(program, directory / "linear.tar.zst", ["cpu:x86-64-v2"], weights_outside=outside)
    return unpack(directory / "linear.tar.zst", directory), outside.read_bytes()


@dataclass
class Server:
    """What is served, how, and what was asked for."""

    data: bytes
    ranges: bool = True
    # Bytes of each answer before the connection is closed, one after the other; then everything.
    cuts: list[int] = field(default_factory=list)
    # Answers other than the file: status by path, and where a path leads to.
    statuses: dict[str, int] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        if handler.path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[handler.path])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        self.asked.append(asked)
        status = self.statuses.get(handler.path, 200)
        data = self.data
        handler.send_response(206 if status == 200 and asked and self.ranges else status)
        if status != 200:
            data = b"no"
        elif asked and self.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            data = data[start:]
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: self.cuts.pop(0)] if self.cuts else data)
        handler.wfile.flush()


@pytest.fixture
def server(built: tuple[Path, bytes]) -> Iterator[Server]:
    state = Server(built[1])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.url = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield state
        running.shutdown()


class Client:
    def __init__(self, program: Path, directory: Path) -> None:
        self.program = program / program.name
        self.cache = directory / "cache"
        self.image = directory / "image.png"
        self.weights = self.cache / "weights"
        self.environment: dict[str, str] = {}
        Image.new("RGB", (SIDE, SIDE), (200, 100, 50)).save(self.image)

    def run(self, weights: str | Path, *, cache: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, self.image, "--json", "--weights", weights],
            capture_output=True,
            text=True,
            check=False,
            env={"NAMEDTENSOR_CACHE": cache or str(self.cache), **self.environment},
            timeout=60,
        )

    def logits(self, weights: str | Path) -> list[float]:
        found = self.run(weights)
        assert (found.returncode, found.stderr) == (0, "")
        logits: list[float] = json.loads(found.stdout)["images"][0]["logits"]
        return logits

    def refusal(self, weights: str, code: int = 1, cache: str | None = None) -> str:
        found = self.run(weights, cache=cache)
        assert (found.returncode, found.stdout) == (code, "")
        assert found.stderr.count("\n") == 1
        return found.stderr

    def kept(self) -> list[str]:
        return sorted(path.suffix for path in self.weights.iterdir())


@pytest.fixture
def client(built: tuple[Path, bytes], tmp_path: Path) -> Client:
    return Client(built[0], tmp_path)


def test_they_are_downloaded_once(client: Client, server: Server, built: tuple[Path, bytes], tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(built[1])
    expected = client.logits(tmp_path / "w")
    assert client.logits(f"{server.url}/w") == expected
    assert client.logits(f"{server.url}/w") == expected
    assert server.asked == [None]
    assert client.kept() == [".safetensors"]


def test_a_connection_that_breaks_is_taken_up_again(client: Client, server: Server) -> None:
    server.cuts = [1000, 1, 5000]
    client.logits(f"{server.url}/w")
    assert server.asked == [None, "bytes=1000-", "bytes=1001-", "bytes=6001-"]


def test_a_later_start_goes_on_where_an_earlier_one_ended(client: Client, server: Server) -> None:
    server.cuts = [2000, 0, 0, 0, 0]
    refusal = client.refusal(f"{server.url}/w")
    assert f"(2000 of {len(server.data)} bytes are kept" in refusal
    assert client.kept() == [".partial"]
    server.asked.clear()
    client.logits(f"{server.url}/w")
    assert server.asked == ["bytes=2000-"]
    assert client.kept() == [".safetensors"]


def test_a_server_without_ranges_sends_all_of_it_again(client: Client, server: Server) -> None:
    server.ranges, server.cuts = False, [3000]
    client.logits(f"{server.url}/w")
    assert server.asked == [None, "bytes=3000-"]


def test_another_file_is_refused_and_not_kept(client: Client, server: Server) -> None:
    server.data = server.data[:-1] + bytes([server.data[-1] ^ 1])
    assert "it is another file than the one that the archive was built with" in client.refusal(f"{server.url}/w")
    assert client.kept() == []


@pytest.mark.parametrize("change", [lambda data: data + b"x", lambda data: data[:-1]])
def test_a_file_of_another_size_is_not_even_read(client: Client, server: Server, change) -> None:
    server.data = change(server.data)
    told = f"it has {len(server.data)} bytes"
    assert told in client.refusal(f"{server.url}/w")
    assert all(path.stat().st_size == 0 for path in client.weights.iterdir())


def test_what_another_download_left_is_thrown_away_when_it_is_not_the_same(client: Client, server: Server) -> None:
    server.cuts = [2000, 0, 0, 0, 0]
    client.refusal(f"{server.url}/w")
    (partial,) = client.weights.iterdir()
    partial.write_bytes(bytes(2000))
    assert "it is another file" in client.refusal(f"{server.url}/w")
    client.logits(f"{server.url}/w")


def test_a_cached_file_that_was_damaged_is_downloaded_again(client: Client, server: Server) -> None:
    expected = client.logits(f"{server.url}/w")
    (kept,) = client.weights.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    assert client.logits(f"{server.url}/w") == expected
    assert server.asked == [None, None]


@pytest.mark.parametrize("to", ["/w", "absolute"])
def test_redirections_are_followed(client: Client, server: Server, to: str) -> None:
    server.redirects = {"/moved": f"{server.url}/w" if to == "absolute" else to}
    client.logits(f"{server.url}/moved")


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("/moved", "redirected more than 5 times"),
        ("http://192.0.2.1/w?key=secret", "redirected to http://192.0.2.1/w, which is not https://"),
        ("file:///etc/passwd", "redirected nowhere"),
    ],
)
def test_redirections_to_elsewhere_are_refused(client: Client, server: Server, to: str, told: str) -> None:
    server.redirects = {"/moved": to}
    refusal = client.refusal(f"{server.url}/moved")
    assert told in refusal
    assert "secret" not in refusal


def test_a_missing_file_is_told_without_the_query(client: Client, server: Server) -> None:
    server.statuses = {"/w?key=secret": 404}
    refusal = client.refusal(f"{server.url}/w?key=secret")
    assert refusal == f"linear: error: the weights: {server.url}/w: the server answers 404 Not Found\n"


def test_a_server_that_is_not_there_is_told(client: Client) -> None:
    assert "http://127.0.0.1:9/w" in client.refusal("http://127.0.0.1:9/w")


def test_other_machines_are_spoken_to_in_secret_only(client: Client) -> None:
    refusal = client.refusal("http://192.0.2.1/w", code=2)
    assert "http:// is for this machine's own addresses only; use https://" in refusal


def test_without_a_cache_there_is_no_place_for_them(client: Client, server: Server) -> None:
    assert "NAMEDTENSOR_CACHE" in client.refusal(f"{server.url}/w", cache="off")
    assert server.asked == []


def test_wrong_usage_is_told_before_anything_is_downloaded(client: Client, server: Server) -> None:
    client.image = client.image.with_name("missing.png")
    server.statuses = {"/w": 503}
    assert "missing.png" in client.refusal(f"{server.url}/w", code=3)


# Over TLS


def certified(directory: Path) -> tuple[Path, Path, Path]:
    """Files of an authority's certificate, of one that it signed for 127.0.0.1, and of that one's key."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("authority", "server")]
    now = datetime.datetime.now(datetime.UTC)
    files = []
    for place in range(2):
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        made = (
            x509.CertificateBuilder()
            .subject_name(names[place])
            .issuer_name(names[0])
            .public_key(keys[place].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=place == 0, path_length=None), critical=True)
            .add_extension(address, critical=False)
            .sign(keys[0], hashes.SHA256())
        )
        files.append(directory / f"{place}.pem")
        files[-1].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = directory / "key.pem"
    plain = serialization.NoEncryption()
    private.write_bytes(keys[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return files[0], files[1], private


def test_a_server_must_have_a_certificate_of_an_authority_that_is_known(
    client: Client, built: tuple[Path, bytes], tmp_path: Path
) -> None:
    authority, certificate, key = certified(tmp_path)
    state = Server(built[1])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{running.server_port}/w"
        refusal = client.refusal(url)
        assert "certificate" in refusal
        assert state.asked == []
        client.environment["SSL_CERT_FILE"] = str(authority)
        client.logits(url)
        running.shutdown()
