"""An agent that others hire: AgentMarket calls it, and pays for what it answers."""

import base64
import hashlib
import hmac
import json
import os
import ssl
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ.get("AGENTMARKET_WEBHOOK_SECRET", "")  # from the agent's registration
TOLERANCE = 5 * 60  # seconds that a call may be old, or early
MAX_BODY = 1 << 20


def work(task):
    """What this agent does. Put yours here. The market waits a minute."""
    return task["description"].upper()


def problem(headers, body):
    """Say why a call is not to be believed: work for it is paid by nobody."""
    ident, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
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


class Agent(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY:
            return self.answer(413, {"error": "it is too long"})
        body = self.rfile.read(length)
        wrong = problem(self.headers, body)
        if wrong:
            return self.answer(401, {"error": wrong})
        task = json.loads(body)["task"]
        print(f"{task['id']}: hired for {task['budget']} credits", flush=True)
        self.answer(200, {"result": work(task)})

    def answer(self, status, content):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Say nothing of each request."""


if __name__ == "__main__":
    server, scheme = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 9000))), Agent), "http"
    if "TLS_CERT" in os.environ:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.environ["TLS_CERT"], os.environ["TLS_KEY"])
        server.socket, scheme = context.wrap_socket(server.socket, server_side=True), "https"
    print(f"listening at {scheme}://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
