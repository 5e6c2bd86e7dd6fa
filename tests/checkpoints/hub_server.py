"""A small server on the loopback address that answers as the hub does."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

SHA = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """A model on the hub."""

    files: dict[str, bytes]
    sha: str = SHA
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    private: bool = False


@dataclass
class Hub:
    """The models that there are, and what was asked for."""

    endpoint: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)  # those that came with requests, "" for none
    broken: bool = False
    writers: set[str] = field(default_factory=set)  # tokens that may push
    large: dict[str, bytes] = field(default_factory=dict)  # content of large files, by their hash

    def downloaded(self) -> list[str]:
        """Names of the files that were fetched."""
        return sorted(line.rsplit("/", 1)[1] for line in self.asked if line.startswith("GET") and "/resolve/" in line)


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def only_hub(patch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Run a hub, which huggingface_hub takes for the only one; it read the environment when it was imported."""
    with serve() as hub:
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


Answer = tuple[int, bytes, dict[str, str]]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_PUT(self) -> None:
            self.answer()

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            hub.tokens.add(token)
            length = int(self.headers.get("Content-Length") or 0)
            given = self.rfile.read(length) if length else self.chunks()
            status, body, headers = (
                _push(hub, path, token, given) if self.command in ("POST", "PUT") else _route(hub, path)
            )
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def chunks(self) -> bytes:
            """The body of a request that states no length."""
            parts = []
            while self.headers.get("Transfer-Encoding") == "chunked":
                size = int(self.rfile.readline(), 16)
                parts.append(self.rfile.read(size))
                self.rfile.readline()
                if not size:
                    break
            return b"".join(parts)

    return Handler


def _route(hub: Hub, path: str) -> Answer:
    if hub.broken:
        return _problem(503, "", "the hub rests")
    api = path.startswith("/api/models/")
    rest = path.removeprefix("/api/models/").lstrip("/")
    named = [name for name in hub.repos if f"{rest}/".startswith(f"{name}/")]
    if not named:
        return _problem(401, "RepoNotFound", "Repository Not Found")
    name, repo = named[0], hub.repos[named[0]]
    what, _, rest = rest.removeprefix(name).lstrip("/").partition("/")
    revision, _, file = rest.partition("/")
    if (revision or "main") not in (*repo.revisions, repo.sha):
        return _problem(404, "RevisionNotFound", "Invalid rev id")
    if what in ("", "revision"):
        siblings = [{"rfilename": file} for file in repo.files]
        return _json({"id": name, "modelId": name, "sha": repo.sha, "siblings": siblings, "tags": []})
    if what == "tree":
        sizes = [(file, len(data), _hash(data)) for file, data in repo.files.items()]
        return _json([{"type": "file", "path": file, "size": size, "oid": oid} for file, size, oid in sizes])
    if repo.gated and not api:
        return _problem(403, "GatedRepo", "Access to this model is restricted")
    if file not in repo.files:
        return _problem(404, "EntryNotFound", "Entry not found")
    data = repo.files[file]
    return 200, data, {"ETag": f'"{_hash(data)}"', "X-Repo-Commit": repo.sha, "Accept-Ranges": "bytes"}


def _push(hub: Hub, path: str, token: str, body: bytes) -> Answer:
    """The routes of `create_repo` and `upload_folder`: small files are part of a commit, large ones go before it."""
    if hub.broken:
        return _problem(503, "", "the hub rests")
    if path.startswith("/large/"):  # the address itself is the permission
        hub.large[path.removeprefix("/large/")] = body
        return 200, b"", {}
    if token not in hub.writers:
        return _problem(401 if not token else 403, "", "Forbidden: you may not push here")
    if path == "/api/repos/create":
        given = json.loads(body)
        name = f"{given['organization'] or 'me'}/{given['name']}"
        if name in hub.repos:
            return 409, json.dumps({"error": "exists", "url": f"{hub.endpoint}/{name}"}).encode(), {}
        hub.repos[name] = Repo({}, private=given.get("visibility") == "private" or given.get("private") is True)
        return _json({"url": f"{hub.endpoint}/{name}", "name": name})
    if path == "/api/validate-yaml":  # the metadata of a card
        return _json({"errors": [], "warnings": []})
    if path.endswith(".git/info/lfs/objects/batch"):
        objects = [
            {**one, "actions": {"upload": {"href": f"{hub.endpoint}/large/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        return _json({"objects": objects, "transfer": "basic"})
    name = path.removeprefix("/api/models/").rsplit("/", 2)[0]
    if name not in hub.repos:
        return _problem(404, "RepoNotFound", "Repository Not Found")
    if path.endswith("/preupload/main"):
        files = [
            {"path": one["path"], "uploadMode": _mode(one["path"]), "shouldIgnore": False}
            for one in json.loads(body)["files"]
        ]
        return _json({"files": files})
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "file":
            hub.repos[name].files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            hub.repos[name].files[value["path"]] = hub.large[value["oid"]]
    return _json({"success": True, "commitOid": SHA, "commitUrl": f"{hub.endpoint}/{name}/commit/{SHA}"})


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


def _hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _json(value: Any) -> Answer:
    return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}


def _problem(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
    return status, json.dumps({"error": message}).encode(), {"Content-Type": "application/json", **headers}
