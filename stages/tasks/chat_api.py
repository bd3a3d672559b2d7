"""`/v1/chat/completions` and `/v1/models` in OpenAI's shape, for a language model that MLflow has loaded.

https://platform.openai.com/docs/api-reference/chat. Answers are greedy unless a temperature is given. What is asked for
and not offered (tools, several answers, a response format) is refused: it would be left out without a word.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Annotated, Any, Literal
from uuid import uuid4
from weakref import WeakSet

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from stages.tasks.base import Refused
from stages.tasks.conversations import canonical
from stages.tasks.generation import Sampling, Speaker

MAX_BYTES = 2**20  # of a body
PATIENCE = 60.0  # seconds for a body to arrive
AT_ONCE = 16  # requests that wait or are answered
DEFAULT_TOKENS, MAX_TOKENS = 256, 4096  # of an answer
Limited = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Nothing = Literal[None] | Annotated[list[Any], Field(max_length=0)]


def _joined(content: Any) -> Any:
    """Return the text of OpenAI's parts; anything else stays, and is refused by its type."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        texts = [part.get("text") for part in content]
        return "".join(texts) if all(isinstance(text, str) for text in texts) else None
    return content


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    messages: Annotated[list[_Message], Field(min_length=1, max_length=1000)]
    model: str | None = None
    max_tokens: Limited | None = None
    max_completion_tokens: Limited | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    n: Literal[1] | None = None  # here and below: what would change the answer, and is not offered
    tools: Nothing = None
    functions: Nothing = None
    logprobs: Literal[False] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None


class _Problem(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code

    def response(self) -> JSONResponse:
        error = {"message": str(self), "type": "invalid_request_error", "param": None, "code": self.code}
        return JSONResponse({"error": error}, self.status)


class Chat:
    """The routes of one model."""

    def __init__(self, speaker: Speaker, name: str) -> None:
        self._speaker, self._name = speaker, name
        self._answers = WeakSet[Any]()  # those that are waited for: one whose client is gone is no longer there
        self.router = APIRouter()
        self.router.add_api_route("/v1/models", self.models, methods=["GET"])
        self.router.add_api_route("/v1/chat/completions", self.completions, methods=["POST"], response_model=None)

    def models(self) -> dict[str, Any]:
        """List the one model."""
        entry = {"id": self._name, "object": "model", "created": 0, "owned_by": "attune"}
        return {"object": "list", "data": [entry]}

    async def completions(self, request: Request) -> JSONResponse | StreamingResponse:
        """Answer a conversation, at once or in pieces (SSE)."""
        try:
            body, prompt = self._read(await _whole(request))
        except _Problem as problem:
            return problem.response()
        if len(self._answers) >= AT_ONCE:
            return _Problem(429, "too much to do at the moment: ask again later", "rate_limit_exceeded").response()
        head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": self._name}
        self._answers.add(pieces := self._pieces(body, prompt))
        if body.stream:
            events = _events(head, pieces, (body.stream_options or {}).get("include_usage") is True)
            return StreamingResponse(events, media_type="text/event-stream")
        whole = await run_in_threadpool(lambda: [*pieces])
        end: Any = whole.pop()
        message = {"role": "assistant", "content": "".join(map(str, whole))}
        choice = {"index": 0, "message": message, "finish_reason": end["finish"], "logprobs": None}
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": end["usage"]})

    def _read(self, content: bytes) -> tuple[_Body, list[int]]:
        """Return a request and the tokens of its conversation."""
        try:
            body = _Body.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(ascii(part).strip("'")[:40] for part in first["loc"])
            raise _Problem(400, f"{place}{': ' if place else ''}{first['msg']}"[:300]) from None
        if body.model not in (None, self._name):
            raise _Problem(404, f"there is no such model here: {self._name} is", "model_not_found")
        if body.messages[-1].role != "user":
            raise _Problem(400, "messages: the last one must be the user's")
        turns = [
            {"role": "system" if part.role == "developer" else part.role, "content": part.content}
            for part in body.messages
        ]
        try:
            return body, self._speaker.question(json.loads(canonical(turns, may_wait=True)), _most(body))
        except Refused as refusal:
            code = "context_length_exceeded" if refusal.rule == "too_long" else None
            raise _Problem(400, f"messages: {refusal}"[:300], code) from None

    def _pieces(self, body: _Body, prompt: list[int]) -> Iterator[str | dict[str, Any]]:
        """Yield the pieces of an answer, and at the end `finish` and `usage`."""
        stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
        sampling = Sampling(body.temperature or 0.0, body.top_p or 1.0, body.seed)
        answer = self._speaker.stream(prompt, _most(body), sampling)
        with closing(iter(answer)) as pieces:
            yield from _until(pieces, [stop for stop in stops if stop])
        end = answer.end()
        counts = {"prompt_tokens": len(prompt), "completion_tokens": end["new_tokens"]}
        yield {"finish": end["finish"], "usage": {**counts, "total_tokens": sum(counts.values())}}


def _most(body: _Body) -> int:
    return body.max_completion_tokens or body.max_tokens or DEFAULT_TOKENS


async def _whole(request: Request) -> bytes:
    """Return the body of a request; a _Problem if it is too large, or does not arrive."""
    content = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MAX_BYTES:
                    raise _Problem(413, f"the body has more than {MAX_BYTES:,} bytes")
    except TimeoutError:
        raise _Problem(408, "the body did not arrive in time") from None
    except ClientDisconnect:
        raise _Problem(400, "the body ended early") from None
    return bytes(content)


def _until(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """Yield a text up to the first of the texts at which it stops, as soon as it is sure that none begins there."""
    held, keep = "", max(map(len, stops), default=1) - 1
    for piece in pieces:
        held += piece
        found = [place for stop in stops if (place := held.find(stop)) >= 0]
        if found:
            yield held[: min(found)]
            return
        ready = len(held) - keep
        if ready > 0:
            yield held[:ready]
            held = held[ready:]
    yield held


def _events(head: dict[str, Any], pieces: Iterator[str | dict[str, Any]], usage: bool) -> Iterator[str]:
    """Yield the server-sent events of an answer."""

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        content = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"

    def delta(of: dict[str, str], finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": of, "finish_reason": finish, "logprobs": None}]

    yield event(delta({"role": "assistant", "content": ""}))
    for piece in pieces:
        if isinstance(piece, str):
            yield event(delta({"content": piece})) if piece else ": wait\n\n"  # only then a client is seen to be gone
            continue
        yield event(delta({}, piece["finish"]))
        if usage:
            yield event([], usage=piece["usage"])
    yield "data: [DONE]\n\n"
