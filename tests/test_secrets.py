"""No secret is anywhere afterwards, nor in the process list meanwhile: whole runs of besom, every file searched.

Canaries stand in every place that people put secrets in. The trials of the sweeps fail with them in their messages.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from conftest import ROOT, BesomCommand, Folder, until
from servers import answers, free_port, mlflow_server

pytestmark = pytest.mark.service

TOKEN, PASSWORD, USER = "c4n4ry-tok/en+1=", "c4n4ry-pa/ss@word", "c4n4ry-user"
SECRETS = {
    "MLFLOW_TRACKING_TOKEN": TOKEN,
    "AWS_ACCESS_KEY_ID": "c4n4ry-aws-id",
    "AWS_SECRET_ACCESS_KEY": "c4n4ry/aws+secret=",
    "AWS_SESSION_TOKEN": "c4n4ry-aws-session",
    "HF_TOKEN": "c4n4ry-hugging",
    "GITHUB_TOKEN": "c4n4ry-git-hub",
    "DATABASE_URL": "mysql://me:c4n4ry-mysql@127.0.0.1/db",
    "PGPASSWORD": "c4n4ry-postgres",
    "WANDB_API_KEY": "c4n4ry-wandb",
    "KAGGLE_KEY": "c4n4ry-kaggle\n",
    "SSH_PRIVATE_KEY": '-----BEGIN KEY-----\nc4n4ry-first\nc4n4ry-"second\\\n-----END KEY-----\n',
    "SLACK_WEBHOOK_URL": "https://127.0.0.1:1/c4n4ry-webhook",
}
STORAGE = f"postgresql://me:{quote(PASSWORD, safe='')}@127.0.0.1:1/optuna"
"""For `BESOM_STORAGE`: of a server that is not there, so no sweep gets far with it."""
NEEDLE = "c4n4ry"
"""All of them begin so; the halves of Base64 that it can turn into are looked for, too."""
FORMS = [
    NEEDLE.encode(),
    NEEDLE.encode("utf-16-le"),
    NEEDLE[::-1].encode(),
    *(base64.b64encode(b"x" * shift + NEEDLE.encode())[(shift * 8 + 5) // 6 + 1 : 8] for shift in range(3)),
]
MINE = """
import keras, logging, os, signal

CANARY = "".join(["c4n4", "ry"])  # this file is searched, too

def build(input_shape, n_classes, kind):
    secrets = [value for value in os.environ.values() if CANARY in value]
    if kind == 1:
        logging.getLogger("mine").warning("trying %s", secrets)
        raise OSError(f"cannot reach {os.environ['DATABASE_URL']} nor http://me:{CANARY}-url@host with {secrets}")
    if kind == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == 3:
        raise ValueError(secrets[0]) from KeyError(secrets[-1])
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Dense(n_classes, activation="softmax")(keras.layers.Flatten()(inputs)))
"""
SWEEP = """# @package _global_
# What becomes of secrets?
defaults:
  - override /model: mine
train: {epochs: 1}
data: {n_train: 100, n_val: 50}
hydra:
  mode: MULTIRUN
  sweeper:
    retries: 0
    max_failure_rate: 1.0
    sampler: {seed: 1}
    params: {model.kind: "choice(0,1,2,3)", train.seed: "choice(1,2)"}
    enqueue:
      - {model.kind: 0, train.seed: 1}
      - {model.kind: 1, train.seed: 1}
      - {model.kind: 2, train.seed: 1}
      - {model.kind: 3, train.seed: 1}
"""


def lay_out(path: Path) -> None:
    """Write a project with a builder that fails in several ways."""
    (path / "conf" / "model").mkdir(parents=True)
    (path / "sweeps").mkdir()
    (path / "conf" / "config.yaml").write_text((ROOT / "conf" / "config.yaml").read_text())
    (path / "conf" / "model" / "mine.yaml").write_text("_target_: mine.build\nkind: 0\n")
    (path / "mine.py").write_text(MINE)
    (path / "sweeps" / "mine.yaml").write_text(SWEEP)
    for name in ("home", "tmp"):
        (path / name).mkdir()


class ProcessList(threading.Thread):
    """Reads the command line of every process, again and again, and keeps those with a canary."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: set[str] = set()
        self.seen: set[str] = set()
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.02):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = file.read_bytes()
                except OSError:  # it has ended
                    continue
                name = Path(line.split(b"\0")[0].decode(errors="replace")).name
                self.seen.add(f"{name} {line!r}")
                if any(form in line for form in FORMS):
                    self.found.add(repr(line))

    def __enter__(self) -> ProcessList:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self.join()


def holders(content: bytes) -> bool:
    return any(form in content for form in FORMS)


def search(*folders: Path) -> tuple[int, list[str]]:
    """Return how many files and members of zip files were searched, and those with a canary in them."""
    searched, found = 0, []
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file() and not file.is_symlink()):
        contents = {str(file): file.read_bytes(), f"name of {file}": str(file).encode()}
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                contents |= {f"{file}!{name}": archive.read(name) for name in archive.namelist()}
        searched += len(contents) - 1
        found += [name for name, content in contents.items() if holders(content)]
    return searched, found


class Outputs:
    """besom run with the canaries in its environment; all that it says is kept."""

    def __init__(self, folder: Folder, env: dict[str, str]) -> None:
        self._folder, self.said = folder, ""
        own = {"HOME": str(folder.path / "home"), "TMPDIR": str(folder.path / "tmp"), "HYDRA_FULL_ERROR": "1"}
        self.env = {**SECRETS, **own, **env}

    def besom(self, *arguments: str, code: int = 0) -> str:
        done = self._folder.besom(*arguments, code=code, env=self.env)
        self.said += done.stdout + done.stderr
        return done.stdout


def test_the_search_would_find_a_canary_in_each_form(tmp_path: Path) -> None:
    secret = f"abc{TOKEN}"
    forms = [secret[shift:].encode() for shift in range(3)]
    texts = [forms[0], quote(secret, safe="").encode(), secret.encode("utf-16-le"), *map(base64.b64encode, forms)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_bytes(text)
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", secret)
    searched, found = search(tmp_path)
    assert searched == len(texts) + 2
    assert len(found) == len(texts) + 1
    assert not search(ROOT / "src" / "besom")[1]


def test_the_process_list_would_find_a_canary() -> None:
    with (
        ProcessList() as listed,
        subprocess.Popen([sys.executable, "-c", "input()", TOKEN], stdin=subprocess.PIPE) as one,
    ):
        until(lambda: bool(listed.found))
        one.kill()


def served(command: list[str], env: dict[str, str], folder: Path, address: str) -> subprocess.Popen[bytes]:
    """Start a server that prints into a file, and wait until it answers."""
    with (folder / "served.txt").open("wb") as said:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **env}, start_new_session=True, stdout=said, stderr=said
        )
    until(lambda: answers(address), 300)
    return process


@pytest.mark.timeout(1200)  # 70 s where nothing else runs
def test_a_whole_life_in_a_store_leaves_no_secret(tmp_path: Path, besom_command: BesomCommand) -> None:
    lay_out(tmp_path)
    run = Outputs(Folder(tmp_path, besom_command), {})
    with ProcessList() as listed:
        run.besom("sweep", "mine", "--trials", "4")
        assert run.besom("status", "mine").count("***") >= 1, "the last failure is told without its secrets"
        run.besom("train", "model=mine", "model.kind=3", "train.epochs=1", "--debug", code=2)
        run.besom("runs", "mine", "--all", "--format", "csv")
        run.besom("reproduce", "mine", "--allow", "mine")
        run.besom("confirm", "mine", "--top", "1", "--seeds", "2", "--no-test", "--allow", "mine")
        run.besom("report", "mine")
        run.besom("export", "mine", "exported", "--allow", "mine")
        run.besom("diff", "mine/0", "mine/1")
        run.env["BESOM_STORAGE"] = STORAGE
        for storage in ((), ("hydra.sweeper.storage=${oc.env:BESOM_STORAGE}",)):
            run.besom("sweep", "mine", *storage, "--name", "x", "--debug", code=2)
        del run.env["BESOM_STORAGE"]
        port = free_port()
        command = [sys.executable, "-m", "besom", "ui", "--port", str(port)]
        server = served(command, run.env, tmp_path, f"http://127.0.0.1:{port}")
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
        searched, found = search(tmp_path)
        assert not found
        assert searched > 100, f"only {searched} files were searched"
        run.besom("delete", "mine", "--yes")
    run.besom("sweep", "mine", f"+model.token={SECRETS['HF_TOKEN']}", "--name", "x", code=2)  # typed: it is listed
    assert not listed.found
    for started in ("besom", "forkserver", "mlflow", "gc"):
        assert any(started in line for line in listed.seen), f"no {started} was seen in the process list"
    assert not search(tmp_path)[1]
    assert not holders(run.said.encode()), run.said
    assert "***" in run.said


class Guard(BaseHTTPRequestHandler):
    """Passes a request on to a server if it has one of the right Authorization headers, else answers 401."""

    protocol_version = "HTTP/1.1"
    behind = 0
    right: tuple[str, ...] = ()
    let_in: list[str] = []  # noqa: RUF012  # of the class: one for all requests

    def answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        given = self.headers.get("Authorization", "")
        if self.path != "/health" and given not in self.right:
            self.reply(401, {}, b"no")
            return
        self.let_in.append(given)
        behind = HTTPConnection("127.0.0.1", self.behind, timeout=120)
        kept = {key: value for key, value in self.headers.items() if key.lower() not in ("authorization", "host")}
        behind.request(self.command, self.path, content, kept)
        found = behind.getresponse()
        self.reply(found.status, dict(found.getheaders()), found.read())
        behind.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  # http.server's names

    def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return None


@contextmanager
def guarded(folder: Path, right: tuple[str, ...]) -> Iterator[tuple[int, type[Guard]]]:
    """Give the port of a guard before a real MLflow server that keeps all in a folder."""
    with ExitStack() as stack:
        address = stack.enter_context(mlflow_server(folder, os.environ, 300))
        behind = int(address.rpartition(":")[2])
        guard = type("OneGuard", (Guard,), {"behind": behind, "right": right, "let_in": []})
        front = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), guard))
        threading.Thread(target=front.serve_forever, daemon=True).start()
        stack.callback(front.shutdown)
        yield front.server_address[1], guard


@pytest.mark.timeout(1200)
def test_a_server_that_asks_for_a_password_leaves_none(tmp_path: Path, besom_command: BesomCommand) -> None:
    lay_out(tmp_path)
    kept = tmp_path / "server"
    kept.mkdir()
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with ProcessList() as listed, guarded(kept, (basic, f"Bearer {TOKEN}")) as (port, guard):
        address = f"http://127.0.0.1:{port}"
        named = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD, "MLFLOW_TRACKING_TOKEN": ""}
        url = f"http://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}"
        for env, kind, code in (
            ({"MLFLOW_TRACKING_URI": url, **named}, 0, 0),
            ({"MLFLOW_TRACKING_URI": address}, 1, 2),
        ):
            run, before = Outputs(Folder(tmp_path, besom_command), env), len(guard.let_in)
            arguments = ("model=mine", f"model.kind={kind}", "train.epochs=1", "data.n_train=100", "--debug")
            run.besom("train", *arguments, code=code)
            assert len(guard.let_in) > before, "the server was asked, and let them in"
            assert not holders(run.said.encode()), run.said
        postgres = {"MLFLOW_TRACKING_URI": "postgresql://me:c4n4ry-pg@127.0.0.1:1/mlflow"}
        run = Outputs(Folder(tmp_path, besom_command), postgres)
        run.besom("train", "train.epochs=1", "data.n_train=100", "--debug", code=2)
        assert not holders(run.said.encode()), run.said
    run.besom("train", f"tracking.uri=http://x:{TOKEN}@127.0.0.1", code=2)  # typed: it is in the process list
    assert not holders(run.said.encode()), run.said
    assert {value.split()[0] for value in guard.let_in if value} == {"Basic", "Bearer"}
    assert not listed.found
    searched, found = search(tmp_path)
    assert not found
    assert searched > 40, f"only {searched} files were searched"
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if re.search(NEEDLE, " ".join(one.info["cmdline"] or ()))
    ]
