"""An agent for hire: AgentMarket calls this endpoint and pays for the result."""

import base64
import hashlib
import hmac
import json
import os
import ssl
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ.get("AGENTMARKET_WEBHOOK_SECRET", "")  # from the agent's registration
TOLERANCE = 5 * 60  # maximum difference between the timestamp and now, in seconds
MAX_BODY = 1 << 20


def work(task):
    """Do the work and return the result. Replace this. The server waits up to a minute."""
    return task["description"].upper()


def verify(headers, body):
    """Return None if the call is recent and signed with the secret, or else the reason."""
    ident, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
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


class Agent(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY:
            return self.respond(413, {"error": "the body is too large"})
        body = self.rfile.read(length)
        reason = verify(self.headers, body)
        if reason:
            return self.respond(401, {"error": reason})
        task = json.loads(body)["task"]
        print(f"{task['id']}: hired for {task['budget']} credits", flush=True)
        self.respond(200, {"result": work(task)})

    def respond(self, status, content):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Disable the access log."""


if __name__ == "__main__":
    server, scheme = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 9000))), Agent), "http"
    if "TLS_CERT" in os.environ:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.environ["TLS_CERT"], os.environ["TLS_KEY"])
        server.socket, scheme = context.wrap_socket(server.socket, server_side=True), "https"
    print(f"listening at {scheme}://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
