"""What of a diff nobody else should read: files that hold secrets by their name, and lines that look like one.

The tokens of many services, passwords between quotes and URLs with a password are detect-secrets' to know; its plugins
for entropy are left out: hashes are no secrets. Here are whole private keys, values without quotes, newer tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from besom.withheld import TOKEN_FORMS

FILES = (
    *(".env", ".env.*", "*.env", ".envrc", "*secret*", "credentials*", "*credentials", "*credentials.*"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "*.tfstate", "*.ovpn"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "kubeconfig*", "service-account*.json"),
    *(".netrc", "_netrc", ".npmrc", ".pypirc", ".pgpass", ".my.cnf", ".htpasswd", ".dockercfg", ".git-credentials"),
)
FOLDERS = (".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", ".gcloud")

LEFT_OUT = b"<left out: looks like a secret>"
TOO_LONG = b"<left out: too long to be looked through for secrets>"
MOST_CHARACTERS = 4000
"""Of a line that is looked through: the rules are regular expressions."""

WORDS = (
    r"pass(?:word|wd|phrase)?|pwd|secret|(?:api|access|auth|account|service|private|client|encryption)[_-]?key|"
    r"(?:api|access|auth|refresh|bearer|hf|hub|github|gitlab|slack|wandb|bot)[_-]?token|client[_-]?secret"
)
NAMED = re.compile(
    rf"""(?ix) (?:^|[\W_]) (?:{WORDS}) ["']? \s* (?P<sign>[:=]|=>) \s*
    (?P<value>[^\s"'()\[\]{{}}<>,;]{{6,}}) \s* ,? \s* (?:\#.*)? $"""
)
"""A name that says what it holds, and a value without quotes; calls, lists and templates are no values."""
LONE_TOKEN = re.compile(r"""(?ix) ^ \W* token ["']? \s* [:=] \s* ["']? (?=\S*\d) [\w.-]{16,}""")
TOKENS = re.compile(rf"(?x) \b (?: {TOKEN_FORMS} )")
URL = re.compile(r"://[^\s:/@'\"\[\]]*:[^\s@'\"{}$\[\]]+@")
BEGIN_OF_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
END_OF_KEY = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
KEYS_BODY = re.compile(r"""["']?[A-Za-z0-9+/]{60,}={0,2}(?:\\n)?["']?,?""")
"""A line of nothing else: where a hunk begins in the middle of a key."""

CODE = (".py", ".pyi")
"""Files in which a name behind ``=`` is a variable and one behind ``:`` a type, unless it has a digit in it."""
NO_VALUE = re.compile(r"(?i)(?:null|none|true|false|str|bytes|optional|\?\?\?|\$.*|\*+|x+|\d{1,5})$")


def is_secret_file(name: str) -> bool:
    """Tell whether a file holds secrets by its name, such as ``deploy/.env`` or ``id_rsa``; case does not count."""
    path = PurePosixPath(name.lower())
    return any(fnmatch(path.name, pattern) for pattern in FILES) or any(folder in FOLDERS for folder in path.parts[:-1])


def looks_secret(text: str, file: str = "") -> bool:
    """Tell whether a line looks as if it held a secret.

    Args:
        file: the name of the file that it is in; in code a value has quotes.
    """
    if TOKENS.search(text) or URL.search(text) or LONE_TOKEN.search(text) or KEYS_BODY.fullmatch(text.strip()):
        return True
    if (named := NAMED.search(text)) and not NO_VALUE.match(named["value"]):
        is_code = PurePosixPath(file).suffix.lower() in CODE
        if not is_code or (named["sign"] == ":" and re.fullmatch(r"(?=.*\d)(?=.*[A-Za-z])[^.]+", named["value"])):
            return True
    return any(found for analyze in _plugins() for found in analyze(text))


@cache
def _plugins() -> tuple[Callable[[str], Iterable[str]], ...]:
    """Return what finds secrets in a line; imported where there is a line (0.1 s)."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.high_entropy_strings import HighEntropyStringsPlugin
    from detect_secrets.plugins.ip_public import IPPublicDetector

    known: Mapping[str, Any] = get_mapping_from_secret_type_to_class()
    others = (HighEntropyStringsPlugin, IPPublicDetector)
    return tuple(kind().analyze_string for kind in known.values() if not issubclass(kind, others))


def redacted(diff: bytes) -> tuple[bytes, list[str]]:
    """Return a diff without what looks like a secret, and the names of the files to which it no longer applies.

    A line that is replaced keeps its ``+``, ``-`` or space.
    """
    lines: list[bytes] = []
    files: dict[str, None] = {}
    for file, piece in _pieces(diff):
        if file is None:
            lines += piece
            continue
        marks = _marks([line[1:].decode("utf-8", "replace") for line in piece], file)
        lines += [line[:1] + mark if mark else line for line, mark in zip(piece, marks, strict=True)]
        files |= {file: None} if any(marks) else {}
    return b"\n".join(lines), list(files)


def _pieces(diff: bytes) -> Iterator[tuple[str | None, list[bytes]]]:
    """Yield the lines of a diff, hunk by hunk, with the name of their file; those between hunks with None."""
    file, hunk, is_in_hunk = "", list[bytes](), False
    for line in diff.split(b"\n"):
        if is_in_hunk and line[:1] in (b"+", b"-", b" ", b"\\"):
            hunk.append(line)
            continue
        yield file, hunk
        hunk, is_in_hunk = [], line.startswith(b"@@ ")
        if line.startswith(b"diff --git "):
            file = _name_in(line)
        yield None, [_without_quotation(line) if is_in_hunk else line]
    yield file, hunk


def _name_in(header: bytes) -> str:
    """Return the name of a file out of ``diff --git a/NAME b/NAME``, where both are the same."""
    both = header.removeprefix(b"diff --git ").decode("utf-8", "replace")
    return both[: len(both) // 2].strip('"').removeprefix("a/")


def _without_quotation(line: bytes) -> bytes:
    """Return the start of a hunk without the line from further up that Git quotes in it: no patch needs it."""
    ranges, sign, _ = line[3:].partition(b" @@")
    return b"@@ " + ranges + sign


def _marks(texts: list[str], file: str) -> list[bytes]:
    """Return what each line of a hunk is to be replaced by, nothing for those that may stay."""
    marks = [_mark(text, file) for text in texts]
    for key in _keys(texts):
        marks[key.start : key.stop] = [LEFT_OUT] * len(key)
    return marks


def _mark(text: str, file: str) -> bytes:
    if len(text) > MOST_CHARACTERS:
        return TOO_LONG
    return LEFT_OUT if looks_secret(text, file) else b""


def _keys(texts: list[str]) -> Iterator[range]:
    """Yield the lines of each private key; of one that began before the hunk, those from its start."""
    begun, last = None, 0
    for place, text in enumerate(texts):
        if BEGIN_OF_KEY.search(text):
            begun = place
        if END_OF_KEY.search(text):
            yield range(last if begun is None else begun, place + 1)
            begun, last = None, place + 1
    if begun is not None:
        yield range(begun, len(texts))
