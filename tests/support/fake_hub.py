"""A hub on this machine that speaks as much of the Hugging Face hub's HTTP interface as sharing and fetching a run need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


@dataclass
class Repository:
    """The files of a model repository on its one branch, main, and the message of each commit."""

    private: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        # Python keeps the hash of a bytes object: nothing is read twice.
        content = "".join(f"{name} {hash(data)}\n" for name, data in sorted(self.files.items()))
        return hashlib.sha1(content.encode()).hexdigest()


@dataclass
class FakeHub:
    """Repositories by name, and every request that came."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self._parts()
        if parts[:2] == ["api", "models"]:
            found = self._repository("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
            if found is None:
                return
            files = {name: len(data) for name, data in found.files.items()}
            if parts[4:5] == ["tree"]:
                tree = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in files.items()]
                return self._answer(tree)
            siblings = [{"rfilename": name} for name in files]
            name = "/".join(parts[2:4])
            return self._answer({"id": name, "sha": found.commit, "private": found.private, "siblings": siblings})
        if parts[2:3] != ["resolve"]:
            return self._refuse(404, "EntryNotFound")
        found = self._repository("/".join(parts[:2]), parts[3])
        if found is None:
            return
        data = found.files.get("/".join(parts[4:]))
        if data is None:
            return self._refuse(404, "EntryNotFound")
        self._send(data, {"X-Repo-Commit": found.commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    def do_POST(self) -> None:
        parts, body = self._parts(), self.rfile.read(int(self.headers["Content-Length"]))
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.repositories:
                return self._answer({"url": f"{self.hub.url}/{name}"}, status=409)
            private = asked.get("private", asked.get("visibility") == "private")
            self.hub.repositories[name] = Repository(private=bool(private))
            return self._answer({"url": f"{self.hub.url}/{name}", "id": name})
        if parts == ["api", "validate-yaml"]:
            return self._answer({"errors": [], "warnings": []})
        name = "/".join(parts[2:4])
        found = self._repository(name, "main")
        if found is None:
            return
        if parts[4] == "preupload":
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
            return self._answer({"files": modes})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                found.messages.append(line["value"]["summary"])
            else:
                found.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self._answer({"commitUrl": f"{self.hub.url}/{name}/commit/{found.commit}", "commitOid": found.commit})

    def _parts(self) -> list[str]:
        self.hub.requests.append(f"{self.command} {self.path}")
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _repository(self, name: str, revision: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None:
            self._refuse(404, "RepoNotFound")
        elif revision not in ("main", found.commit):
            self._refuse(404, "RevisionNotFound")
        else:
            return found
        return None

    def _answer(self, content: object, *, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"}, status=status)

    def _refuse(self, status: int, code: str) -> None:
        self._send(b"", {"X-Error-Code": code}, status=status)

    def _send(self, data: bytes, headers: dict[str, str], *, status: int = 200) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    """Start a hub on a free port of this machine and end it."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def used_hub(cache: str) -> Iterator[FakeHub]:
    """Have huggingface_hub talk to a fake hub, logged in, and keep what it fetches in the folder `cache`."""
    with serve_hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", cache)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setenv("HF_TOKEN", "a-token-of-nobody")
        for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.delenv(proxy, raising=False)
        yield hub
