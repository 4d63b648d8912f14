"""Ask all requests of a job that the cache does not answer, so many at a time as the judge allows.

Every answer is in the cache before the next request of its worker goes out. The job is given up,
with all answers kept, where asking on is of no use: the server refuses every request, nobody
answers for a stretch, or the budget of tokens is spent.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import aiohttp

from panacea_lib.errors import InputError
from panacea_lib.labelling.judge_cache import Answer, Distinct, JudgeCache
from panacea_lib.labelling.judge_client import (
    JudgeClient,
    RefusedTextError,
    StoppedError,
    UnansweredError,
    about_tokens,
)
from panacea_lib.labelling.judge_job import JudgeError, JudgeJob, Questions, Request, read_pairs

# So many requests in vain end the job: at the beginning, and once the judge has answered.
_FIRST_IN_VAIN = 3
_IN_VAIN = 8
_REPORT_EVERY = 0.5  # seconds
_TURN = 64  # requests looked up before answers that wait are taken


@dataclass
class Progress:
    """How far a run is. needed, cached: distinct requests; sent: with repeats; waiting: for
    another job that uses the same cache. Tokens are of this run."""

    needed: int = 0
    cached: int = 0
    answered: int = 0
    failed: int = 0
    sent: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    waiting: bool = False


@dataclass
class Needed:
    """What a job would take: distinct requests, those not in the cache, and their tokens."""

    pairs: int = 0
    requests: int = 0
    uncached: int = 0
    input_tokens: int = 0


def count_needed(job: JudgeJob, cache: JudgeCache, stopped: Callable[[], bool]) -> Needed:
    """Read all pairs once. InputError as `read_pairs`; StoppedError once `stopped` says so."""
    needed, questions, seen = Needed(), Questions(job), Distinct()
    for pair in read_pairs(job.pairs):
        if stopped():
            raise StoppedError
        needed.pairs += 1
        for request in questions.of(pair):
            if not seen.add(request.key):
                continue
            needed.requests += 1
            if not cache.is_settled(request.key, job.run):
                needed.uncached += 1
                needed.input_tokens += about_tokens(questions.length(request))
    return needed


class Asking:
    """One run over a job's requests. `report` gets the progress about twice a second."""

    def __init__(
        self,
        job: JudgeJob,
        cache: JudgeCache,
        key: str | None,
        stopped: Callable[[], bool],
        report: Callable[[Progress], None],
    ) -> None:
        self._job, self._cache, self._key = job, cache, key
        self._stopped, self._report = stopped, report
        self.progress = Progress()
        self._questions = Questions(job)
        self._given_up: JudgeError | None = None
        self._in_vain = 0
        self._asked: set[str] = set()  # in flight now

    async def run(self) -> Progress:
        """Ask; returns when every request is settled or has failed.

        InputError: more requests are needed than `max_requests`, and none was sent. JudgeError: it
        was given up. StoppedError: stopped from outside. Where it ends early, the answers in
        flight are waited for and kept, and nothing new is sent.
        """
        judge = self._job.judge
        needed = count_needed(self._job, self._cache, self._stopped)
        self.progress.needed = needed.requests
        self.progress.cached = needed.requests - needed.uncached
        if judge.max_requests is not None and needed.uncached > judge.max_requests:
            raise InputError(
                f"{self._job.annotator} on {self._job.dimension}: {needed.uncached:,} requests are "
                f"needed and max_requests allows {judge.max_requests:,}; raise it, or set `limit` "
                "to label fewer pairs. Nothing was sent"
            )
        if needed.uncached:
            await self._ask_all()
        if self._given_up is not None:
            raise self._given_up
        return self.progress

    async def _ask_all(self) -> None:
        judge = self._job.judge
        connector = aiohttp.TCPConnector(limit=judge.in_flight)
        timeout = aiohttp.ClientTimeout(total=judge.timeout)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            self._client = JudgeClient(session, self._job, self._key, self._is_over, self._pause)
            requests = self._requests()
            reporting = asyncio.create_task(self._keep_reporting())
            # One at a time until one is answered: a wrong key or model costs one request.
            await self._work(requests, until_answered=True)
            await asyncio.gather(*(self._work(requests) for _ in range(judge.in_flight)))
            reporting.cancel()
        self.progress.sent = self._client.sent
        self._report(self.progress)
        if self._stopped():
            raise StoppedError

    def _requests(self) -> Iterator[Request | None]:
        """What is to be asked, in order; now and then None: let others have a turn."""
        passed = 0
        for pair in read_pairs(self._job.pairs):
            for request in self._questions.of(pair):
                settled = self._cache.is_settled(request.key, self._job.run)
                if settled or request.key in self._asked:
                    passed += 1
                    if passed % _TURN == 0:
                        yield None
                else:
                    yield request

    async def _work(self, requests: Iterator[Request | None], until_answered: bool = False) -> None:
        for request in requests:
            if request is None:
                await asyncio.sleep(0)
            else:
                await self._settle(request)
            if self._is_over() or (until_answered and self.progress.answered):
                return

    async def _settle(self, request: Request) -> None:
        self._asked.add(request.key)
        try:
            answer = await self._client.ask(request.key, self._questions.message(request))
        except StoppedError:
            return
        except JudgeError as error:
            self._give_up(error)
            return
        except UnansweredError as error:
            self._fail(request, error)
            return
        finally:
            self._asked.discard(request.key)
        self._cache.keep(request.key, answer, self._job.run)
        self._in_vain = 0
        progress, budget = self.progress, self._job.judge.max_tokens
        progress.answered += 1
        progress.input_tokens += answer.input_tokens
        progress.output_tokens += answer.output_tokens
        spent = progress.input_tokens + progress.output_tokens
        if budget is not None and spent >= budget:
            left = progress.needed - progress.cached - progress.answered - progress.failed
            if left:
                self._give_up(
                    JudgeError(
                        f"the budget max_tokens ({budget:,}) is spent with {left:,} requests to "
                        "go; run again to go on from here, with a new budget"
                    )
                )

    def _fail(self, request: Request, error: UnansweredError) -> None:
        self._cache.keep(request.key, Answer(None, None, str(error), 0, 0), self._job.run)
        self.progress.failed += 1
        if not (self.progress.answered or self.progress.cached):
            # The judge has never answered anything of this job: a refusal need not be the text's.
            to_go = self.progress.needed - self.progress.failed
            if self.progress.failed >= _FIRST_IN_VAIN or to_go == 0:
                self._give_up(JudgeError(f"the judge answers nothing: {error}"))
            return
        if isinstance(error, RefusedTextError):
            return
        self._in_vain += 1
        if self._in_vain >= max(_IN_VAIN, 2 * self._job.judge.in_flight):
            self._give_up(
                JudgeError(f"{self._in_vain} requests one after the other got no answer: {error}")
            )

    def _give_up(self, error: JudgeError) -> None:
        if self._given_up is None:  # the first reason; others only follow from it
            self._given_up = error

    def _is_over(self) -> bool:
        return self._given_up is not None or self._stopped()

    async def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._is_over():
                raise StoppedError
            await asyncio.sleep(min(left, 0.1))

    async def _keep_reporting(self) -> None:
        while True:
            self.progress.sent = self._client.sent
            self._report(self.progress)
            await asyncio.sleep(_REPORT_EVERY)


def as_line(progress: Progress) -> dict[str, int | bool]:
    """The progress as it travels between processes."""
    return asdict(progress)
