"""Remove secrets from what people read: log lines, pages, messages."""

import os
import re
from collections.abc import Iterator

GONE = "***"
SHORTEST = 8  # characters of a variable's value that is replaced: shorter ones are ordinary words
NAMED = re.compile(r"TOKEN(?!IZ)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY")
COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # a colour code inside a secret would hide it
# User, and the password up to the last @ (people forget to quote a / or an @ in it), unless it is a port.
LOGIN = re.compile(r"://(?!\[)([^\s/?#:@\"'<>`]*)(:(?!\d{1,5}[/?#])(?:(?!://)[^\s\"'<>`])*)?@")
PLAIN_USER = re.compile(r"[A-Za-z._-]{1,16}")  # such as git; any other user may be a token
QUERY = re.compile(
    r"(?i)([?&](?:[\w.-]{0,40}(?:token|secret|passw(?:or)?d|signature|api[_-]?key|access[_-]?key)|sig|key)=)[^&#\s\"'<>`]+"
)
SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}"
    r"|hf_[A-Za-z0-9]{16,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|xox[a-z]-[\w-]{8,}"
    r"|glpat-[\w-]{16,})"
    r"|-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)"
)


def redacted(text: str) -> str:
    """Return a text without terminal colours, with each secret replaced by `***`.

    Secrets are: values of environment variables named like one, logins in URLs (also in a query), tokens of GitHub,
    GitLab, Hugging Face, AWS and Slack by their shape, and private keys. A secret that is encoded otherwise, or cut in
    two, is not found.
    """
    text = COLOURS.sub("", text)
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, GONE)
    return SHAPES.sub(GONE, QUERY.sub(rf"\1{GONE}", LOGIN.sub(_without_login, text)))


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if NAMED.search(name.upper()) and not (value.startswith("/") and os.path.exists(value)):  # noqa: PTH110
            # A key of several lines is printed line by line.
            yield from (part for part in {value, *map(str.strip, value.splitlines())} if len(part) >= SHORTEST)


def _without_login(login: re.Match[str]) -> str:
    user = login[1] if PLAIN_USER.fullmatch(login[1]) else GONE if login[1] else ""
    return f"://{user}{f':{GONE}' if login[2] else ''}@"
