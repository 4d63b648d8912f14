"""A judge's endpoint for tests: a real HTTP server in a process of its own, well behaved or not.

    python tests/judge_gateway.py

The name of the model that is asked for says how the server behaves (`behave`). GET /seen tells what
came in. The command above prints the port as its first line, and ends when stdin closes.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

LATENCY = float(os.environ.get("GATEWAY_LATENCY", "0"))
_TAGGED = re.compile(r"<<<([A-Z ]+) (\w{16})>>>\n(.*?)\n<<<END OF \1 \2>>>", re.S)


class State:
    """What the server has seen."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.at: dict[str, float] = {}
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0


def texts_of(body: dict[str, Any]) -> dict[str, str]:
    """Title → text, as a judge that heeds the tags reads them."""
    found = _TAGGED.findall(body["messages"][0]["content"])
    return {title: text for title, _, text in found}


def honest(body: dict[str, Any]) -> dict[str, Any]:
    """Prefers the longer response, or scores by length; a response may ask for a tie."""
    texts = texts_of(body)
    if "RESPONSE" in texts:
        return {"reason": "its length", "score": min(10, len(texts["RESPONSE"]))}
    first, second = len(texts["FIRST RESPONSE"]), len(texts["SECOND RESPONSE"])
    preferred = "tie" if first == second else "first" if first > second else "second"
    return {"reason": "its length", "preferred": preferred}


def completion(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion as servers send it."""
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


# Prompt → the message of the model "scripted".
MESSAGES: dict[str, str | None] = {
    "prose": "I cannot decide between the two.",
    "quoted": 'The response says {"preferred": "first"}, and I agree.',
    "fenced": '```json\n{"preferred": "first"}\n```',
    "empty": "",
    "blank": " \n",
    "absent": None,
    "list": '["first"]',
    "third": '{"preferred": "third"}',
    "extra": '{"preferred": "first", "score": 10}',
    "twice": '{"preferred": "first", "preferred": "second"}',
    "first": '{"preferred": "first"}',
    "eleven": '{"score": 11}',
    "string": '{"score": "7"}',
    "true": '{"score": true}',
    "nan": '{"score": NaN}',
    "seven": ' \n{"score": 7, "reason": "good"}\n',
    "half": '{"score": 7.5}',
    "surrogate": '{"score": 7, "reason": "\ud800"}',
}


def scripted(body: dict[str, Any]) -> dict[str, Any]:
    """What the prompt asks for: one of `MESSAGES`, or a message that ended in another way."""
    match prompt := texts_of(body)["PROMPT"]:
        case "cut":
            return completion('{"preferred": "fir', "length")
        case "filtered":
            return completion('{"preferred": "first"}', "content_filter")
        case "declines":
            return completion(None, refusal="I would rather not.")
    return completion(MESSAGES[prompt])


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    state: State = request.app[STATE]
    key = request.headers["Idempotency-Key"]
    state.requests[key] += 1
    state.in_flight += 1
    state.most_in_flight = max(state.most_in_flight, state.in_flight)
    try:
        body = await request.json()
        if len(state.bodies) < 100:
            state.bodies.append(body)
            state.headers.append(dict(request.headers))
        if LATENCY:
            await asyncio.sleep(LATENCY)
        return await behave(request, state, body, key)
    finally:
        state.in_flight -= 1


async def behave(
    request: web.Request, state: State, body: dict[str, Any], key: str
) -> web.StreamResponse:
    """The answer of the model that was asked for, to this attempt at the request."""
    model, attempt = body["model"], state.requests[key]
    match model:
        case "scripted":
            return web.json_response(scripted(body))
        case "first":
            return web.json_response(completion(MESSAGES["first"]))
        case "shuffled":  # later requests are answered first, and keys stand in another order
            answer = dict(reversed(honest(body).items()))
            await asyncio.sleep(max(0.0, 0.3 - 0.01 * sum(state.requests.values())))
            return web.json_response(dict(reversed(completion(json.dumps(answer)).items())))
        case "busy":
            return error(429, "slow down")
        case "busy-once" if attempt == 1:
            state.at[key] = time.monotonic()
            return error(429, "slow down", {"Retry-After": "2"})
        case "busy-once" if time.monotonic() - state.at[key] < 1.95:
            return error(403, "I said two seconds")
        case "broken-twice" if attempt <= 2:
            return error(500 + attempt, "oops")
        case "slow":
            await asyncio.sleep(5)
        case "slow-once" if attempt == 1:
            await asyncio.sleep(5)
        case "torn" | "torn-once" if model == "torn" or attempt == 1:
            return await torn(request)
        case "page" if attempt == 1:
            return web.Response(text="<html>maintenance</html>", content_type="text/html")
        case "unknown":
            return error(404, "The model `unknown` does not exist")
        case "closed":
            return error(401, f"Bad key: {request.headers.get('Authorization')}")
        case "unusual":
            return error(400, "response_format is not supported")
        case "echo":
            return web.json_response(completion(f"Your key: {request.headers['Authorization']}"))
        case "moved":
            return web.Response(status=307, headers={"Location": "http://localhost:9/v1"})
        case "short" if "LONG" in str(texts_of(body)):
            return error(400, "maximum context length exceeded")
        case "dies" if len(state.requests) > 20:
            return error(503, "gone")
        case "uncounted":
            answer = completion(json.dumps(honest(body)))
            return web.json_response({**answer, "usage": None})
    return web.json_response(completion(json.dumps(honest(body))))


async def torn(request: web.Request) -> web.StreamResponse:
    """Half a body, then the connection is closed."""
    response = web.StreamResponse(headers={"Content-Length": "500"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "{\\"prefer')
    assert request.transport is not None
    request.transport.close()
    return response


def error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as OpenAI's servers spell it."""
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


async def seen(request: web.Request) -> web.Response:
    """GET /seen."""
    state: State = request.app[STATE]
    return web.json_response(
        {
            "requests": state.requests,
            "bodies": state.bodies,
            "headers": state.headers,
            "most_in_flight": state.most_in_flight,
        }
    )


async def total(request: web.Request) -> web.Response:
    """GET /total."""
    return web.json_response(request.app[STATE].requests.total())


async def forget(request: web.Request) -> web.Response:
    """POST /forget."""
    request.app[STATE].__init__()
    return web.Response()


STATE = web.AppKey("state", State)


async def serve() -> None:
    """Until stdin closes."""
    app = web.Application(client_max_size=2**24)
    app[STATE] = State()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/seen", seen)
    app.router.add_get("/total", total)
    app.router.add_post("/forget", forget)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


@dataclass(frozen=True)
class Gateway:
    """A running server, seen from a test."""

    origin: str

    @property
    def endpoint(self) -> str:
        """What a problem writes."""
        return f"{self.origin}/v1"

    def seen(self) -> dict[str, Any]:
        """Requests by key, the first hundred bodies and headers, the most requests at a time."""
        with urllib.request.urlopen(f"{self.origin}/seen") as response:
            return json.load(response)

    def counts(self) -> dict[str, int]:
        """How often each key was asked."""
        return self.seen()["requests"]

    def total(self) -> int:
        """How many requests came in."""
        with urllib.request.urlopen(f"{self.origin}/total") as response:
            return json.load(response)

    def forget(self) -> None:
        """Begin to count anew."""
        urllib.request.urlopen(f"{self.origin}/forget", data=b"").close()


@contextmanager
def running_gateway(latency: float = 0.0) -> Iterator[Gateway]:
    """A server in a process of its own; latency: seconds before each answer."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "GATEWAY_LATENCY": str(latency)},
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        yield Gateway(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(serve())
