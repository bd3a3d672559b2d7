"""Secrets out of what a flow says: before a line reaches Prefect's logs, `logs/`, an artifact or a message."""

import base64
import html
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote

# detect-secrets and the like report where a file seems to hold a secret; they know no environment and replace nothing.

GONE = "***"
SHORTEST = 6  # characters of a value worth replacing
LONG_LINE = 16  # of a value with several lines, lines from here on are secrets of their own: a key comes line by line
TERMINAL = re.compile(  # codes that command a terminal, and escapes by themselves
    r"\x1b++(?:\[[0-?]*+[ -/]*+[@-~]?|\][^\x07\x1b\x9c\n]*+(?:\x07|\x1b\\|\x9c)|[ -/]*+[0-~])?|\x9b[0-?]*+[ -/]*+[@-~]?"
)
COMMON = frozenset(
    {  # values that are words of every log
        "admin",
        "attune",
        "basic",
        "bearer",
        "changeme",
        "default",
        "disabled",
        "enabled",
        "false",
        "localhost",
        "mlflow",
        "none",
        "null",
        "optional",
        "password",
        "postgres",
        "prefect",
        "private",
        "public",
        "required",
        "secret",
        "true",
    }
)
NAMED = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE|AUTH(?!ORITY|ORS?(?:_|$))"
)
PLAIN_USER = re.compile(r"[A-Za-z][A-Za-z._-]{0,15}")  # of a URL without password: `git@` is no token

# Each of these is tried in one pass, or fails within a bounded number of characters: long lines take linear time.
QUERY = re.compile(r"(?i)([?&#;]|%(?:25)?(?:3F|26|23))([\w.~-]{1,64}?)(=|%(?:25)?3D)([^&#;\s\"'<>`]++)")
QUERY_NAMES = re.compile(
    r"(?i)token(?!iz|s$)|secret|passw|passphrase|pwd$|credential|sig$|signature|api[._-]?key|access[._-]?key|private"
    r"|^(?:sas|jwt|authorization)$|(?:^|(?<!metric)[._-])(?:key|auth)$"
)
HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization|x-api-key|x-auth-token|private-token|x-goog-api-key)"
    r"([\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?:bearer|basic|token|digest|apikey)\s{1,3})?)[^\s\"',;]{3,}+"
)
SCHEME = re.compile(r"(?i)\b(bearer|basic)(\s{1,3})(?=[\w.~+/-]{0,200}[\d=])[\w.~+/-]{12,}+=*")
NAME = re.compile(r"(?i:passw(?:or)?d|passphrase|(?<=_)pwd|secret|(?:api|access|secret|private|account)[_-]?key|token)")
VALUE = r"""(?:\\{1,3}["'][^"'\\\n]++|"(?:\\.|[^"\\\n])++"?|'(?:\\.|[^'\\\n])++'?|[^\s"'&;,<>`]{3,}+)"""
SETTING = re.compile(  # `PGPASSWORD=…`, `password = '…'`, `"api_key": "…"`, `password: …`
    rf"({NAME.pattern})(\\{{0,3}}[\"'][ \t]{{0,3}}[:=][ \t]{{0,3}}|[ \t]{{0,3}}(?:=[ \t]{{0,3}}|:[ \t]{{1,3}}))"
    rf"({VALUE})(?=([ \t]{{0,3}}(?:[,}}\r\n]|\Z))?)"
)
OPTION = re.compile(rf"(?<![\w-])(--[\w-]{{1,64}}+)([\"']?,?[ \t]{{1,3}}|=)(?!-)({VALUE})")  # `--password …`
NO_SECRET = re.compile(r"(?i)none|null|true|false")
NO_TOKEN = re.compile(r"[\[<].*|[\d.,]{1,9}|.{0,5}")  # `pad_token: [PAD]`, `token: 862`

SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:hf|gh[pousr]|npm|pn[ub])_[A-Za-z0-9]{16,}+"
    r"|github_pat_\w{16,}+"
    r"|glpat-[\w-]{16,}+"
    r"|pypi-[\w-]{16,}+"
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}+"
    r"|AIza[\w-]{30,}+"
    r"|xox[a-z]-[A-Za-z0-9-]{8,}+"
    r"|(?<!-)[sr]k[-_](?=[A-Za-z_-]{0,40}\d)[\w-]{16,}+"
    r"|(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+)?"
    r")"
    r"|(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/-]++"
    r"|-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)"
)


def redacted(text: str) -> str:
    """Return a text without codes for terminals, each secret in it replaced by `***`, and nothing else changed.

    Secrets are: logins and tokens in URLs, values of headers and settings that are named after a secret, tokens whose
    shape is well known, private keys, and the values of this process' environment variables whose names say so (or
    that are URLs with a password), also as they stand in URLs, JSON, HTML, base64 and hex.

    A secret that is cut in two, one half in this text and one in the next, is not found; of the environment's, each
    long line is a secret by itself. It takes linear time.
    """
    text = _without_known(text)
    if "\x1b" in text or "\x9b" in text:  # a code may part a secret
        text = _without_known(TERMINAL.sub("", text))
    if "://" in text:
        text = _LOGIN.sub(_without_login, text)
    if "%" in text:
        text = _QUOTED_LOGIN.sub(_without_quoted_login, text)
    if "=" in text or "%" in text:
        text = QUERY.sub(_without_value, text)
    if "=" in text or ":" in text:
        text = SETTING.sub(_without_setting, HEADER.sub(rf"\1\2{GONE}", text))
    if "--" in text:
        text = OPTION.sub(_without_option, text)
    return SHAPES.sub(GONE, SCHEME.sub(rf"\1\2{GONE}", text))


def _without_known(text: str) -> str:
    for secret in _secrets(tuple(os.environ.items())):
        text = text.replace(secret, GONE)
    return text


_END, _QUOTED_END = re.compile("[/?#]"), re.compile(r"(?i)%(?:25)?(?:2F|3F|23)|[/?#]")
# What follows `://` up to the end of the word or the next `://`, judged by a function: no pattern has to look back.
_LOGIN = re.compile(r"://((?:(?!://)[^\s\"'<>`])++)")
_QUOTED_LOGIN = re.compile(r"(?i)(%(?:25)?3A(?:%(?:25)?2F|/){2})((?:(?!%(?:25)?3A%(?:25)?2F)[^\s\"'<>&`])++)")


def _without_login(found: re.Match[str]) -> str:
    return f"://{_login_gone(found[1], ':', '@', _END)}"


def _without_quoted_login(found: re.Match[str]) -> str:
    rest, double = found[2], "%25" in found[1]
    colon, at = ("%253A", "%2540") if double else ("%3A", "%40")
    for mark in (colon, at):
        rest = re.sub(mark, mark, rest, flags=re.IGNORECASE)
    return found[1] + _login_gone(rest, colon if colon in rest else ":", at if at in rest else "@", _QUOTED_END)


def _login_gone(rest: str, colon: str, at: str, end: re.Pattern[str]) -> str:
    """Return what follows a `://` without its login.

    What stands between the first colon and the last `@` is the password, even with a `/` in it that should have been
    quoted; unless it is a port, or the colon is one of an address ([::1]) or comes after the host.
    """
    login, found, host = rest.rpartition(at)
    if not found:
        return rest
    user, parted, password = login.partition(colon)
    if end.search(user) or user.startswith("["):
        return rest
    port = re.match(r"\d{1,5}", password)
    if parted and not (port and end.match(password, port.end())):
        return f"{user if PLAIN_USER.fullmatch(user) else GONE if user else ''}{colon}{GONE}{at}{host}"
    return rest if parted or PLAIN_USER.fullmatch(user) else f"{GONE}{at}{host}"


def _without_value(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}{found[3]}{GONE}" if QUERY_NAMES.search(found[2]) else found[0]


def _without_setting(found: re.Match[str]) -> str:
    name, mark, value, last = found.groups()
    quoted = mark[0] in "\\\"'" or value[0] in "\\\"'"
    # `password: what a word` is a sentence; a setting is the last of its line, or looks like no word.
    sentence = ":" in mark and not quoted and last is None and value.strip(".!?:()[]").isalpha()
    return found[0] if sentence else f"{name}{mark}{_value_gone(name, value)}"


def _without_option(found: re.Match[str]) -> str:
    name, mark, value = found.groups()
    secret = any(one.end() == len(name) for one in NAME.finditer(name))
    return f"{name}{mark}{_value_gone(name, value)}" if secret else found[0]


def _value_gone(name: str, value: str) -> str:
    """Return `***` in the quotes of a value, or a value that is no secret."""
    quoted = re.match(r"\\{0,3}[\"']", value)
    start = quoted[0] if quoted else ""
    end = start if len(start) == 1 and len(value) > 1 and value.endswith(start) else ""
    inner = value[len(start) : len(value) - len(end)]
    word = inner if start else inner.rstrip("})]")
    if NO_SECRET.fullmatch(word) or (name.lower().endswith("token") and NO_TOKEN.fullmatch(word)):
        return value
    return f"{start}{GONE}{end}"


@lru_cache(maxsize=4)
def _secrets(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Return each form of each secret value, the longest first."""
    forms = {form for value in _values(dict(environment)) for form in _forms(value)}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


def _values(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if NAMED.search(name.upper()) and not (value.startswith("/") and os.path.exists(value)):  # noqa: PTH110
            yield from filter(_is_secret, _parts(value))
        for found in _LOGIN.finditer(value):
            user, parted, password = found[1].rpartition("@")[0].partition(":")
            if parted and _login_gone(found[1], ":", "@", _END) != found[1]:
                yield from filter(_is_secret, _parts(password))
                if not PLAIN_USER.fullmatch(user):
                    yield from filter(_is_secret, [user])


def _parts(value: str) -> Iterable[str]:
    lines = [line.strip() for line in value.splitlines()]
    after = value.partition(":")[2] if value.count(":") == 1 else ""  # `user:password`
    return [value, value.strip(), after, *(line for line in lines if len(line) >= LONG_LINE and len(lines) > 1)]


def _is_secret(value: str) -> bool:
    return len(value) >= SHORTEST and value.casefold() not in COMMON and bool(value.strip("*"))


def _forms(value: str) -> Iterator[str]:
    """Yield a value as it is, and as URLs, HTML, JSON, Python, base64 and hex write it."""
    plain = {value, unquote(value)}
    quoters: list[Callable[[str], str]] = [
        lambda one: quote(one, safe=""),
        quote,
        quote_plus,
        html.escape,
        lambda one: json.dumps(one)[1:-1],
        lambda one: json.dumps(one).replace("/", r"\/")[1:-1],
        lambda one: json.dumps(one, ensure_ascii=False)[1:-1],
        lambda one: repr(one)[1:-1],
    ]
    for one in filter(_is_secret, plain):
        yield one
        try:
            written = {quoter(one) for quoter in quoters}
        except UnicodeEncodeError:  # a value that is no text
            continue
        yield from written
        yield from (re.sub("%..", lambda code: code[0].lower(), form) for form in written if "%" in form)
        yield from (TERMINAL.sub("", form) for form in written if _is_secret(TERMINAL.sub("", form)))
        yield from (one.encode().hex(), one.encode().hex().upper())
        yield from _base64_forms(one.encode())


def _base64_forms(value: bytes) -> Iterator[str]:
    """Yield what a value becomes at each of the three places it can have within something in base64."""
    for offset in range(3):
        whole = base64.b64encode(bytes(offset) + value).decode().rstrip("=")
        first = (0, 2, 3)[offset]  # characters that what stands before has a part in
        last = len(whole) - (1 if (offset + len(value)) % 3 else 0)
        core = whole[first:last]
        if len(core) >= SHORTEST:
            yield from {core, core.replace("+", "-").replace("/", "_")}
