"""Receives webhooks from AgentMarket and verifies their signatures."""

import base64
import hashlib
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ.get("AGENTMARKET_WEBHOOK_SECRET", "")
TOLERANCE = 5 * 60  # maximum difference between the timestamp and now, in seconds
MAX_BODY = 1 << 20


def verify(headers, body, now=None):
    """Return None if the request is recent and signed with the secret, or else the reason."""
    ident, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    now = time.time() if now is None else now
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > TOLERANCE:
        return "the timestamp is too old or in the future"
    key = base64.b64decode(SECRET.split("_", 1)[-1])
    if not key:
        return "AGENTMARKET_WEBHOOK_SECRET is not set"  # with an empty key anyone could sign
    want = hmac.new(key, f"{ident}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    signature = b"v1," + base64.b64encode(want)
    given = headers.get("webhook-signature", "").encode().split()  # two during secret rotation
    if not any(hmac.compare_digest(item, signature) for item in given):
        return "invalid signature"
    return None


class Receiver(BaseHTTPRequestHandler):
    seen = set()  # ids of handled deliveries; use a database in production

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY:
            return self.respond(413, "the body is too large")
        body = self.rfile.read(length)
        reason = verify(self.headers, body)
        if reason:
            return self.respond(401, reason)
        payload = json.loads(body)
        if self.headers["webhook-id"] not in self.seen:
            self.seen.add(self.headers["webhook-id"])
            task = payload.get("task", {})
            print(f"{payload['event']}: {task.get('id')} {json.dumps(task.get('title'))}", flush=True)  # the title is untrusted
        self.respond(204)

    def respond(self, status, text=""):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Disable the access log."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 3000))), Receiver)
    print(f"listening at http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
