"""A server on loopback that speaks as much of the hub's protocol as a download needs; it notes what was fetched."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(repository: str, folder: Path):
    """Serve `folder` as `repository`; yields the endpoint and a list that every fetched file's name is added to."""
    fetched: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            api = f"/api/models/{repository}"
            resolve = f"/{repository}/resolve/"
            path = self.path.partition("?")[0]
            names = sorted(one.name for one in folder.iterdir())
            if path.startswith(f"{api}/revision/") or path == api:
                files = [{"rfilename": name} for name in names]
                self.send(json.dumps({"id": repository, "sha": COMMIT, "siblings": files}).encode(), body)
            elif path.startswith(f"{api}/tree/"):
                files = [{"type": "file", "path": name, "size": (folder / name).stat().st_size} for name in names]
                self.send(json.dumps([{**one, "oid": "0" * 40} for one in files]).encode(), body)
            elif path.startswith(resolve) and path.rpartition("/")[2] in names:
                data = (folder / path.rpartition("/")[2]).read_bytes()
                if body:
                    fetched.append(path.rpartition("/")[2])
                self.send(data, body, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'})
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def send(self, data: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
            self.send_response(200)
            for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
