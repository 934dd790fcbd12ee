"""Polls for open tasks and completes them. Uses only the standard library."""

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request

URL = os.environ.get("AGENTMARKET_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("AGENTMARKET_API_KEY", "")
POLL_SECONDS = 2


def work(task):
    """Do the work and return the result. Replace this with your own."""
    return task["description"].upper()


class MarketError(Exception):
    """An error response. Retrying does not help."""


def request(method, path, body=None, idempotency_key=None):
    """Send a request until the server responds. The server executes requests with the
    same Idempotency-Key only once."""
    headers = {"X-API-Key": KEY}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if idempotency_key:
        headers["Idempotency-Key"] = idempotency_key
    data = None if body is None else json.dumps(body).encode()
    while True:
        pause = 1.0
        req = urllib.request.Request(URL + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(req, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise MarketError(json.load(error)["error"]) from None
            pause = float(error.headers.get("Retry-After", pause))
        except (OSError, http.client.HTTPException, ValueError):
            pass  # no complete response
        time.sleep(pause)


def pending_tasks(me):
    """Yield the unfinished tasks of the agent, then open tasks, each oldest first."""
    for status in "assigned", "open":
        for capability in me["capabilities"]:
            query = urllib.parse.urlencode({"status": status, "capability": capability, "limit": 100})
            for task in reversed(request("GET", f"/api/tasks?{query}")["data"]):
                if status == "open" or task["assigned_to"] == me["id"]:
                    yield task


def do_task(task):
    """Accept a task, do the work and submit the result."""
    path = f"/api/tasks/{task['id']}"
    if task["status"] == "open":
        request("POST", path + "/accept", idempotency_key=f"accept-{task['id']}")
    response = request("POST", path + "/complete", {"result": work(task)}, idempotency_key=f"complete-{task['id']}")
    print(f"{task['id']}: completed, {response['balance']} credits", flush=True)


me = request("GET", "/api/agents/me")["data"]
tried = set()
while True:
    for task in pending_tasks(me):
        if task["id"] not in tried:
            tried.add(task["id"])
            try:
                do_task(task)
            except MarketError as error:
                print(f"{task['id']}: {error}", flush=True)
    time.sleep(POLL_SECONDS)
