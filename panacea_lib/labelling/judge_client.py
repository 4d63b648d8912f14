"""One judge's endpoint over HTTP: requests with patience, and errors that say what to do.

The key travels in the header of requests to the endpoint's own host and nowhere else: redirects are
not followed, and it is taken out of everything that a server says.
"""

import json
import os
import re
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from time import time
from typing import Any
from urllib.parse import quote

import aiohttp
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from panacea_lib.errors import InputError
from panacea_lib.labelling.judge_answers import REFUSAL, answer_schema
from panacea_lib.labelling.judge_cache import Answer
from panacea_lib.labelling.judge_job import JudgeError, JudgeJob
from panacea_lib.problem_labelling import Judge

LONGEST_WAIT = 60.0
"""Seconds before one request is tried again, whatever the server asks for."""

_SHOWN = 300
_LONGEST_BODY = 2**20
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_ABOUT_ONE_TEXT = (400, 413, 422)
_BACKOFF = wait_exponential(multiplier=0.5, exp_base=3, max=LONGEST_WAIT) + wait_random(0, 0.5)


class UnansweredError(Exception):
    """One request that got no answer, after all its attempts or because the server refuses it."""


class RefusedTextError(UnansweredError):
    """The server will not take this request, which may lie in its text (too long, say)."""


class StoppedError(Exception):
    """The job is being stopped: this request is not (or not again) sent."""


class _Transient(Exception):
    """Try again; after: seconds, if the server said so."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def read_key(judge: Judge) -> str | None:
    """The judge's key from its environment variable; None for a judge that needs none.

    InputError: the variable is unset or empty, or holds what no header can.
    """
    if judge.api_key_env is None:
        return None
    key = os.environ.get(judge.api_key_env, "").strip()
    if not key:
        raise InputError(
            f"the judge {judge.model} needs its key in the environment variable "
            f"{judge.api_key_env}, which is not set; set it, e.g. `export {judge.api_key_env}=…`"
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{judge.api_key_env} holds characters that no key has; set it anew")
    return key


class JudgeClient:
    """Asks a job's requests.

    sent: the requests that went out, repeats included. stopped: asked before each; once it says so,
    nothing goes out. pause: waits some seconds, StoppedError as soon as the job is being stopped.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        job: JudgeJob,
        key: str | None,
        stopped: Callable[[], bool],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self.sent = 0
        self._session, self._judge, self._key = session, job.judge, key
        self._stopped = stopped
        self._url = f"{job.judge.endpoint.rstrip('/')}/chat/completions"
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._settings = _settings(job)
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(job.judge.attempts),
            wait=_wait,
            retry=retry_if_exception_type(_Transient),
            sleep=pause,
            reraise=True,
        )

    async def ask(self, key: str, text: str) -> Answer:
        """The judge's message in answer to `text`; key: what tells this request from others.

        UnansweredError: none came in all attempts; RefusedTextError: the server refuses the
        request; JudgeError: it would refuse all; StoppedError: the job was stopped meanwhile.
        """
        try:
            return await self._once(key, text)
        except _Transient as error:
            # Only now: tenacity takes a fifth of the time of a request that succeeds at once.
            return await self._persist(key, text, error)

    async def _persist(self, key: str, text: str, error: _Transient) -> Answer:
        """Wait and try again, until all attempts are used up; `error` ended the first one."""
        failures = [error]

        async def attempt() -> Answer:
            if failures:
                raise failures.pop()
            return await self._once(key, text)

        try:
            return await self._retrying.copy()(attempt)
        except _Transient as last:
            raise UnansweredError(f"{last} ({self._judge.attempts} attempts)") from None

    async def _once(self, key: str, text: str) -> Answer:
        if self._stopped():
            raise StoppedError
        self.sent += 1
        content = {"messages": [{"role": "user", "content": text}], **self._settings}
        try:
            async with self._session.post(
                self._url,
                data=json.dumps(content).encode(),
                headers={**self._headers, "Idempotency-Key": key},
                allow_redirects=False,
            ) as response:
                body = await _read(response)
        except TimeoutError:
            raise _Transient(f"no answer within {self._judge.timeout:g} s") from None
        except aiohttp.InvalidURL as error:
            raise JudgeError(f"{self._url} is no address") from error
        except aiohttp.ClientError as error:
            reason = self._scrub(str(error)) or type(error).__name__
            raise _Transient(f"no connection to {self._url}: {reason}") from None
        if response.status == 200:
            return self._answer(text, body)
        raise self._refusal(response, body)

    def _refusal(self, response: aiohttp.ClientResponse, body: bytes) -> Exception:
        """What a status other than 200 means for this request, or for all."""
        status, said = response.status, self._said(body)
        where = f"{self._url} answered {status}"
        if status in (408, 429) or status >= 500:
            return _Transient(f"{where}{said}", _retry_after(response))
        if status in _ABOUT_ONE_TEXT:
            return RefusedTextError(f"{where}{said}")
        variable = self._judge.api_key_env
        if status in (401, 403) and variable is None:
            return JudgeError(f"{where}{said}; it may want a key: name its variable in api_key_env")
        if status in (401, 403):
            return JudgeError(f"{where}{said}; check the key in {variable}")
        if status == 404:
            return JudgeError(
                f"{where}{said}; check the endpoint (up to /v1) and the model {self._judge.model!r}"
            )
        if 300 <= status < 400:
            return JudgeError(f"{where}: it redirects elsewhere; write the address itself")
        return JudgeError(f"{where}{said}")

    def _answer(self, text: str, body: bytes) -> Answer:
        try:
            whole = json.loads(body)
            choice = whole["choices"][0]
            message = choice["message"]
            refusal = message.get("refusal")
            content = message.get("content") if refusal is None else refusal
            if not isinstance(content, str | None):
                raise TypeError
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            # Among them what was cut off midway.
            raise _Transient(f"{self._url} sent no chat completion{self._said(body)}") from None
        finish = choice.get("finish_reason") if refusal is None else REFUSAL
        usage = whole.get("usage")
        content = None if content is None else self._scrub(content)
        return Answer(
            content=content,
            finish=self._scrub(finish) if isinstance(finish, str) else None,
            failure=None,
            input_tokens=_count(usage, "prompt_tokens", len(text)),
            output_tokens=_count(usage, "completion_tokens", len(content or "")),
        )

    def _said(self, body: bytes) -> str:
        """The server's own words, short, on one line and without the key."""
        text = body.decode("utf-8", "replace")
        try:
            error = json.loads(text)["error"]
            text = error if isinstance(error, str) else str(error["message"])
        except (ValueError, TypeError, LookupError, RecursionError):
            pass  # not in the usual form: all of it then
        line = " ".join(self._scrub(text).split())
        if not line:
            return ""
        return f": {line if len(line) <= _SHOWN else line[:_SHOWN] + '…'}"

    def _scrub(self, text: str) -> str:
        """The text without the key, and without half characters, which no file takes."""
        text = text.encode("utf-8", "replace").decode()
        key = self._key
        # Shorter ones ("EMPTY") are no secret, and may well be a word of an honest answer.
        if key is None or len(key) < 8:
            return text
        for form in (key, json.dumps(key)[1:-1], quote(key, safe="")):
            text = text.replace(form, "[key]")
        return text


def about_tokens(characters: int) -> int:
    """An estimate: four characters are a token."""
    return -(-characters // 4)


def _settings(job: JudgeJob) -> dict[str, Any]:
    """All of a request's body but its message."""
    judge, mode = job.judge, job.rubric.mode
    settings = {"model": judge.model, "temperature": 0, "max_tokens": judge.max_answer_tokens}
    if judge.answer_format == "json_object":
        settings["response_format"] = {"type": "json_object"}
    if judge.answer_format == "json_schema":
        schema = {"name": "verdict", "strict": True, "schema": answer_schema(mode)}
        settings["response_format"] = {"type": "json_schema", "json_schema": schema}
    return settings


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise _Transient(f"the answer is longer than {_LONGEST_BODY:,} bytes")
    return bytes(body)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.after if isinstance(error, _Transient) and error.after else 0.0
    return min(max(asked, _BACKOFF(state)), LONGEST_WAIT)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds; the header holds them, or a date."""
    said = response.headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(said):
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time())
    except (ValueError, OverflowError):
        return None  # absent, or neither


def _count(usage: Any, name: str, characters: int) -> int:
    """The server's count of tokens, or an estimate where it has none."""
    found = usage.get(name) if isinstance(usage, dict) else None
    is_count = isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**40
    return found if is_count else about_tokens(characters)  # pyright: ignore[reportReturnType]
