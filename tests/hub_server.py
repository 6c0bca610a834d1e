"""A small Hub on this machine: the routes that huggingface_hub calls, kept in memory.

All files are in the commit itself; there is neither git-lfs nor xet.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
ROUTE = rf"/api/(?P<kind>model|space)s/{REPO}"


class HubServer(ThreadingHTTPServer):
    """The Hub, for as long as the ``with`` block lasts.

    ``repos`` has the files of each (kind, name) by branch and by commit; ``gated``
    names repositories for which a token is needed, ``private`` those made so.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.requests = {}, []
        self.gated, self.private = set(), set()
        self.token = "hf_of_the_test"
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def environment(self, cache):
        hub = {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_TOKEN": self.token}
        return {**hub, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def files(self, repo, kind="model", revision="main"):
        return self.repos[kind, repo][revision]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def route(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for pattern, answer in ROUTES.items():
            if found := re.fullmatch(pattern, path):
                return answer(self, **found.groupdict())
        return self.refuse(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = route

    def log_message(self, *args):  # is silent
        pass

    def answer(self, content, status=200, **headers):
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
        self.answer({"error": text}, status, X_Error_Code=code, X_Error_Message=text)

    def create_repo(self):
        asked = json.loads(self.body)
        kind = asked.get("type") or "model"
        repo = f"{asked['organization']}/{asked['name']}"
        assert kind != "space" or asked["sdk"] == "gradio"
        self.server.repos[kind, repo] = {"main": {}}
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(repo)
        prefix = "spaces/" if kind == "space" else ""
        self.answer({"url": f"{self.server.url}/{prefix}{repo}", "id": repo})

    def create_branch(self, kind, repo, branch):
        self.server.repos[kind, repo][branch] = dict(self.server.files(repo, kind))
        self.answer({})

    def validate_yaml(self):
        self.answer({"warnings": [], "errors": []})

    def preupload(self, kind, repo, revision):
        files = json.loads(self.body)["files"]
        modes = {"uploadMode": "regular", "shouldIgnore": False}
        self.answer({"files": [file | modes for file in files]})

    def commit(self, kind, repo, revision):
        files = dict(self.server.files(repo, kind, revision))
        for entry in map(json.loads, self.body.splitlines()):
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                files[entry["value"]["path"]] = content
        commit = hashlib.sha1(self.body).hexdigest()
        self.server.repos[kind, repo] |= {revision: files, commit: files}
        url = f"{self.server.url}/{repo}/commit/{commit}"
        self.answer({"success": True, "commitOid": commit, "commitUrl": url})

    def resolve(self, repo, revision, name):
        revisions = self.server.repos.get(("model", repo))
        given = str(self.headers.get("Authorization"))
        if repo in self.server.gated and self.server.token not in given:
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
        return self.answer(files[name], ETag=etag, X_Repo_Commit=commits[-1])


ROUTES = {
    "/api/repos/create": _Handler.create_repo,
    "/api/validate-yaml": _Handler.validate_yaml,
    rf"{ROUTE}/branch/(?P<branch>.+)": _Handler.create_branch,
    rf"{ROUTE}/preupload/(?P<revision>.+)": _Handler.preupload,
    rf"{ROUTE}/commit/(?P<revision>.+)": _Handler.commit,
    rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)": _Handler.resolve,
}
