"""Remote sources, all of them on loopback: a web server, S3 by moto, Google Cloud Storage and the Hugging Face hub."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import urllib.parse
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import namedtensor as nt
from namedtensor.checkpoint import Checkpoint, _cache, load

BIG = np.random.default_rng(0).standard_normal((1200, 1024)).astype(np.float32)
MODEL = save({"big": BIG, "small": np.arange(3, dtype=np.float32)})
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEADER = len(MODEL) - BIG.nbytes - 12


class Server:
    """Files by path, with ranges, etags and a record of what was asked for."""

    def __init__(self):
        self.files = {}
        self.requests = []
        self.ranges = True
        self.broken = 0
        self.waiting = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                outer.answer(self, body=False)

            def do_GET(self):
                outer.answer(self, body=True)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request, *, body):
        wanted = request.headers.get("Range")
        self.requests.append((request.command, request.path, wanted))
        content = self.files.get(urllib.parse.unquote(urllib.parse.urlsplit(request.path).path.lstrip("/")))
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "")
        headers = {"Last-Modified": "Fri, 20 Nov 2026 19:00:00 GMT", "X-Repo-Commit": COMMIT}
        status = 200
        if content is None:
            status, content = 404, b""
        else:
            headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            if request.headers.get("If-Match", headers["ETag"]) != headers["ETag"]:
                status, content = 412, b""
            elif span and self.ranges:
                first, last = int(span[1]), min(int(span[2]), len(content) - 1)
                if self.waiting is not None and last - first > 1 << 20:
                    self.waiting.wait(60)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                status, content = 206, content[first : last + 1]
                if self.broken and last - first > 1 << 20:
                    status, content = self.broken, b""
        request.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(content)

    def fetched(self):
        """Bytes of every range that was asked for."""
        spans = [wanted.removeprefix("bytes=").split("-") for _, _, wanted in self.requests if wanted]
        return sum(int(last) - int(first) + 1 for first, last in spans)


@pytest.fixture
def server():
    made = Server()
    yield made
    if made.waiting is not None:
        made.waiting.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NAMEDTENSOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


def refused(call, problem):
    with pytest.raises(nt.CheckpointError, match=problem) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- web servers -----------------------------------------------------------------------------------------------------


def test_opening_fetches_the_header_only(server, cache):
    server.files["m.safetensors"] = MODEL
    checkpoint = Checkpoint.open(f"{server.url}/m.safetensors")
    assert checkpoint.info("big").shape == (1200, 1024)
    assert server.fetched() < HEADER + 1000
    assert kept(cache) == []


def test_loading_fetches_into_the_cache_in_pieces_and_only_once(server, cache, monkeypatch):
    monkeypatch.setattr(_cache, "_PIECE", 1 << 20)
    server.files["m.safetensors"] = MODEL
    weight = Checkpoint.open(f"{server.url}/m.safetensors").weight("big", "a b")
    loading = load(weight)
    np.testing.assert_array_equal(loading.result(60).numpy("a b"), BIG)
    assert loading.progress == (len(MODEL) + BIG.nbytes,) * 2
    assert [path.read_bytes() for path in kept(cache)] == [MODEL]
    pieces = len(server.requests)
    assert pieces >= len(MODEL) >> 20

    again = load(Checkpoint.open(f"{server.url}/m.safetensors").weight("big", "a b"))
    np.testing.assert_array_equal(again.result(60).numpy("a b"), BIG)
    assert again.progress == (BIG.nbytes,) * 2
    assert len(server.requests) < pieces + 5


def test_a_new_version_has_its_own_place_in_the_cache(server, cache, values):
    for value in (1, 2):
        server.files["m.safetensors"] = save({"w": np.full(4, value, np.float32)})
        assert values(f"{server.url}/m.safetensors")["w"].tolist() == [value] * 4
    assert len(kept(cache)) == 2


def test_a_directory_is_searched_for_the_usual_names(server, values):
    server.files["org/my model/model.safetensors"] = MODEL
    server.files["org/my model/config.json"] = b'{"a": 1}'
    checkpoint = Checkpoint.open(f"{server.url}/org/my%20model")
    assert checkpoint.json("config.json") == {"a": 1}
    assert not checkpoint.has_file("tokenizer.json")
    assert checkpoint.file("config.json").read_bytes() == b'{"a": 1}'
    assert values(checkpoint, "small")["small"].tolist() == [0, 1, 2]


def test_shards_are_fetched_through_their_index(server, values):
    index = {"weight_map": {f"w{i}": f"model-{i}.safetensors" for i in range(5)}}
    server.files["model.safetensors.index.json"] = json.dumps(index).encode()
    for i in range(5):
        server.files[f"model-{i}.safetensors"] = save({f"w{i}": np.full(2, i, np.float32)})
    assert [array[0] for array in values(server.url + "/").values()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("file", ["state_dict.pt", "q8_0.gguf"])
def test_other_formats_are_read_by_ranges_too(server, golden, values, file):
    server.files[file] = (golden / file).read_bytes()
    local, remote = values(golden / file), values(f"{server.url}/{file}")
    assert set(local) == set(remote)
    for name in local:
        np.testing.assert_array_equal(local[name], remote[name])


def test_a_signed_address_is_used_as_it_is_and_never_shown(server, values):
    server.files["m.safetensors"] = MODEL
    checkpoint = Checkpoint.open(f"{server.url}/m.safetensors?signature=s3cr3t")
    assert all(path == "/m.safetensors?signature=s3cr3t" for _, path, _ in server.requests)
    assert values(checkpoint, "small")["small"].tolist() == [0, 1, 2]
    assert not checkpoint.has_file("config.json")  # the signature opens one file
    assert "s3cr3t" not in repr(checkpoint) + repr(checkpoint.weight("small", "x").array)
    assert "s3cr3t" not in refused(
        lambda: Checkpoint.open(f"{server.url}/none.safetensors?signature=s3cr3t"), "no file"
    )


def test_an_object_that_changed_after_its_header_was_read_is_an_error(server, cache):
    server.files["m.safetensors"] = MODEL
    loading = Checkpoint.open(f"{server.url}/m.safetensors").weight("big", "a b")
    server.files["m.safetensors"] = save({"big": BIG + 1, "small": np.arange(3, dtype=np.float32)})
    refused(lambda: load(loading).result(60), "changed after its header was read")
    assert kept(cache) == []


def test_a_failed_download_is_one_line_and_leaves_nothing(server, cache):
    server.files["m.safetensors"] = MODEL
    weight = Checkpoint.open(f"{server.url}/m.safetensors").weight("big", "a b")
    server.broken = 403
    refused(lambda: load(weight).result(60), "403|Forbidden|denied|permission")
    assert kept(cache) == []


def test_a_cancelled_download_leaves_nothing(server, cache):
    server.files["m.safetensors"] = MODEL
    server.waiting = threading.Event()
    loading = load(Checkpoint.open(f"{server.url}/m.safetensors").weight("big", "a b"))
    loading.cancel()
    server.waiting.set()
    with pytest.raises(CancelledError):
        loading.result(60)
    loading._thread.join(60)
    assert [path for path in kept(cache) if path.suffix == ".part"] == []


def test_a_cached_file_of_another_size_is_fetched_again(server, cache, values):
    server.files["m.safetensors"] = MODEL
    values(f"{server.url}/m.safetensors", "small")
    (path,) = kept(cache)
    path.write_bytes(b"cut")
    assert values(f"{server.url}/m.safetensors", "small")["small"].tolist() == [0, 1, 2]


def test_a_server_without_ranges_is_refused_rather_than_read_whole(server):
    server.files["m.safetensors"] = MODEL
    server.ranges = False
    refused(lambda: Checkpoint.open(f"{server.url}/m.safetensors"), "ranged reads are needed")


def test_what_is_not_there_is_one_line(server):
    refused(lambda: Checkpoint.open(f"{server.url}/m.safetensors"), "there is no file 'm.safetensors'")
    refused(lambda: Checkpoint.open(f"{server.url}/folder"), r"holds none of model\.safetensors")
    server.files["model.safetensors.index.json"] = b'{"weight_map": {"w": "gone.safetensors"}}'
    refused(lambda: Checkpoint.open(server.url), "names the shard 'gone.safetensors', which is not there")


def test_a_cache_that_cannot_be_written_says_so(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAMEDTENSOR_CACHE", str(tmp_path / "file"))
    server.files["m.safetensors"] = MODEL
    weight = Checkpoint.open(f"{server.url}/m.safetensors").weight("big", "a b")
    refused(lambda: load(weight).result(60), "the cache cannot be written.*set NAMEDTENSOR_CACHE")


def test_with_the_cache_off_files_are_fetched_and_nothing_is_kept(server, tmp_path, monkeypatch):
    server.files["m.safetensors"] = MODEL
    for name in ("working", "temporary", "home"):
        (tmp_path / name).mkdir()
    script = """
import sys
from namedtensor.checkpoint import Checkpoint, load
weight = Checkpoint.open(sys.argv[1]).weight("big", "a b")
print(*[load(weight).result(60).numpy("a b").shape for _ in range(2)])
"""
    environment = {
        **os.environ,
        "NAMEDTENSOR_CACHE": "off",
        "TMPDIR": str(tmp_path / "temporary"),
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", script, f"{server.url}/m.safetensors"]
    done = subprocess.run(
        command, cwd=tmp_path / "working", env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "(1200, 1024) (1200, 1024)\n"
    # Within one process it is fetched once.
    assert server.fetched() < 2 * len(MODEL)
    assert [path for place in ("working", "temporary", "home") for path in (tmp_path / place).iterdir()] == []


def test_the_cache_is_in_the_home_directory_by_default(monkeypatch):
    monkeypatch.delenv("NAMEDTENSOR_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert _cache.root() == Path.home() / ".cache" / "namedtensor"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert _cache.root() == Path("/elsewhere/namedtensor")
    monkeypatch.setenv("NAMEDTENSOR_CACHE", "~/chosen")
    assert _cache.root() == Path.home() / "chosen"


# -- object stores ---------------------------------------------------------------------------------------------------


def test_s3_is_listed_and_read(monkeypatch, values):
    pytest.importorskip("moto.server", reason="needs moto's S3 server")
    pytest.importorskip("boto3")
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    try:
        endpoint = "http://{}:{}".format(*moto.get_host_and_port())
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket="weights")
        client.put_object(Bucket="weights", Key="llama/anything.safetensors", Body=MODEL)
        client.put_object(Bucket="weights", Key="llama/config.json", Body=b"{}")
        client.put_object(Bucket="weights", Key="llama/deeper/other.safetensors", Body=MODEL)
        for source in ("s3://weights/llama", "s3://weights/llama/anything.safetensors"):
            checkpoint = Checkpoint.open(source)
            assert checkpoint.json("config.json") == {}
            np.testing.assert_array_equal(values(checkpoint)["big"], BIG)
        refused(lambda: Checkpoint.open("s3://weights/nothing"), "s3://weights/nothing/: holds no checkpoint")
        refused(lambda: Checkpoint.open("s3://weights/llama/no.safetensors"), "no file 'no.safetensors'")
    finally:
        moto.stop()


def test_google_cloud_storage_is_read(server, tmp_path, monkeypatch, values):
    account = {"gcs_base_url": server.url, "disable_oauth": True, "client_email": "", "private_key": ""}
    (tmp_path / "account.json").write_text(json.dumps(account | {"private_key_id": ""}))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    server.files["weights/llama/m.safetensors"] = MODEL
    np.testing.assert_array_equal(values("gs://weights/llama/m.safetensors")["big"], BIG)
    assert {urllib.parse.unquote(path) for _, path, _ in server.requests} == {"/weights/llama/m.safetensors"}


# -- the hub ---------------------------------------------------------------------------------------------------------


class Hub(Server):
    """Enough of the hub's addresses for one repository at one commit."""

    def answer(self, request, *, body):
        path = urllib.parse.urlsplit(request.path).path
        if path.startswith("/api/models/org/repo"):
            revision = path.partition("/revision/")[2] or "main"
            names = [{"rfilename": name} for name in self.files if not name.startswith("api")]
            found = {"id": "org/repo", "modelId": "org/repo", "sha": COMMIT, "siblings": names}
            self.requests.append((request.command, request.path, None))
            status, content = (200, json.dumps(found).encode()) if revision in ("main", "v1", COMMIT) else (404, b"{}")
            headers = {} if status == 200 else {"X-Error-Code": "RevisionNotFound"}
        elif path.startswith("/api/"):
            status, content, headers = 404, b"{}", {"X-Error-Code": "RepoNotFound"}
        else:
            request.path = re.sub(r"^/org/repo/resolve/[^/]+/", "/", request.path)
            return super().answer(request, body=body)
        request.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            request.send_header(name, value)
        request.end_headers()
        return request.wfile.write(content)


@pytest.fixture
def hub():
    made = Hub()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def on_the_hub(hub, tmp_path):
    """Run code in a process of its own: huggingface_hub reads its settings when it is imported."""

    def run(code, **settings):
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(Path(nt.__file__).parent.parent),
        }
        preamble = "import numpy as np\nfrom namedtensor import CheckpointError\n"
        preamble += "from namedtensor.checkpoint import Checkpoint, load\n"
        done = subprocess.run(
            [sys.executable, "-c", preamble + textwrap.dedent(code)],
            env=environment | settings,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_repository_is_opened_by_its_header_and_loaded_through_the_hubs_cache(hub, on_the_hub, tmp_path):
    hub.files |= {"model.safetensors": MODEL, "config.json": b'{"a": 1}'}
    code = """
        checkpoint = Checkpoint.open("hf://org/repo@v1")
        print(checkpoint.names(), checkpoint.json("config.json"), checkpoint.has_file("tokenizer.json"))
        print("MARK")
        loading = load(checkpoint.weight("big", "a b"))
        print(loading.result(60).numpy("a b").tobytes().hex()[:64], loading.progress)
        print(checkpoint.file("model.safetensors"))
    """
    out = on_the_hub(code).splitlines()
    assert out[0] == "['big', 'small'] {'a': 1} False"
    assert out[2] == f"{BIG.tobytes().hex()[:64]} ({len(MODEL) + BIG.nbytes}, {len(MODEL) + BIG.nbytes})"
    assert Path(out[3]).is_relative_to(tmp_path / "hf" / "hub" / "models--org--repo")
    ranged = [wanted for _, path, wanted in hub.requests if path.endswith("model.safetensors") and wanted]
    assert ranged[0] == "bytes=0-511"


def test_a_file_of_a_repository_can_be_named(hub, on_the_hub):
    hub.files |= {"a.safetensors": MODEL, "deep/b.safetensors": save({"w": np.ones(2, np.float32)})}
    assert on_the_hub('print(Checkpoint.open("hf://org/repo/deep/b.safetensors").names())') == "['w']\n"
    out = on_the_hub("""
        for source in ("hf://org/repo@none/a.safetensors", "hf://org/other", "hf://org/repo/none.safetensors"):
            try:
                Checkpoint.open(source)
            except CheckpointError as error:
                print(error)
    """).splitlines()
    assert len(out) == 3
    assert out[0].startswith("hf://org/repo@none/a.safetensors: ")
    assert "Revision" in out[0]
    assert "Repository" in out[1]
    assert "there is no file 'none.safetensors'" in out[2]


def test_without_a_connection_the_hubs_cache_serves(hub, on_the_hub):
    hub.files |= {"model.safetensors": MODEL}
    code = 'print(load(Checkpoint.open("hf://org/repo").weight("small", "x")).result(60).numpy("x").tolist())'
    assert on_the_hub(code) == "[0.0, 1.0, 2.0]\n"
    missing = """
        try:
            Checkpoint.open("hf://org/other")
        except CheckpointError as error:
            print(error)
    """
    out = on_the_hub(code + "\n" + textwrap.dedent(missing), HF_HUB_OFFLINE="1").splitlines()
    assert out[0] == "[0.0, 1.0, 2.0]"
    assert out[1].startswith("hf://org/other: the hub cannot be reached")
