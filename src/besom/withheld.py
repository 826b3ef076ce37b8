"""What is kept out of every message, log and reason: passwords in URLs, tokens, values of variables that hold secrets.

An exception of somebody's library quotes the URL that it could not reach, and its message would go into a log, a study,
a tag and a report. Only text; knows nothing of where a message goes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MARK = "***"
PASSWORDS = (
    re.compile(r"(?i)(https?://[^:/@?#\s]*:)([^/?#\s]+)(?=@)"),
    re.compile(
        r"(?i)([?&](?:(?:ssl)?password|passwd|pwd|(?:access_?)?token|api_?key|secret|sig|signature|"
        r"x-amz-(?:signature|security-token))=)([^&\s'\"<>]+)"
    ),
)
"""What comes before a password in a URL, and the password."""
BEFORE_AT = re.compile(r"(?<![^@\s])[^@\s]+(?=@)")
"""A whole run of characters that ends at an ``@``: so the time does not grow with the square of the text."""
WITH_SLASH = re.compile(
    r"(?i)(?: https?://[^:/@?#\s]*:(?!\d+[/?#]) | (?<!http)(?<!https)://[^:/@?#\s]*: )(?=.)", re.VERBOSE
)
"""In such a run, what comes before a password that may hold a slash: a database's, or one that should write %2F."""
SHORTEST = 6
"""Characters of a value that is looked for: shorter ones would be found in plain words."""
SHORTEST_REFUSED = 8
"""Likewise where finding it stops a command."""
SECRET_NAME = re.compile(
    r"(?ix) (?:^|_) (?: pass | \w*passwd | \w*password | \w*passphrase | pwd | secret | token | credentials?"
    r" | (?:api|access|auth|account|private|secret|signing|encryption|subscription|master)?_?key(?:_id)? | pat | jwt"
    r" | connection_?string | dsn | \w*webhook(?:_ur[il])? )"
    r" (?: _?\d+ )? $ | _secret_ | (?:^|_)apikey $ | ^mlflow_tracking_username $"
)
"""Names of environment variables that say that their value is nobody else's business."""
NO_SECRET_NAME = re.compile(
    r"(?i)^(?:old)?pwd$ | (?:^|_)(?:gpg|pgp|public|pub|host|primary|foreign|partition|sort|cache)_?key(?:_id)?$",
    re.VERBOSE,
)
"""Names that look like it and are of public things."""
SECRET_WHOLE = re.compile(r"(?i)(?:connection_?string|dsn|webhook(?:_ur[il])?)$")
"""Names of variables whose value is secret even where it is a URL, the whole of it."""
TOKEN_FORMS = (
    r"sk-[\w-]{20,} | hf_[A-Za-z0-9]{20,} | AIza[\w-]{35} | ya29\.[\w-]{20,} | glpat-[\w-]{20,}"
    r" | gh[pousr]_[A-Za-z0-9]{30,} | github_pat_\w{22,} | xox[abeprs]-[\w-]{10,} | dapi[0-9a-f]{32}"
    r" | A[SK]IA[0-9A-Z]{16}"
)
"""The forms that the tokens of some services have, wherever they come from; a part of a verbose expression."""
TOKENS = re.compile(rf"(?x) \b (?: {TOKEN_FORMS} ) \b")


def without_password(text: str) -> str:
    """Return a URI, or a message that quotes some, with ``***`` for each password."""
    for pattern in PASSWORDS:
        text = pattern.sub(r"\1***", text)
    return BEFORE_AT.sub(_without_its_end, text)


def _without_its_end(run: re.Match[str]) -> str:
    found = WITH_SLASH.search(run[0])
    return f"{run[0][: found.end()]}{MARK}" if found else run[0]


def passwords_in(uri: str) -> list[str]:
    """Return the passwords in a URI, as they are written there."""
    plain = [match[2] for pattern in PASSWORDS for match in pattern.finditer(uri)]
    runs = [(run[0], WITH_SLASH.search(run[0])) for run in BEFORE_AT.finditer(uri)]
    return plain + [run[found.end() :] for run, found in runs if found]


def withheld(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a text with ``***`` for each secret in it."""
    for value, _ in _secrets(_named(environ)):
        if value in text:
            text = text.replace(value, MARK)
    return TOKENS.sub(MARK, without_password(text))


def secret_in(text: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return what a text must not hold: the name of a variable whose value is in it, ``a password``, ``a token``."""
    for value, name in _secrets(_named(environ)):
        if value in text and len(value) >= SHORTEST_REFUSED:
            return name
    if without_password(text) != text:
        return "a password"
    return "a token" if TOKENS.search(text) else None


def _named(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the variables that may hold a secret; few, so that the rest is worked out once for each set of them."""
    return tuple((name, value) for name, value in environ.items() if "://" in value or _is_secret(name))


@cache
def _is_secret(name: str) -> bool:
    return SECRET_NAME.search(name) is not None and NO_SECRET_NAME.search(name) is None


@cache
def _secrets(named: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return each value to look for with its variable, in the forms that it has in URLs, too; longest first."""
    found = {form: name for name, text in named for value in _values(name, text) for form in _forms(value)}
    return tuple(sorted(found.items(), key=lambda item: -len(item[0])))


def _values(name: str, text: str) -> Iterator[str]:
    yield from passwords_in(text)
    if _is_secret(name) and ("://" not in text or SECRET_WHOLE.search(name)) and not _is_file(text):
        yield text
        yield from map(str.strip, text.splitlines())  # a last newline; a key of many lines, whatever joins them


def _is_file(text: str) -> bool:
    """Tell whether a value is a path, as that of ``GOOGLE_APPLICATION_CREDENTIALS``: which file it is no secret."""
    return os.path.exists(text)  # noqa: PTH110  # a Path of a long token raises


def _forms(value: str) -> Iterator[str]:
    """Yield a value as it is, as in URLs, and as Python and JSON write it."""
    written = repr(value)[1:-1]
    in_urls = {unquote(value), quote(value, safe=""), quote_plus(value)}
    for form in {value, *in_urls, written, written.replace("'", "\\'"), json.dumps(value)[1:-1]}:
        if len(form) >= SHORTEST:
            yield form


class DiscreetRecord(logging.LogRecord):
    """A line of a log without secrets, its traceback included, whatever handler and format it goes through."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[0] is not None and not self.exc_text:
            self.exc_text = withheld("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"))

    def getMessage(self) -> str:  # noqa: N802  # logging's name
        return withheld(super().getMessage())


def be_discreet() -> None:
    """Keep secrets out of every log of this process; for besom's own processes, never for those of other apps."""
    logging.setLogRecordFactory(DiscreetRecord)
