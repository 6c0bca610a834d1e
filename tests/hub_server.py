"""A small Hub on this machine: the routes that huggingface_hub calls, kept in memory.

Small files are committed in the commit itself, others by git-lfs; there is no xet.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
GET = ("GET", "HEAD")
KINDS = r"(?P<kind>model|space)s"


class HubServer:
    """The Hub, for as long as the ``with`` block lasts.

    ``repos`` has the files of each (kind, name) by branch and by commit; ``gated``
    names repositories for which a token is needed, ``private`` those made so.
    """

    def __init__(self):
        self.repos, self.objects, self.requests = {}, {}, []
        self.gated, self.private = set(), set()
        self.token = "hf_of_the_test"
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def environment(self, cache):
        hub = {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_TOKEN": self.token}
        return {**hub, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def files(self, repo, kind="model", revision="main"):
        return self.repos[kind, repo][revision]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def route(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self.read_chunks()
        for method, pattern, answer in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                return answer(self, **found.groupdict())
        return self.refuse(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = route

    def read_chunks(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *args):  # is silent
        pass

    def answer(self, status, content, **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status, code):
        text = f"{code} for {self.path}"
        self.answer(status, {"error": text}, X_Error_Code=code, X_Error_Message=text)

    def create_repo(self):
        asked = json.loads(self.body)
        kind = asked.get("type") or "model"
        repo = f"{asked.get('organization') or 'user'}/{asked['name']}"
        prefix = "spaces/" if kind == "space" else ""
        url = f"{self.hub.url}/{prefix}{repo}"
        if (kind, repo) in self.hub.repos:
            return self.answer(409, {"error": "it exists", "url": url})
        assert kind != "space" or asked["sdk"] == "gradio"
        self.hub.repos[kind, repo] = {"main": {}}
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(repo)
        return self.answer(200, {"url": url, "id": repo})

    def create_branch(self, kind, repo, branch):
        branches = self.hub.repos[kind, repo]
        if branch in branches:
            return self.answer(409, {"error": "it exists"})
        branches[branch] = dict(branches["main"])
        return self.answer(200, {})

    def validate_yaml(self):
        header = json.loads(self.body)["content"].startswith("---\n")
        self.answer(200 if header else 400, {"warnings": [], "errors": []})

    def preupload(self, kind, repo, revision):
        if revision not in self.hub.repos.get((kind, repo), {}):
            return self.refuse(404, "RepoNotFound")
        files = json.loads(self.body)["files"]
        for file in files:
            is_large = file["path"].endswith(".safetensors")
            file["uploadMode"] = "lfs" if is_large else "regular"
            file["shouldIgnore"] = False
        return self.answer(200, {"files": files})

    def lfs_batch(self, repo):
        objects = json.loads(self.body)["objects"]
        for each in objects:
            if each["oid"] not in self.hub.objects:
                href = f"{self.hub.url}/lfs/{each['oid']}"
                each["actions"] = {"upload": {"href": href}}
        self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.objects[oid] = self.body
        self.answer(200, b"")

    def commit(self, kind, repo, revision):
        files = dict(self.hub.repos[kind, repo][revision])
        for entry in map(json.loads, self.body.splitlines()):
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        commit = hashlib.sha1(self.body).hexdigest()
        self.hub.repos[kind, repo].update({revision: files, commit: files})
        url = f"{self.hub.url}/{repo}/commit/{commit}"
        self.answer(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def resolve(self, repo, revision, name):
        revisions = self.hub.repos.get(("model", repo))
        given = str(self.headers.get("Authorization"))
        if repo in self.hub.gated and self.hub.token not in given:
            return self.refuse(401, "GatedRepo")
        if revisions is None:
            return self.refuse(401, "RepoNotFound")
        if revision not in revisions:
            return self.refuse(404, "RevisionNotFound")
        files = revisions[revision]
        if name not in files:
            return self.refuse(404, "EntryNotFound")
        commits = [key for key, value in revisions.items() if value is files]
        etag = f'"{hashlib.sha256(files[name]).hexdigest()}"'
        return self.answer(200, files[name], ETag=etag, X_Repo_Commit=commits[-1])


ROUTES = [
    ("POST", "/api/repos/create", _Handler.create_repo),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("POST", f"/api/{KINDS}/{REPO}/branch/(?P<branch>.+)", _Handler.create_branch),
    ("POST", f"/api/{KINDS}/{REPO}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", f"/api/{KINDS}/{REPO}/commit/(?P<revision>.+)", _Handler.commit),
    ("POST", rf"(?:/spaces)?/{REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", _Handler.lfs_upload),
    (GET, rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", _Handler.resolve),
]
