"""An S3 that fails as it is told to, for the tests of whole sweeps."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.sweeps.driving import wait_for

Answer = tuple[int, str]


class Store:
    """An S3 that fails when told to: a proxy before the test's server."""

    def __init__(self, behind: str) -> None:
        store = self
        self.answers: list[Answer] = []
        """To everything, one after the other; status 0: none."""
        self.refused: dict[str, Answer] = {}
        """To what needs that permission."""
        self.region = ""
        """If it has one, what is signed for another is refused, as S3 does."""
        self.failed = 0
        target = urlsplit(behind)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():  # trailers
                    continue
                return b"".join(parts)

            def _permission(self) -> str:
                path, _, query = self.path.partition("?")
                if self.command in ("PUT", "DELETE"):
                    return f"{self.command.capitalize()}Object"
                if self.command == "POST":
                    return "DeleteObject" if query == "delete" else "PutObject"
                return "GetObject" if "/" in path.strip("/") else "ListBucket"

            def _serve(self) -> None:
                body = self._body()
                refused = store.refused.get(self._permission())
                if store.region and f"/{store.region}/s3/" not in self.headers.get("Authorization", ""):
                    refused = (400, "AuthorizationHeaderMalformed")
                if store.answers or refused:
                    status, code = refused or store.answers[store.failed % len(store.answers)]
                    store.failed += 1
                    if not status:
                        wait_for(lambda: not store.answers, "the end of the silence", 900)
                        self.close_connection = True
                        return
                    region = f"<Region>{store.region}</Region>" if store.region else ""
                    words = f"<Message>{code} by the drill</Message>"
                    content = f"<Error><Code>{code}</Code>{words}{region}</Error>".encode()
                    self.send_response(status)
                    headers = {"Content-Type": "application/xml"}
                else:
                    there = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
                    sent = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect")}
                    there.request(self.command, self.path, body, {**sent, "Content-Length": str(len(body))})
                    answer = there.getresponse()
                    content = answer.read()
                    self.send_response(answer.status)
                    skipped = {"connection", "transfer-encoding", "content-length", "server", "date"}
                    headers = {name: value for name, value in answer.getheaders() if name.lower() not in skipped}
                    if self.command == "HEAD":
                        headers["Content-Length"] = answer.getheader("Content-Length") or "0"
                    there.close()
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
