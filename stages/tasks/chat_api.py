"""`/v1/chat/completions` and `/v1/models` in OpenAI's shape, for a language model that MLflow has loaded.

https://platform.openai.com/docs/api-reference/chat. Answers are greedy unless a temperature is given. What is asked for
and not offered (tools, several answers, penalties) is refused: it would be left out without a word.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from threading import Lock
from typing import Annotated, Any, Literal
from uuid import uuid4
from weakref import WeakSet

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, ValidationError, model_validator
from starlette.requests import ClientDisconnect

from stages.tasks.base import Refused
from stages.tasks.conversations import canonical, waiting
from stages.tasks.generation import Sampling, Speaker, Stream

MAX_BYTES = 2**20  # of a body
PATIENCE = 60.0  # seconds for a body to arrive
AT_ONCE = 16  # requests that wait or are answered
DEFAULT_TOKENS, MAX_TOKENS = 256, 4096  # of an answer
GONE = 499  # nginx's status for a client that left: nobody reads it
Limited = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Penalty = Annotated[float, Field(ge=0, le=0)]


def _joined(content: Any) -> Any:
    """Return the text of OpenAI's parts; anything else stays, and is refused by its type."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        texts = [part.get("text") for part in content]
        return "".join(texts) if all(isinstance(text, str) for text in texts) else None
    return content


class _Known(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, data: Any) -> Any:
        """Leave out what is null or empty, as clients send it that give back a message as they got it."""
        nothing: tuple[Any, ...] = (None, [], {})
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value not in nothing or name == "messages"}


class _Message(_Known):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)]
    name: str | None = None


class _Body(_Known):
    messages: Annotated[list[_Message], Field(min_length=1, max_length=1000), FailFast()]
    model: str | None = None
    max_tokens: Limited | None = None
    max_completion_tokens: Limited | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] = {}
    # what changes no answer
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    parallel_tool_calls: Any = None
    # what would change it, and is not offered: the values that leave it as it is
    n: Literal[1] = 1
    tool_choice: Literal["none", "auto"] = "none"
    logprobs: Literal[False] = False
    top_logprobs: Literal[0] = 0
    frequency_penalty: Penalty = 0
    presence_penalty: Penalty = 0
    response_format: dict[Literal["type"], Literal["text"]] = {}


class _Problem(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def response(self) -> JSONResponse:
        error = {"message": str(self), "type": "invalid_request_error", "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status)


class Chat:
    """The routes of one model."""

    def __init__(self, speaker: Speaker, name: str) -> None:
        self._speaker, self._name = speaker, name
        self._reading = Lock()  # tokenizers are not made for several texts at once
        self._answers = WeakSet[Stream]()
        self.router = APIRouter()
        self.router.add_api_route("/v1/models", self.models, methods=["GET"])
        self.router.add_api_route("/v1/models/{name}", self.model, methods=["GET"], response_model=None)
        self.router.add_api_route("/v1/chat/completions", self.completions, methods=["POST"], response_model=None)

    def models(self) -> dict[str, Any]:
        """List the one model."""
        entry = {"id": self._name, "object": "model", "created": 0, "owned_by": "attune"}
        return {"object": "list", "data": [entry]}

    def model(self, name: str) -> dict[str, Any] | JSONResponse:
        """Return the entry of the one model."""
        return self.models()["data"][0] if name == self._name else self._unknown().response()

    async def completions(self, request: Request) -> Response:
        """Answer a conversation, at once or in pieces (SSE); where the client leaves, the answer ends."""
        try:
            body, answer = await run_in_threadpool(self._read, await _whole(request))
        except _Problem as problem:
            return problem.response()
        if sum(not other.stopped.is_set() for other in self._answers) >= AT_ONCE:
            return _Problem(429, "too much to do at the moment: ask again later", "rate_limit_exceeded").response()
        self._answers.add(answer)
        head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": self._name}
        if body.stream:
            events = _events(head, answer, body.stream_options.get("include_usage") is True)
            return StreamingResponse(events, media_type="text/event-stream")
        whole = ""
        async for piece in _pieces(answer):
            whole += piece
            if not piece and await request.is_disconnected():
                answer.stop()
                return Response(status_code=GONE)
        message = {"role": "assistant", "content": whole}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish, "logprobs": None}
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": _usage(answer)})

    def _unknown(self) -> _Problem:
        return _Problem(404, f"there is no such model here: {self._name} is", "model_not_found")

    def _read(self, content: bytes) -> tuple[_Body, Stream]:
        """Return a request and its answer, which is not begun."""
        try:
            body = _Body.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(ascii(part).strip("'")[:40] for part in first["loc"])
            wrong_role = place.endswith(".role")
            offered = first["type"] not in ("extra_forbidden", "literal_error") and not place.endswith("_penalty")
            what = first["msg"] if offered or wrong_role else "is not offered here: leave it out"
            raise _Problem(400, f"{place}{': ' if place else ''}{what}"[:300], param=place or None) from None
        if body.model not in (None, self._name):
            raise self._unknown()
        if body.messages[-1].role != "user":
            raise _Problem(400, "messages: the last one must be the user's")
        turns = [
            {"role": "system" if part.role == "developer" else part.role, "content": part.content}
            for part in body.messages
        ]
        most = body.max_completion_tokens or body.max_tokens
        try:
            with self._reading:
                prompt = self._speaker.question(json.loads(canonical(waiting(turns), may_wait=True)), most or 1)
        except Refused as refusal:
            code = "context_length_exceeded" if refusal.rule == "too_long" else None
            raise _Problem(400, f"messages: {refusal}"[:300], code) from None
        most = most or min(DEFAULT_TOKENS, self._speaker.context - len(prompt))
        stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
        sampling = Sampling(body.temperature or 0.0, body.top_p or 1.0, body.seed)
        return body, self._speaker.stream(prompt, most, sampling, stops)


def _usage(answer: Stream) -> dict[str, int]:
    counts = {"prompt_tokens": len(answer.prompt), "completion_tokens": answer.new_tokens}
    return {**counts, "total_tokens": sum(counts.values())}


async def _pieces(answer: Stream) -> AsyncIterator[str]:
    """Yield the pieces of an answer, an empty one while nothing comes; let go of it where they are not taken."""
    pieces = iter(answer)
    try:
        while (piece := await run_in_threadpool(next, pieces, None)) is not None:
            yield piece
    finally:
        answer.stop()


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


async def _events(head: dict[str, Any], answer: Stream, usage: bool) -> AsyncIterator[str]:
    """Yield the server-sent events of an answer."""

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        content = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"

    def delta(of: dict[str, str], finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": of, "finish_reason": finish, "logprobs": None}]

    try:
        yield event(delta({"role": "assistant", "content": ""}))
        async for piece in _pieces(answer):
            yield event(delta({"content": piece})) if piece else ": wait\n\n"  # only then a client is seen to be gone
    finally:
        answer.stop()
    yield event(delta({}, answer.finish))
    if usage:
        yield event([], usage=_usage(answer))
    yield "data: [DONE]\n\n"
