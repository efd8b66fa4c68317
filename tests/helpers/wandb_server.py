"""A server that answers the few questions that a dashboard and a run ask of W&B, and remembers what it was sent.

Only W&B itself can say whether it takes a workspace or a run; here it is the way there that is tried, with W&B's own
client.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "a" * 40
USER = "somebody"
LOGIN = "/login"


class Server:
    """`projects` are those of every entity; `sent` are the variables of each mutation by its name.

    `streamed` are the contents of the files of runs, in pieces. `status`: answer everything with this HTTP status.
    `portal`: be the login page of a hotel's network instead, which answers everything with "page" (200 and HTML) or
    "redirect" (302 to such a page). `answers`: while it is clear, questions wait for their answers.
    """

    def __init__(self, projects: list[str], refuses: str | None) -> None:
        self.projects = projects
        self.refuses = refuses
        self.sent: dict[str, dict[str, Any]] = {}
        self.streamed: list[dict[str, Any]] = []
        self.status = 200
        self.portal: str | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.address = ""

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.address, "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}

    def history(self) -> list[dict[str, Any]]:
        """The records that runs have logged."""
        pieces = [piece.get("files", {}).get("wandb-history.jsonl", {}) for piece in self.streamed]
        return [json.loads(line) for piece in pieces for line in piece.get("content", [])]

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        query, variables = question.get("query", ""), question.get("variables")
        if "mutation UpsertBucket" in query:
            project = {"id": "p1", "name": "gradspike", "entity": {"id": "e1", "name": USER}}
            bucket = {"id": "b1", "name": (variables or {})["name"], "config": "{}", "historyLineCount": 0}
            return {"data": {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}}
        if "mutation CreateRunFiles" in query:
            files = [{"name": one, "uploadUrl": f"{self.address}/{one}"} for one in (variables or {})["files"]]
            return {"data": {"createRunFiles": {"runID": "b1", "uploadHeaders": [], "files": files}}}
        if "query RunResumeStatus" in query:
            return {"data": {"model": None}}
        if "mutation" in query:
            kind = next(kind for kind in ("createCustomChart", "upsertView") if kind in query)
            self.sent[kind] = variables or {}
            if kind == self.refuses:
                return {"errors": [{"message": "not today"}], "data": None}
            if kind == "createCustomChart":
                return {"data": {kind: {"chart": {"id": "c1"}}}}
            return {"data": {kind: {"view": {"id": "v1", "name": (variables or {})["name"]}, "inserted": True}}}
        if "query GetProjects" in query:
            known = {"createdAt": "2026-01-01T00:00:00Z", "isBenchmark": False, "user": None}
            nodes = [{"id": one, "name": one, "entityName": USER, **known} for one in self.projects]
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"data": {"models": {"pageInfo": page, "edges": [{"node": node} for node in nodes]}}}
        viewer = {"id": "u1", "entity": USER, "username": USER, "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"data": {"viewer": viewer}}


@contextmanager
def wandb_server(projects: list[str], refuses: str | None = None) -> Iterator[Server]:
    """A server at an address of this machine, for as long as the block lasts."""
    server = Server(projects, refuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            server.answers.wait()
            if server.portal is not None:
                self.log_in()
                return
            if self.path.endswith("/file_stream") and server.status == 200:
                server.streamed.append(json.loads(body))
            answer = json.dumps(server.answer(json.loads(body)) if self.path == "/graphql" else {}).encode()
            self.send_response(server.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_PUT = do_POST

        def do_GET(self) -> None:
            self.log_in()

        def log_in(self) -> None:
            page = b"<!DOCTYPE html><html><body>Log in to the network</body></html>"
            redirects = server.portal == "redirect" and self.path != LOGIN
            self.send_response(302 if redirects else 200)
            if redirects:
                self.send_header("location", server.address + LOGIN)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.answers.set()
        listening.shutdown()
        listening.server_close()
        thread.join()
