"""A web app that hands work over instead of keeping its visitors waiting, and the worker that does it.

    python examples/web_app.py serve 8000                   the app
    silo worker web_app:worker                              the worker, in the folder examples/
    curl -X POST localhost:8000/reports -d '{"rows": 3}'    {"job": "..."}
    curl localhost:8000/reports/...                         {"status": "SUCCEEDED", "result": ...}

With a web framework it is the same: make one client when the app starts, and use it in every request.  In async frameworks
that is `AsyncClient`.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from silo.client import BrokerUnavailable, Client, JobNotFound, Retry, Status, Worker

worker = Worker()
silo = Client()


@worker.task("reports", concurrency=4)
def make_report(payload: dict[str, int]) -> dict[str, Any]:
    time.sleep(0.1)  # a plain function runs in a thread, and may wait
    return {"lines": [f"line {number}" for number in range(payload["rows"])]}


class App(BaseHTTPRequestHandler):
    """POST /reports hands a report over; GET /reports/ID tells how far it is."""

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            job = silo.enqueue("reports", payload, retry=Retry(times=3))
        except BrokerUnavailable as error:
            self.answer(503, {"error": str(error)})
        else:
            # The job is durable from here on, whatever becomes of this process.
            self.answer(202, {"job": job.id})

    def do_GET(self) -> None:
        try:
            state = silo.job(self.path.rpartition("/")[2]).get()
        except JobNotFound:
            self.answer(404, {"error": "no such report"})
        else:
            result = state.result if state.status is Status.SUCCEEDED else None
            self.answer(200, {"status": state.status.name, "result": result})

    def answer(self, code: int, body: Any) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name in the class above
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), App)
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
