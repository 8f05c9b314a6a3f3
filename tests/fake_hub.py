"""As much of the Hugging Face hub as pushing a network and fetching it again asks for.

Run as a program it pushes the network in a folder to such a hub, and fetches it again by name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Hub(ThreadingHTTPServer):
    """Keeps the files of one repository, and the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def revision(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def answer(self, content: object, code: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self.chunks())
        hub.requests.append(f"POST {path}")
        if path == "/api/repos/create":
            self.answer({"url": f"{hub.url}/me/net", "name": "me/net", "id": "1"})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            named = [file["path"] for file in json.loads(body)["files"]]
            self.answer(
                {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False,
                            "oid": None} for name in named]}
            )  # fmt: skip
        elif "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{hub.url}/me/net/commit/{hub.revision}"
            self.answer({"success": True, "commitOid": hub.revision, "commitUrl": url,
                         "pullRequestUrl": None, "hookOutput": ""})  # fmt: skip
        else:
            self.answer({"error": f"no {path}"}, 404)

    def chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        hub.requests.append(f"{self.command} {path}")
        name = path.rsplit("/", 1)[-1]
        if not path.startswith(("/api/models/me/net", "/me/net")):
            self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        elif "/resolve/" in path and name in hub.files:
            etag = f'"{hashlib.sha1(hub.files[name]).hexdigest()}"'
            self.answer(hub.files[name], ETag=etag, X_Repo_Commit=hub.revision)
        elif "/tree/" in path:
            self.answer(
                [{"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content),
                  "path": name} for name, content in hub.files.items()]
            )  # fmt: skip
        elif "/resolve/" in path:
            self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        else:
            siblings = [{"rfilename": name} for name in hub.files]
            self.answer({"id": "me/net", "modelId": "me/net", "sha": hub.revision, "private": False,
                         "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})  # fmt: skip

    do_HEAD = do_GET


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def main(folder: str) -> None:
    import torch

    from towernet.errors import EnvironmentFault

    assert "huggingface_hub" not in sys.modules  # what does not need it does not wake it
    from towernet.hub import HubNetwork, huggingface_hub

    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
    network = HubNetwork.from_pretrained(folder)
    network.push_to_hub("me/net", token="hf_none")
    found = HubNetwork.from_pretrained("me/net", download=True)
    size_px = network.contract.size_px
    x = torch.rand(2, 3, size_px, size_px)
    assert torch.equal(found(x), network(x)) and found.contract == network.contract
    kept = HubNetwork.from_pretrained("me/net", local_files_only=True)
    assert torch.equal(kept(x), network(x))
    try:
        HubNetwork.from_pretrained("me/nothing", download=True)
    except EnvironmentFault as error:
        Path("refused.txt").write_text(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
