"""Secrets: none of the documented kinds survives in what is displayed, and nothing else changes."""

import os
import time

import pytest

from stages.common.redact import redacted


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret but those that a test plants."""
    monkeypatch.setattr(os, "environ", {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("push to https://me:s3cret@host:5000/path failed", "push to https://me:***@host:5000/path failed"),
        ("(postgresql+psycopg://me:se/cr@et@[::1]:5432/db)", "(postgresql+psycopg://me:***@[::1]:5432/db)"),
        ("https://ghp1234567890abcdef1234@github.com/x", "https://***@github.com/x"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("https://h/x?X-Amz-Signature=a%2Bb&n=3&token=zz9#top", "https://h/x?X-Amz-Signature=***&n=3&token=***#top"),
        ("hf_abcdefghijklmnopqrstuvwxyz", "***"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789, github_pat_11ABCDEFG0abcdefghijkl_abcdefg.", "***, ***."),
        ("glpat-abcdefghij0123456789 key=AKIAIOSFODNN7EXAMPLE xoxb-123456789012-abcdefABCDEF", "*** key=*** ***"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", "a *** b"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut off", "***"),
        ("hf_abcdefghijkl\x1b[31mmnopqrstuvwxyz\x1b[0m", "***"),
    ],
)
def test_what_has_the_shape_of_a_secret_is_not_shown(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected, "twice is once"


@pytest.mark.parametrize(
    "text",
    [
        "tokenize: done in 3.2 s; pad_token: [PAD], max_tokens=512, token_type_ids, password: what a word",
        "http://127.0.0.1:5000/#/experiments/1/runs/0123456789abcdef0123456789abcdef",
        "GET /get-history?run_uuid=012a3cc7&metric_key=loss&max_tokens=5",
        "http://host:8080/@user and http://[::1]:5000/@user and git@github.com:me/x.git",
        "ssh://git@github.com/me/x.git, sqlite:////tmp/a:b@c/mlflow.db, task-learning-rate-1-and-a-long-name-of-words",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_values_of_variables_named_like_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redacted("opensesame") == "opensesame"
    for name in ("MLFLOW_TRACKING_PASSWORD", "my_token", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "opensesame")
            patch.setenv("OTHER_TOKEN", "opensesame-and-more")
            assert redacted("opensesame opensesame-and-more") == "*** ***"
    monkeypatch.setenv("DEPLOY_PRIVATE_KEY", "-----BEGIN KEY-----\nMIIEabcdefgh\n-----END KEY-----")
    assert redacted("  MIIEabcdefgh") == "  ***", "a key in the environment is printed line by line"


@pytest.mark.parametrize("part", ["a", "://", "://a:", "://a:b@", "\x1b[", "xoxb-", "-----BEGIN PRIVATE KEY-----"])
def test_a_long_line_takes_linear_time(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "a" * 8)
    started = time.process_time()
    redacted(part * (1_600_000 // len(part)))
    assert time.process_time() - started < 2, "a pattern that goes back again and again would take minutes"
