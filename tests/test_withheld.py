"""Secrets are left out of messages, reasons and logs: passwords in URLs, tokens, values of variables that hold them."""

from __future__ import annotations

import json
import logging
import time
from urllib.parse import quote

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from besom.errors import MOST_SHOWN, ConfigError, one_line, shown
from besom.judge import reason_of
from besom.results import TrialResult
from besom.uris import refuse_secrets
from besom.withheld import DiscreetRecord, secret_in, withheld

SECRET = "c4nary/with+odd=signs"


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_USERNAME",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN",
        "HF_TOKEN",
        "GITHUB_TOKEN",
        "OPENAI_API_KEY",
        "WANDB_API_KEY",
        "DB_PASSWORD",
        "PGPASSWORD",
        "MYSQL_PWD",
        "CLIENT_SECRET",
        "password",
        "AZURE_STORAGE_CONNECTION_STRING",
        "KAGGLE_KEY",
        "STRIPE_KEY",
        "SENTRY_DSN",
        "SLACK_WEBHOOK_URL",
        "JWT",
    ],
)
def test_the_value_of_a_variable_that_holds_a_secret_is_left_out_in_each_form(name: str) -> None:
    environ = {name: SECRET}
    for form in (SECRET, quote(SECRET, safe="")):
        assert withheld(f"cannot send {form} there", environ) == "cannot send *** there"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PWD", "/home/me/project"),
        ("OLDPWD", "/home/me/project"),
        ("HOME", "/home/me/project"),
        ("KEYBOARD", "qwertz-layout"),
        ("GPG_KEY", "A035C8C19219BA82"),
        ("SSH_PUBLIC_KEY", "ssh-ed25519 AAAAC3"),
        ("HF_TOKEN", "short"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/hostname"),
        ("SSH_AUTH_SOCK", "/tmp/agent.17"),
    ],
)
def test_other_values_stay(name: str, value: str) -> None:
    assert withheld(f"in {value} it is", {name: value}) == f"in {value} it is"


@pytest.mark.parametrize(
    "value",
    ["c4nary-token-value\n", "c4nary-one\nc4nary-two\n\n  c4nary-three\r\n", 'c4nary"q', "c4nary'q", "c4nary\\q'\"é"],
)
def test_a_secret_with_newlines_quotes_or_backslashes_is_left_out_however_it_is_written(value: str) -> None:
    environ = {"MLFLOW_TRACKING_TOKEN": value}
    joined, in_json = " ".join(value.split()), json.dumps({"a": value})
    for text in (value, joined, repr(value), repr([value, "'"]), in_json, repr(f'it\'s {value} "there"')):
        assert "c4nary" not in withheld(f"Invalid header: {text}", environ), text


def test_a_secret_with_a_newline_is_left_out_of_what_requests_says(monkeypatch: pytest.MonkeyPatch) -> None:
    token = "c4nary-token-value\n"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    with pytest.raises(requests.exceptions.InvalidHeader, match="c4nary") as refused:
        requests.get("http://127.0.0.1:9", headers={"Authorization": f"Bearer {token}"}, timeout=1)
    for text in (one_line(refused.value), shown(refused.value), reason_of(refused.value)):
        assert "c4nary" not in text


def test_the_whole_url_is_left_out_where_it_is_the_secret() -> None:
    environ = {
        "SLACK_WEBHOOK_URL": "https://hooks.example.com/T0/B0/c4nary",
        "SENTRY_DSN": "https://c4nary@example.com/1",
    }
    for value in environ.values():
        assert withheld(f"cannot post to {value}", environ) == "cannot post to ***"


@pytest.mark.parametrize("part", ["://a:", "http://a:", "http://a:b", "@://a:", "?token="])
def test_the_time_does_not_grow_with_the_square_of_the_text(part: str) -> None:
    begin = time.process_time()
    withheld(part * 40_000, {})
    assert time.process_time() - begin < 5, "it took minutes"


def test_a_message_that_is_cut_is_not_cut_within_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert "c4n" not in shown(OSError("x" * (MOST_SHOWN - 5) + SECRET))


def test_the_password_of_a_url_in_the_environment_is_left_out_alone_too() -> None:
    environ = {"DATABASE_URL": "postgresql://me:p%40ss%2Fword@host/db"}
    assert withheld("FATAL: p@ss/word, or p%40ss%2Fword, is wrong", environ) == "FATAL: ***, or ***, is wrong"


@pytest.mark.parametrize(
    "text",
    [
        "http://me:p@ss@word@host:5000/x",
        "HTTPS://:s3cret-word@host",
        "http://me:s3cret/word@host",
        "https://host/x.npz?X-Amz-Signature=s3cretword&y=1",
        "https://host/x?token=s3cretword",
        "hf_abcdefghijklmnopqrstuvwx",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_secrets_are_known_by_their_form(text: str) -> None:
    found = withheld(f"cannot use '{text}'", {})
    assert "***" in found
    assert not any(part in found for part in ("s3cret", "ss@word", "abcdefghijkl", "ABCDEFGHIJKL"))
    assert secret_in(text, {}) is not None


@given(st.text(max_size=200))
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    environ = {"HF_TOKEN": SECRET}
    if "://" not in text and "=" not in text and "_" not in text and "-" not in text and "A" not in text:
        assert withheld(text, environ) == text


def test_reasons_and_one_line_messages_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    error = OSError(f"no answer from http://me:{SECRET}@host,\n token {SECRET}")
    assert "c4nary" not in reason_of(error)
    assert "c4nary" not in one_line(error)
    assert "c4nary" not in str(TrialResult(0, "FAIL", reason=str(error)).reason)
    assert "c4n" not in one_line(OSError("x" * 170 + f" http://me:{SECRET}@host"))  # cut, but not within it


def test_a_log_holds_no_secret_nor_does_a_traceback_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    try:
        raise ValueError(f"bad {SECRET}") from OSError(f"cause {SECRET}")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = DiscreetRecord("x", logging.ERROR, __file__, 1, "sent %s", (SECRET,), info)
    text = logging.Formatter("%(message)s").format(record)
    assert text.startswith("sent ***\n")
    assert "ValueError: bad ***" in text
    assert "OSError: cause ***" in text
    assert "c4nary" not in text


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (SECRET, "the value of the environment variable HF_TOKEN"),
        ("https://me:longpassword@host/x.npz", "a password"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "a token"),
    ],
)
def test_a_config_that_holds_a_secret_is_refused_and_it_is_not_repeated(value: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"^data.token holds {what}; expected a config without secrets") as refused:
        refuse_secrets({"data.n": 3, "data.token": f"x {value}"}, {"HF_TOKEN": SECRET})
    assert value not in str(refused.value)


def test_a_short_password_that_is_a_plain_word_stops_no_config() -> None:
    refuse_secrets({"data.name": "digits"}, {"DB_PASSWORD": "digits"})
