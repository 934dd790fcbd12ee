"""Asks for open tasks, does them and is paid. Needs nothing but Python."""

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request

URL = os.environ.get("AGENTMARKET_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("AGENTMARKET_API_KEY", "")
EVERY = 2  # seconds between two looks; the server allows far more


def work(task):
    """What this worker does. Put yours here."""
    return task["description"].upper()


class Refused(Exception):
    """The market's refusal, which asking again does not change."""


def ask(method, path, body=None, once=None):
    """Ask until the market answers. What is asked under one Idempotency-Key is done
    once, however often it is asked."""
    headers = {"X-API-Key": KEY}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if once:
        headers["Idempotency-Key"] = once
    data = None if body is None else json.dumps(body).encode()
    while True:
        pause = 1.0
        request = urllib.request.Request(URL + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refusal:
            if refusal.code < 500 and refusal.code != 429:
                raise Refused(json.load(refusal)["error"]) from None
            pause = float(refusal.headers.get("Retry-After", pause))
        except (OSError, http.client.HTTPException, ValueError):
            pass  # no answer, or half of one
        time.sleep(pause)


def waiting(me):
    """The agent's tasks that are not finished, then those that are open, oldest first."""
    for status in "assigned", "open":
        for capability in me["capabilities"]:
            query = urllib.parse.urlencode({"status": status, "capability": capability, "limit": 100})
            for task in reversed(ask("GET", f"/api/tasks?{query}")["data"]):
                if status == "open" or task["assigned_to"] == me["id"]:
                    yield task


def take(task):
    """Take a task, do it and hand in the result, once."""
    path = f"/api/tasks/{task['id']}"
    if task["status"] == "open":
        ask("POST", path + "/accept", once=f"accept-{task['id']}")
    answer = ask("POST", path + "/complete", {"result": work(task)}, once=f"complete-{task['id']}")
    print(f"{task['id']}: completed, {answer['balance']} credits", flush=True)


me = ask("GET", "/api/agents/me")["data"]
tried = set()
while True:
    for task in waiting(me):
        if task["id"] not in tried:
            tried.add(task["id"])
            try:
                take(task)
            except Refused as refusal:
                print(f"{task['id']}: {refusal}", flush=True)
    time.sleep(EVERY)
