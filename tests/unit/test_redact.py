"""Secrets: none survives in what a flow says, and nothing else changes."""

import ast
import base64
import json
import re
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.told.redact import COMMON, GONE, redacted
from tests.conftest import PROJECT

ONCE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret but those that a test plants."""
    import os

    for name in list(os.environ):
        if name not in ("PATH", "HOME", "PYTEST_CURRENT_TEST"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("push to https://me:s3cret@host:5000/path failed", "push to https://me:***@host:5000/path failed"),
        ("(postgresql+psycopg://me:se/cr@et@[::1]:5432/db)", "(postgresql+psycopg://me:***@[::1]:5432/db)"),
        ("https://ghp1234567890abcdef1234@github.com/x", "https://***@github.com/x"),
        ("https://t0k3n:x-oauth-basic@host/x", "https://***:***@host/x"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("'http://a:bcd@one' \"ftp://e:fgh@two\"", "'http://a:***@one' \"ftp://e:***@two\""),
        ("?next=https%3A%2F%2Fme%3As3cret%40host%2Fx", "?next=https%3A%2F%2Fme%3A***%40host%2Fx"),
        ("%2Fx?u=https%253a%252f%252fme%253as3cret%2540host", "%2Fx?u=https%253a%252f%252fme%253A***%2540host"),
        ("GET /x?page=2&X-Amz-Signature=ab12&X-Amz-Credential=AK%2F1&n=3", None),
        ("https://h/x?sig=a%2Bb&sv=2022#access_token=zz9", "https://h/x?sig=***&sv=2022#access_token=***"),
        ("https://h/x?a=1&amp;api_key=k3y", "https://h/x?a=1&amp;api_key=***"),
        ("https%3A%2F%2Fh%2Fx%3Ftoken%3Dabcdef", "https%3A%2F%2Fh%2Fx%3Ftoken%3D***"),
        ("authorization: Bearer abc.def/ghi==", "authorization: Bearer ***"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "{'Authorization': 'Basic ***'}"),
        ("X-Api-Key: 123abc", "X-Api-Key: ***"),
        ("sent Bearer 0123456789abcdef", "sent Bearer ***"),
        ("host=db password=hunter22 user=me", "host=db password=*** user=me"),
        ('{"api_key": "abcdef", "n": 3}', '{"api_key": "***", "n": 3}'),
        ("PGPASSWORD=hunter22 MYSQL_PWD=abc PWD=/home/me psql", "PGPASSWORD=*** MYSQL_PWD=*** PWD=/home/me psql"),
        ("user: me\npassword: geheim\nport: 5432", "user: me\npassword: ***\nport: 5432"),
        ("  db_password: hunter22 # of the database", "  db_password: *** # of the database"),
        ("{password: geheim, user: me}", "{password: ***, user: me}"),
        ("psql --password hunter22 --user me", "psql --password *** --user me"),
        ("['x', '--hf-token', 'hunter22', '-v']", "['x', '--hf-token', '***', '-v']"),
        ("--api-key=abcdef --max-tokens 128", "--api-key=*** --max-tokens 128"),
        ("connect(password='ge heim', port=1)", "connect(password='***', port=1)"),
        ('password = "a\\"b c" # TOML', 'password = "***" # TOML'),
        ("password: 'ge heim and cut off", "password: '***"),
        ("{'token': 'abcdefgh', 'n': 3}", "{'token': '***', 'n': 3}"),
        (r"\"password\": \"ge heim\", \"n\": 1", r"\"password\": \"***\", \"n\": 1"),
        (r"password=\\\\\\ x", "password=*** x"),
        ("pass\x1b[31mword=hunt\x1b[0mer\x1b]8;;x\x0722", "password=***"),
        ("hf_abcdefghijklmnopqrstuvwxyz", "***"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789.", "***."),
        ("github_pat_11ABCDEFG0abcdefghijkl_abcdefg", "***"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        ("xoxb-123456789012-abcdefABCDEF", "***"),
        ("sk-proj-abcDEF0123456789abcDEF", "***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3", "***"),
        ("https://hooks.slack.com/services/T000/B000/XXXX", "https://hooks.slack.com/***"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", "a *** b"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut off", "***"),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(said: str, shown: str | None) -> None:
    expected = shown or "GET /x?page=2&X-Amz-Signature=***&X-Amz-Credential=***&n=3"
    assert redacted(said) == expected
    assert redacted(expected) == expected, "twice is once"


@pytest.mark.parametrize(
    "said",
    [
        "tokenize: done in 3.2 s, peak memory 300 MiB",
        "pad_token: [PAD], max_tokens=512, token_type_ids",
        "http://127.0.0.1:5000/#/experiments/1/runs/0123456789abcdef0123456789abcdef",
        "http://host:8080/@user and http://[::1]:5000/@user and git@github.com:me/x.git",
        "ssh://git@github.com/me/x.git, sqlite:////tmp/a:b@c/mlflow.db",
        "https://h/x?page=2&tokenizer=bert&max_tokens=5&sort=asc#top",
        "basic authentication failed; the bearer of bad news",
        "task-learning-rate-1-and-a-long-name-of-words",
        "80f8975a6f54839d4ef445ba2ccd82bcae1091f472305d15eaa7b42ef1435497",
        "100% of 3 rows; loss=0.25 epoch=1; key=value",
        "Schlüssel: ‘password’ is a label; password: what a word",
        "(the password: wrong) and token: str) -> None",
        "GET /get-history?run_uuid=012a3cc7&metric_key=loss",
        "{'pad_token': '[PAD]', 'eos_token': '</s>', 'token': None, \"password\": null}, tokens: 862, token: 1024",
    ],
)
def test_other_text_stays_as_it_is(said: str) -> None:
    assert redacted(said) == said


PRINTED = """\
runs (not there yet: models/tokenizer; changed: params.yaml tokenize.max_length: 128)
tokenize: texts to token ids
  6,918 rows, 12 longer than 128 tokens and cut
  warning: the model takes 512 tokens: texts are cut there, not at 600
  params.yaml: key tokenize.max_length, secret sauce: none, private: no
  tokens: 862 (rows: 5), max_new_tokens: 128, num_virtual_tokens: 20, tokens/s: 12,345
  epoch 1/3, step 40/1,299: loss 0.6931, 12,345 tokens/s, 3 min left
  | variant | 1 text, p50 | 1 text, p95 | tokens/s | size |
  torch            12.3 ms   15.1 ms   862 tokens/s   87 MiB
  4 suspects; base model hf:sentence-transformers/all-MiniLM-L6-v2@1110a243
downloading all-MiniLM-L6-v2 (hub) …
  rejected 3: text: shorter than 2 characters: 'a'
  rotten-tomatoes version 2 is registered as champion
  key: value; keys: 3; author: Jane Doe; authority: low; passes: 4; passed: 3 of 3
finetune: done in 180.5 s, peak memory 2,440 MiB
MLflow: http://127.0.0.1:5000/#/experiments/1/runs/0123456789abcdef0123456789abcdef""".splitlines()
NUMBER = st.from_regex(r"\A[0-9]{1,3}(,[0-9]{3}){0,2}(\.[0-9]{1,4})?\Z").filter(lambda number: len(number) < 10)


@ONCE
@given(st.lists(st.sampled_from(PRINTED), min_size=1, max_size=6), NUMBER, st.sampled_from(["\n", " ", ", ", "; "]))
def test_what_the_pipeline_prints_stays_as_it_is_whatever_its_numbers(lines: list[str], number: str, by: str) -> None:
    text = by.join(re.sub(r"\b862\b|\b128\b", number, line) for line in lines)
    assert redacted(text) == text
    assert redacted(f"\x1b[1;32m{text}\x1b[0m") == text


@pytest.mark.parametrize("folder", ["stages", "flows"])
def test_what_the_sources_say_to_people_stays_as_it_is(folder: str) -> None:
    """Each text of the code as it is printed, but for what is filled in."""
    said = [
        node.value
        for path in (PROJECT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if path.name not in ("redact.py", "databases.py") and isinstance(node, ast.Constant)
        if isinstance(node.value, str) and " " in node.value
    ]
    assert len(said) > 500
    assert [text for text in said if redacted(text) != text] == []


@ONCE
@given(st.text(st.characters(exclude_characters=":=@%-_?&#;\x1b\x9b"), max_size=200))
def test_text_without_the_marks_of_secrets_is_unchanged(text: str) -> None:
    if "earer" not in text.lower() and "asic" not in text.lower() and "AIza" not in text:
        assert redacted(text) == text


SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\0*"), min_size=8, max_size=60)
FORMS = {
    "as it is": lambda secret: secret,
    "in a URL": lambda secret: quote(secret, safe=""),
    "in a path": quote,
    "in a form": quote_plus,
    "in JSON": json.dumps,
    "in JSON, in its own script": lambda secret: json.dumps(secret, ensure_ascii=False),
    "as Python shows it": repr,
    "in JSON as PHP writes it": lambda secret: json.dumps(secret).replace("/", "\\/"),
    "in hex": lambda secret: secret.encode().hex(),
    "in capital hex": lambda secret: secret.encode().hex().upper(),
    "in base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "in base64 for URLs": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
    "in basic authentication": lambda secret: base64.b64encode(b"user:" + secret.encode()).decode(),
}


@ONCE
@given(SECRETS, st.sampled_from(sorted(FORMS)), st.sampled_from(["MY_TOKEN", "db_password", "AWS_SECRET_ACCESS_KEY"]))
def test_no_value_of_a_secret_variable_survives(secret: str, form: str, name: str) -> None:
    if not secret.strip() or secret.strip().casefold() in COMMON:
        return
    written = FORMS[form](secret)
    inner = written[1:-1] if form.startswith(("in JSON", "as Python")) else written.rstrip("=")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, secret)
        found = redacted(f"before {written} after")
    assert found.startswith("before ") and found.endswith(" after")
    assert inner not in found and GONE in found


@ONCE
@given(st.text("abcXYZ019+/&?#= ", min_size=8, max_size=30))
def test_no_password_of_a_url_in_the_environment_survives(password: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REVIEWS", f"postgresql://me:{quote(password, safe='')}@db.example/reviews")
        assert password not in redacted(f"<{password}>")
        assert quote(password, safe="") not in redacted(f"'{quote(password, safe='')}' is wrong")


@ONCE
@given(st.text("abcXYZ019+/&?#=", min_size=8, max_size=30), st.data())
def test_no_code_for_a_terminal_hides_a_secret(secret: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(1, len(secret) - 1))
    code = data.draw(
        st.sampled_from(["\x1b[0m", "\x1b[38;5;196m", "\x1b[K", "\x9b1m", "\x1b]0;t\x07", "\x1b(B", "\x1b\x1b[m"])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_TOKEN", secret)
        assert redacted(f"<{secret[:place]}{code}{secret[place:]}>") == f"<{GONE}>"


def test_a_key_in_the_environment_is_found_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [base64.b64encode(bytes([number]) * 48).decode() for number in range(3)]
    monkeypatch.setenv("DEPLOY_PRIVATE_KEY", "\n".join(["-----BEGIN KEY-----", *lines, "-----END KEY-----"]))
    assert [redacted(f"  {line}") for line in lines] == ["  ***"] * 3


def test_what_is_no_secret_in_spite_of_its_name_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {
        "TOKENIZERS_PARALLELISM": "parallel",
        "USE_AUTH": "true",
        "DB_PASSWORD": "abc",
        "SERVER_AUTH": "disabled",
        "GIT_AUTHOR_NAME": "Jane Doe",
        "SSH_AUTH_SOCK": "/etc/passwd",
        "MASKED_SECRET": "********",
    }
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    said = " ".join(words.values())
    assert redacted(said) == said


def test_a_variable_set_meanwhile_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redacted("opensesame") == "opensesame"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "opensesame")
    assert redacted("opensesame") == GONE
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    assert redacted("opensesame") == "opensesame"


HOSTILE = (
    *("a", "A1", "://", "://a:", "://a:b@", "@", "%25", "%3A%2F%2Fa", "?a", "&token=", "&token=a", "=", "password='"),
    *("password=", "password: 'a", 'password="', "password=\\'", "password='\\'", "password:   ", "token: a", "--"),
    *("--password ", "--password '", "--a ", "-", "\x1b", "\x1b[", "\x1b[0", "\x1b]", "\x1b]a", "\x9b0", "\x1b("),
    *("eyJaaaaaaaa", "eyJaaaaaaaa.", "sk-", "sk-aaaaaaaa ", "hf_", "hooks.slack.com/", 'api_key"   '),
    *("bearer ", "basic aaaaaaaaaaaaaaaaaaaaaaaaa ", "authorization: ", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----"),
)


@pytest.mark.parametrize("part", HOSTILE)
def test_a_long_hostile_line_takes_linear_time(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "a" * 8)
    seconds = []
    for length in (100_000, 1_600_000):
        line = (part * (length // len(part) + 1))[:length]
        started = time.process_time()
        redacted(line)
        seconds.append(time.process_time() - started)
    assert seconds[1] < 60 * max(seconds[0], 0.002), "16 times the length takes about 16 times as long, not 256 times"
