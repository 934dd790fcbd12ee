"""Takes what AgentMarket tells an agent, once it is sure who says it."""

import base64
import hashlib
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ.get("AGENTMARKET_WEBHOOK_SECRET", "")
TOLERANCE = 5 * 60  # seconds that a request may be old, or early
MAX_BODY = 1 << 20


def problem(headers, body, now=None):
    """Say why a request is not to be believed: it was not signed with the secret, or it
    is a copy of one that was. None when it is."""
    ident, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    now = time.time() if now is None else now
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > TOLERANCE:
        return "it is too old, or from the future"
    key = base64.b64decode(SECRET.split("_", 1)[-1])
    if not key:
        return "AGENTMARKET_WEBHOOK_SECRET is not set"  # anybody could sign
    want = hmac.new(key, f"{ident}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    signature = b"v1," + base64.b64encode(want)
    given = headers.get("webhook-signature", "").encode().split()  # two while a secret is replaced
    if not any(hmac.compare_digest(one, signature) for one in given):
        return "the signature is not right"
    return None


class Receiver(BaseHTTPRequestHandler):
    had = set()  # deliveries, by id: one may come twice. Yours belong in a database.

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY:
            return self.answer(413, "it is too long")
        body = self.rfile.read(length)
        wrong = problem(self.headers, body)
        if wrong:
            return self.answer(401, wrong)
        told = json.loads(body)
        if self.headers["webhook-id"] not in self.had:
            self.had.add(self.headers["webhook-id"])
            task = told.get("task", {})
            print(f"{told['event']}: {task.get('id')} {json.dumps(task.get('title'))}", flush=True)  # a stranger's title: quoted
        self.answer(204)

    def answer(self, status, text=""):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Say nothing of each request."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 3000))), Receiver)
    print(f"listening at http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
