"""Weights downloaded from a local server: complete and checked, or not there at all."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from towernet import files
from towernet.errors import ConfigError, DataError, EnvironmentFault
from towernet.names import NetworkName
from towernet.starts import download as module
from towernet.starts.download import ask, download
from towernet.starts.find import at_hand, resolve
from towernet.starts.known import KNOWN
from towernet.starts.places import record_path, stored_path
from towernet.starts.published import weight_set

CONTENT = hashlib.sha256(b"seed").digest() * 40_000  # 1.28 MB
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HUB_SET = weight_set("timm:resnet10t", "c3_in1k")


class Server(ThreadingHTTPServer):
    """Serves one file in the ways that servers have."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.ranges = True
        self.cut_after: list[int] = []  # bytes of the body, one for each of the first requests
        self.status = 200
        self.says_length = True
        self.extra = b""
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(f"{self.command} {self.headers.get('Range', '')}".strip())
        if "/resolve/" in self.path:  # as the hub does
            self.send_response(302)
            self.send_header("Location", f"{server.url}/cdn/file")
            self.send_header("X-Linked-Size", str(len(server.content)))
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(server.content).hexdigest()}"')
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if server.ranges and (
            found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        ):
            start = int(found[1])
            if start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        else:
            self.send_response(200)
        body = server.content[start:] + server.extra
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            cut = server.cut_after.pop(0) if server.cut_after else len(body)
            self.wfile.write(body[:cut])
            self.wfile.flush()


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("TOWERNET_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as made:
        monkeypatch.setenv("TOWERNET_DOWNLOAD_BASE", made.url)
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield made
        made.shutdown()


SET = replace(KNOWN[0], sha256=DIGEST[:8], num_bytes=None, answer=(), content="")


def get(published=SET) -> Path:
    return download(ask(published), lambda *_: None)


def in_folder(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_a_file_is_downloaded_and_then_found(server):
    assert not at_hand("mobilenet_v2")
    path = get()
    assert path.read_bytes() == CONTENT
    assert in_folder(path) == ["IMAGENET1K_V1.pth", "IMAGENET1K_V1.pth.json"]
    assert at_hand("mobilenet_v2")
    weights = resolve([NetworkName("mobilenet_v2/frozen")], [])["mobilenet_v2"].weights
    assert weights == SET.described(DIGEST)


def test_progress_is_shown_in_megabytes(server):
    shown = []
    download(ask(SET), lambda *figures: shown.append(figures))
    assert shown[-1] == ("downloading, MB", 1, 1)


def test_a_download_that_is_cut_is_continued_where_it_was(server):
    server.cut_after = [500_000, 300_001]
    assert get().read_bytes() == CONTENT
    assert server.requests == ["HEAD", "GET", "GET bytes=500000-", "GET bytes=800001-"]


def test_a_download_is_continued_by_the_next_command(server):
    server.cut_after = [500_000, 0, 0, 0, 0, 0, 0]
    with pytest.raises(
        EnvironmentFault, match=r"was cut after 500,000 bytes; run the same command"
    ):
        get()
    path = stored_path(SET)
    assert in_folder(path) == ["IMAGENET1K_V1.pth.part"]
    assert not at_hand("mobilenet_v2")
    server.cut_after = []
    server.requests.clear()
    assert get().read_bytes() == CONTENT
    assert server.requests == ["HEAD", "GET bytes=500000-"]


def test_a_server_without_ranges_sends_all_of_it_again(server):
    server.ranges, server.cut_after = False, [500_000]
    assert get().read_bytes() == CONTENT


def test_a_server_that_does_not_say_the_size_is_asked_only_for_known_files(server):
    server.says_length = False
    with pytest.raises(EnvironmentFault, match="does not say how large"):
        get()
    assert get(replace(SET, num_bytes=len(CONTENT))).read_bytes() == CONTENT


@pytest.mark.parametrize("num_already", [0, 500_000, len(CONTENT), len(CONTENT) + 5])
def test_a_wrong_hash_is_refused_and_nothing_is_kept(server, num_already):
    path = stored_path(SET)
    path.parent.mkdir(parents=True)
    path.with_name(f"{path.name}.part").write_bytes(bytes(num_already))
    server.content = CONTENT[:-1] + b"x"
    message = (
        rf"is not torchvision .*: its SHA-256 .* should start with {DIGEST[:8]}, so nothing was"
    )
    with pytest.raises(DataError, match=message):
        get()
    assert in_folder(path) == []
    server.content = CONTENT
    assert get().read_bytes() == CONTENT


def test_another_size_is_refused_before_the_download(server):
    with pytest.raises(
        DataError, match=r"has 1,280,000 bytes, and .* has 14,212,972; get that file"
    ):
        get(KNOWN[0])
    assert server.requests == ["HEAD"]


def test_a_server_that_sends_without_end_is_refused(server):
    offer = ask(SET)
    server.extra = b"more"
    with pytest.raises(DataError, match=r"sent more than 1,280,000 bytes, so nothing was kept"):
        download(offer, lambda *_: None)
    assert in_folder(stored_path(SET)) == []


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "no longer has it"), (403, "refuses it"), (401, "asks for a login"), (503, "failed")],
)
def test_a_server_that_refuses_is_named(server, status, message):
    server.status = status
    with pytest.raises(
        EnvironmentFault, match=rf"{message} \(status {status}\); try later, or down"
    ):
        get()
    assert not stored_path(SET).parent.exists()


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port: int = some.getsockname()[1]
        return port


def test_a_machine_that_is_offline_is_told_what_to_do(server, monkeypatch):
    monkeypatch.setenv("TOWERNET_DOWNLOAD_BASE", f"http://127.0.0.1:{free_port()}")
    message = r"127\.0\.0\.1:\d+ cannot be reached .*; check the connection, or .*mobilenet_v2=FILE"
    with pytest.raises(EnvironmentFault, match=message) as caught:
        get()
    assert caught.value.exit_code == 4
    monkeypatch.setenv("TOWERNET_DOWNLOAD_BASE", "http://nowhere.invalid")
    with pytest.raises(EnvironmentFault, match=r"nowhere\.invalid cannot be reached"):
        get()


def test_a_proxy_that_fails_is_named_without_its_password(server, monkeypatch):
    port = free_port()
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
    message = rf"through the proxy 127\.0\.0\.1:{port} .*; check the proxy"
    with pytest.raises(EnvironmentFault, match=message) as caught:
        get()
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("http_proxy", server.url)
    server.status = 407
    with pytest.raises(EnvironmentFault, match=r"asks for a login \(status 407\); set HTTPS_PROXY"):
        get()


def test_the_hub_is_asked_for_the_hash(server):
    offer = ask(HUB_SET)
    assert (offer.digits, offer.num_bytes) == (DIGEST, len(CONTENT))
    path = download(offer, lambda *_: None)
    assert path.suffix == ".safetensors"
    assert path.read_bytes() == CONTENT
    server.content = CONTENT[::-1]
    with pytest.raises(DataError, match="so nothing was kept"):
        download(offer, lambda *_: None)
    assert path.read_bytes() == CONTENT


def test_a_redirect_to_an_unencrypted_address_is_refused():
    request = module.urllib.request.Request("https://example.org/a")
    with pytest.raises(module.urllib.error.URLError, match="which is not encrypted"):
        module._Redirects().redirect_request(request, None, 302, "", {}, "http://example.org/a")


def test_two_downloads_of_one_file_do_not_meet(server):
    offer, path = ask(SET), stored_path(SET)
    path.parent.mkdir(parents=True)
    with (
        files.lock(path.with_name(f"{path.name}.lock"), holder="another"),
        pytest.raises(ConfigError),
    ):
        download(offer, lambda *_: None)


def test_a_record_is_never_there_without_its_file(server, monkeypatch):
    """A crash after any write leaves what the next command repairs."""
    get()
    path = stored_path(SET)
    record_path(path).unlink()
    assert not at_hand("mobilenet_v2")
    assert get().read_bytes() == CONTENT
    assert at_hand("mobilenet_v2")
