"""Conversations: the shapes in which people keep them, and the one in which a label holds them.

A label is JSON, `[{"role":"user","content":"…"},{"role":"assistant","content":"…"}]`: first a system message, if there
is one, then user and assistant by turns. An answer with `"train":false` is read, and nothing is learnt of it.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from stages.tasks.base import Refused

if TYPE_CHECKING:
    from stages.common.text.cleaning import TextCleaning

Message = dict[str, Any]


class Shape(NamedTuple):
    """The columns of a format: with the question, with the answer or all of the conversation, and further ones."""

    question: str | None
    answer: str
    others: tuple[str, ...] = ()
    must_ask: bool = False  # whether there is no conversation without the column of the question


SHAPES = {
    "messages": Shape(None, "messages", ("system", "tools", "functions")),  # as OpenAI has them
    "sharegpt": Shape(None, "conversations", ("system", "tools")),
    "alpaca": Shape("instruction", "output", ("input", "system", "history"), must_ask=True),
    "prompt-completion": Shape("prompt", "completion", ("system",), must_ask=True),
    "pairs": Shape("prompt", "chosen", ("system", "rejected")),  # of which the chosen answer is learnt
}
ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "question", "client", "customer"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "bot", "model", "answer", "agent"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "function_call", "tool_call", "ipython"), "tool"),
}
ROLE, CONTENT = ("role", "from", "sender", "speaker", "author"), ("content", "value", "text", "body")
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")  # of texts that hold a whole conversation, as Anthropic's HH-RLHF
TELLING = 3  # words of a question, at least, unless there is none as long
TURNS = ((1, "1 answer"), (3, "2 or 3 answers"), (10, "4 to 10 answers"))
BAD, TOOLS = "bad_messages", "tool_calls"  # rules
NO_TOOLS = "tools are called, which is not learnt yet"


def each(of: Callable[[Any], Any], given: Sequence[Any]) -> Iterator[Any]:
    """Yield what is made of each conversation; Refused says of which one, if there are several."""
    for number, one in enumerate(given, start=1):
        try:
            yield of(one)
        except Refused as refusal:
            at = f"conversation {number} of {len(given)}: " if len(given) > 1 else ""
            raise Refused(f"{at}{refusal}", refusal.rule) from None


def columns(form: str, question: str | None, answer: str | None) -> tuple[dict[str, str], set[str]]:
    """Return the columns of a format by part, those of params in place of its own, and which parts there must be."""
    shape = SHAPES[form]
    found = {"answer": answer or shape.answer} | {name: name for name in shape.others}
    if shape.question:
        found["question"] = question or shape.question
    return found, {"answer", *(["question"] if shape.must_ask or question else [])}


def of_row(cells: dict[str, Any]) -> str:
    """Return the label of what a row's cells hold by part, beside its `shape` and its number, `row`."""
    shape, row = cells.pop("shape"), cells.pop("row")
    try:
        return canonical(read(shape, cells))
    except Refused as refusal:
        at = f"row {row:,}: " if refusal.rule == BAD else ""  # there are few, and they can be mended
        raise Refused(f"{at}{refusal}", refusal.rule) from None


def read(form: str, cells: Mapping[str, str | None]) -> list[Message]:
    """Return the messages that a row's cells hold by part, in this format, as they come; Refused if they hold none."""
    if any((cells.get(name) or "[]") not in ("[]", "{}", "null") for name in ("tools", "functions")):
        raise Refused(NO_TOOLS, TOOLS)
    answer, question, system = cells.get("answer"), cells.get("question") or "", cells.get("system")
    if not answer:
        raise Refused("there is no answer", "no_answer")
    start = [{"role": "system", "content": system}] if system else []
    if form in ("messages", "sharegpt"):
        return [*start, *messages_of(parsed(answer))]
    if form == "alpaca":
        for pair in parsed(cells["history"] or "") if cells.get("history") else []:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise Refused("history is no list of pairs", BAD)
            turns = zip(("user", "assistant"), pair, strict=True)
            start += messages_of([{"role": role, "content": said} for role, said in turns])
        question = "\n\n".join(filter(None, (question, cells.get("input"))))
    before = _spoken(question, "user", form) if question else []
    after = _spoken(answer, "assistant", form)
    whole = after[: len(before)] == before  # some repeat the question in each answer
    return [*start, *([] if whole else before), *after]


def _spoken(cell: str, role: str, form: str) -> list[Message]:
    """Return the messages of a cell: a list of them, or one; in `pairs` a text that holds several; else one text.

    A text that only looks so, such as JSON that is to be written, stays a text.
    """
    if cell.lstrip().startswith(("[{", "{")):
        with suppress(Refused):
            value = parsed(cell)
            parts = value if isinstance(value, list) else [value]
            roles = [isinstance(part, dict) and str(part.get("role", part.get("from"))) for part in parts]
            if all(role and role.strip().casefold() in ROLES for role in roles):
                return messages_of(parts)
    if form == "pairs" and cell.startswith(("\n\nHuman:", "Human: ")):
        _, *parts = TURN.split(cell)
        spoken = [(ROLES[name.casefold()], said) for name, said in zip(parts[::2], parts[1::2], strict=True)]
        if not spoken[-1][1].strip():  # behind `Assistant:` of a question
            spoken.pop()
        return [{"role": name, "content": said} for name, said in spoken]
    return [{"role": role, "content": cell}]


def parsed(cell: str) -> Any:
    """Return what a cell holds as JSON, or as Python writes it: so pandas saves lists as CSV. Refused if neither."""
    for reader in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return reader(cell)
    raise Refused('this is no list of messages, such as [{"role": "user", "content": "…"}]', BAD)


def messages_of(value: Any) -> list[Message]:
    """Return messages with the keys and roles of a label, out of a list in any spelling; Refused if it is none.

    An inner list is what one speaker says in several messages. Two speakers of any other names are user and assistant,
    who begins being the user.
    """
    if not isinstance(value, list) or not value:
        raise Refused("this is no list of messages", BAD)
    turns = [[_message(part) for part in (turn if isinstance(turn, list) else [turn])] for turn in value]
    speakers = list(dict.fromkeys(str(part["role"]).casefold() for turn in turns for part in turn))
    roles = {name: ROLES.get(name, "") for name in speakers}
    if not any(roles.values()) and len(speakers) <= 2:
        roles = dict(zip(speakers, ("user", "assistant"), strict=False))
    if not all(roles.values()):
        raise Refused("its roles are not those of user and assistant, nor of two speakers", BAD)
    result = []
    for turn in filter(None, turns):
        if len({part["role"] for part in turn}) > 1:
            raise Refused("several speakers share a turn", "role_order")
        spoken = {**turn[0], "role": roles[str(turn[0]["role"]).casefold()]}
        result.append({**spoken, "content": "\n".join(part["content"] for part in turn)})
    return result


def _message(part: Any) -> Message:
    """Return a message with role (as it stands), content, and `train` where it is false."""
    if not isinstance(part, Mapping):
        raise Refused("a message is no object", BAD)
    if any(part.get(name) for name in ("tool_calls", "function_call", "tools")):
        raise Refused(NO_TOOLS, TOOLS)
    role = next((part[key] for key in ROLE if part.get(key)), None)
    role = role.get("role") if isinstance(role, Mapping) else role  # as ChatGPT exports `author`
    content = next((part[key] for key in CONTENT if key in part), None)
    if isinstance(content, list):  # OpenAI's parts
        texts = [piece.get("text") if isinstance(piece, Mapping) else piece for piece in content]
        content = "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else None
    if not isinstance(role, str) or not isinstance(content, str):
        raise Refused("a message has no role, or a content that is no text", BAD)
    learnt = str(part.get("train", part.get("weight", 1))).casefold() not in ("0", "0.0", "false")
    return {"role": role.strip(), "content": content} | ({} if learnt else {"train": False})


def canonical(messages: Sequence[Message], may_wait: bool = False) -> str:
    """Return the label of messages; Refused, with the rule, if they are no conversation to learn from.

    One that waits for an answer is also taken, if it `may_wait`; it may hold empty answers, as models give them.
    """
    messages = [part for part in messages if part["role"] != "system" or part["content"].strip()]
    if any(part["role"] == "tool" for part in messages):
        raise Refused(NO_TOOLS, TOOLS)
    if any(not part["content"].strip() for part in messages if learnt(part) or part["role"] == "user" or not may_wait):
        raise Refused("a turn is empty", "empty_turn")
    turns = [part["role"] for part in messages[messages[:1] != [] and messages[0]["role"] == "system" :]]
    if any(role != ("user", "assistant")[number % 2] for number, role in enumerate(turns)):
        raise Refused("user and assistant do not speak by turns, the user first", "role_order")
    if not any(learnt(part) for part in messages) and not (may_wait and messages[-1]["role"] == "user"):
        raise Refused("there is no answer to learn from", "no_answer")
    text = json.dumps(messages, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode("utf-8")  # half a pair of surrogates is no character


def masked(messages: Sequence[Message], cleaning: "TextCleaning") -> str:
    """Return the label of messages in which personal data are masked."""
    import polars as pl

    from stages.common.text.pii import mask

    texts = pl.Series([part["content"] for part in messages])
    pairs = zip(messages, mask(texts, cleaning.pii, cleaning.phone_region), strict=True)
    return canonical([{**part, "content": text} for part, text in pairs], may_wait=True)


def kinds_of(messages: Sequence[Message]) -> list[str]:
    """Return of a conversation how many answers it has, and whether a system message begins it, in words."""
    answers = sum(map(learnt, messages))
    turns = next((name for most, name in TURNS if answers <= most), "over 10 answers")
    return [turns, f"{'with' if messages[0]['role'] == 'system' else 'without'} a system message"]


def learnt(message: Message) -> bool:
    """Return whether a message is an answer to learn from."""
    return message["role"] == "assistant" and message.get("train", True) is not False


def waiting(messages: Sequence[Message]) -> list[Message]:
    """Return a conversation of a request: where the user spoke last, one of whose answers nothing is learnt."""
    if not messages or messages[-1]["role"] != "user":
        return list(messages)
    return [part | ({"train": False} if part["role"] == "assistant" else {}) for part in messages]


def waits(messages: Sequence[Message]) -> bool:
    """Return whether a conversation waits for an answer: it has none to learn from."""
    return not any(learnt(part) for part in messages)


def asked(messages: Sequence[Message]) -> Iterator[str]:
    """Yield the texts before the first answer to learn from."""
    for message in messages:
        if learnt(message):
            return
        yield message["content"]


def first_question(messages: Sequence[Message]) -> str:
    """Return the user's first turn of three words or more, else the first one: by a greeting nothing is asked yet."""
    from stages.common.text.columns import WORD

    turns = [str(message["content"]) for message in messages if message["role"] == "user"]
    return next((text for text in turns if len(re.findall(WORD, text)) >= TELLING), turns[0])
