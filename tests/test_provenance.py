"""What a trial's code and packages were: uncommitted changes of real repositories, without secrets; and versions."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from besom.provenance import git as git_module
from besom.provenance import uncommitted as uncommitted_module
from besom.provenance.git import WorkTree
from besom.provenance.origin import Origin
from besom.provenance.redaction import LEFT_OUT, TOO_LONG, is_secret_file, looks_secret, redacted
from besom.provenance.requirements import requirements
from besom.provenance.uncommitted import uncommitted

IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")


class Repository:
    """A real repository in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q")

    def git(self, *arguments: str | Path, code: int = 0, stdin: bytes | None = None) -> str:
        command = ["git", *IDENTITY, "-c", "protocol.file.allow=always", *map(str, arguments)]
        done = subprocess.run(command, cwd=self.path, capture_output=True, check=False, input=stdin, timeout=30)
        assert done.returncode == code, (command, done.stderr.decode())
        return done.stdout.decode()

    def write(self, name: str, content: str | bytes) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def commit(self, **files: str | bytes) -> str:
        for name, content in files.items():
            self.write(f"{name}.py", content)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a", "--allow-empty")
        return self.git("rev-parse", "HEAD").strip()

    def content(self) -> dict[str, bytes]:
        files = [file for file in self.path.rglob("*") if file.is_file() and ".git" not in file.parts]
        return {file.relative_to(self.path).as_posix(): file.read_bytes() for file in files}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    return Repository(tmp_path / "repository")


def text_of(repository: Repository, imported: Sequence[Path] = ()) -> str:
    found = uncommitted(repository.path, imported)
    assert found is not None
    return found.decode()


def given_back(repository: Repository, diff: bytes, folder: Path) -> dict[str, bytes]:
    """Return the files that a diff gives when it is applied on the commit, in a clone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    repository.git("clone", "-q", repository.path, folder)
    clone = Repository(folder)
    clone.git("apply", "-", stdin=diff)
    return clone.content()


# --- round trip


def test_the_diff_says_which_commit_it_is_for_and_gives_the_code_back(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(a="x = 1\n", b="y = 1\n")
    repository.write("a.py", "x = 2\n")
    new = repository.write("new.py", "z = 3\n")
    diff = uncommitted(repository.path, [new])
    assert diff is not None
    assert diff.decode().splitlines()[0] == f"# what differs from commit {commit}, for 'git apply'"
    assert given_back(repository, diff, tmp_path / "clone") == repository.content()


def test_what_is_staged_deleted_or_made_executable_comes_back_too(repository: Repository, tmp_path: Path) -> None:
    repository.commit(a="x = 1\n", b="y = 1\n", c="z = 1\n")
    repository.write("staged.py", "s = 1\n")
    repository.git("add", "staged.py")
    repository.git("rm", "-q", "b.py")
    (repository.path / "c.py").chmod(0o755)
    diff = uncommitted(repository.path)
    assert diff is not None
    assert given_back(repository, diff, tmp_path / "clone") == repository.content()
    assert os.access(tmp_path / "clone" / "c.py", os.X_OK)


NAMES = ("a.py", "with space.py", "모델/합성곱.py", "sub/b.py", "tab\t.py", 'quote".py')
contents = st.lists(
    st.sampled_from(["x = 1", "", "한글 = 2", "\ty", "z\r", "+", "-- a", "@@ -1 +1 @@", "diff --git a/x b/x", "\\ No"]),
    max_size=8,
).flatmap(lambda lines: st.sampled_from(["\n".join(lines), "\n".join(lines) + "\n"]))
trees = st.dictionaries(st.sampled_from(NAMES), contents | st.just(b"caf\xe9 = 1\n"), min_size=1)


@given(before=trees, after=trees)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_edits_come_back(
    before: dict[str, str | bytes],
    after: dict[str, str | bytes],
    repository: Repository,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("edits")
    tree = Repository(folder / "repository")
    for name, content in before.items():
        tree.write(name, content)
    tree.commit()
    for name in before:
        (tree.path / name).unlink()
    files = [tree.write(name, content) for name, content in after.items()]
    diff = uncommitted(tree.path, files)
    if diff is None:
        assert tree.git("status", "--porcelain") == ""
    else:
        assert given_back(tree, diff, folder / "clone") == tree.content()


def test_of_untracked_files_only_those_that_are_imported_are_in_it(repository: Repository) -> None:
    repository.commit(a="x = 1\n")
    imported = repository.write("mine.py", "m = 1\n")
    repository.write("other.py", "o = 1\n")
    repository.write("notes.txt", "n\n")
    text = text_of(repository, [imported])
    assert "+++ b/mine.py" in text
    assert "other" not in text
    assert "notes" not in text
    assert uncommitted(repository.path) is None


def test_imported_files_elsewhere_are_not_looked_at(repository: Repository, tmp_path: Path) -> None:
    repository.commit(a="x = 1\n")
    outside = tmp_path / "outside.py"
    outside.write_text("o = 1\n")
    (repository.path / "link.py").symlink_to(outside)
    assert uncommitted(repository.path, [outside, repository.path / "link.py", repository.path / "gone.py"]) is None


def test_nothing_without_a_repository_a_commit_or_a_change(repository: Repository, tmp_path: Path) -> None:
    assert uncommitted(tmp_path) is None
    repository.write("a.py", "x = 1\n")
    assert uncommitted(repository.path, [repository.path / "a.py"]) is None
    repository.commit()
    (repository.path / "a.py").touch()  # another time is no change
    assert uncommitted(repository.path) is None
    assert uncommitted(tmp_path / "gone") is None


def test_nothing_without_git(repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    repository.commit(a="x = 1\n")
    repository.write("a.py", "x = 2\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert uncommitted(repository.path) is None


def test_a_detached_head_and_a_subfolder_are_as_good(repository: Repository, tmp_path: Path) -> None:
    first = repository.commit(a="x = 1\n", b="y = 1\n")
    repository.commit(a="x = 2\n")
    repository.git("checkout", "-q", "--detach", first)
    repository.write("sub/inner.py", "i = 1\n")
    repository.write("b.py", "y = 2\n")
    found = uncommitted(repository.path / "sub", [repository.path / "sub" / "inner.py"])
    assert found is not None
    assert first in found.decode().splitlines()[0]
    assert {"+++ b/b.py", "+++ b/sub/inner.py"} <= set(found.decode().splitlines())


def test_a_linked_worktree_and_a_submodule_are_repositories_of_their_own(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit(a="x = 1\n")
    repository.git("worktree", "add", "-q", "-b", "other", tmp_path / "worktree")
    (tmp_path / "worktree" / "a.py").write_text("x = 3\n")
    outer = Repository(tmp_path / "outer")
    outer.git("submodule", "add", "-q", repository.path, "sub module")
    outer.commit()
    (outer.path / "sub module" / "a.py").write_text("x = 4\n")
    for folder, line in ((tmp_path / "worktree", "+x = 3"), (outer.path / "sub module", "+x = 4")):
        found = uncommitted(folder)
        assert found is not None
        assert line in found.decode().splitlines()
    assert uncommitted(outer.path) is None
    assert uncommitted(repository.path) is None


def test_a_diff_has_the_form_for_git_apply_whatever_the_user_prefers(repository: Repository, tmp_path: Path) -> None:
    repository.commit(a="x = 1\n" * 9, b="y = 1\n")
    for key, value in (
        ("diff.noprefix", "true"), ("diff.mnemonicPrefix", "true"), ("color.ui", "always"), ("diff.renames", "copies"),
        ("diff.context", "0"), ("diff.relative", "true"), ("diff.submodule", "log"), ("core.quotePath", "true"),
    ):  # fmt: skip
        repository.git("config", key, value)
    (repository.path / "b.py").rename(repository.path / "c.py")
    repository.write("a.py", "x = 1\n" * 4 + "x = 2\n" + "x = 1\n" * 4)
    diff = uncommitted(repository.path, [repository.path / "c.py"])
    assert diff is not None
    assert given_back(repository, diff, tmp_path / "clone") == repository.content()


# --- trust


def test_nothing_that_a_repository_names_is_run(repository: Repository, tmp_path: Path) -> None:
    repository.write(".gitattributes", "*.py diff=evil filter=evil\n*.txt filter=a=b.c\n")
    repository.write("c.txt", "1\n")
    repository.commit(a="x = 1\n")
    ran = tmp_path / "ran"
    program = repository.write(".git/evil.sh", f"#!/bin/sh\necho $0 >> '{ran}'\ncat\n")
    program.chmod(0o755)
    for key in (
        *("core.fsmonitor", "diff.external", "diff.evil.command", "diff.evil.textconv", "core.pager", "pager.diff"),
        *("filter.evil.clean", "filter.evil.process", "filter.evil.smudge", "filter.a=b.c.clean", "core.sshCommand"),
    ):
        repository.git("config", key, program)
    repository.git("config", "filter.evil.required", "true")
    ran.unlink(missing_ok=True)
    repository.write("a.py", "x = 2\n")
    repository.write("c.txt", "2\n")
    text = text_of(repository)
    assert {"+x = 2", "+2"} <= set(text.splitlines())
    assert not ran.exists()


def test_the_index_is_not_written(repository: Repository) -> None:
    repository.commit(a="x = 1\n")
    index = repository.path / ".git" / "index"
    before = index.read_bytes()
    os.utime(repository.path / "a.py", (1, 1))
    assert uncommitted(repository.path) is None
    assert index.read_bytes() == before


def test_a_work_tree_that_only_the_config_claims_is_none(repository: Repository, tmp_path: Path) -> None:
    repository.commit(a="x = 1\n")
    (tmp_path / "a.py").write_text("password\n")
    repository.git("config", "core.worktree", tmp_path)
    assert WorkTree.of(repository.path) is None


def test_a_hooks_variables_name_no_other_repository(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repository(tmp_path / "other")
    other.commit(a="x = 1\n")
    commit = repository.commit(a="x = 2\n")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    tree = WorkTree.of(repository.path)
    assert tree is not None
    assert tree.commit == commit


def test_a_git_that_hangs_is_not_waited_for(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.commit(a="x = 1\n")
    repository.write("a.py", "x = 2\n")
    real = subprocess.check_output(["which", "git"], text=True).strip()
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ncase "$*" in *numstat*) exec sleep 60;; esac\nexec {real} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(git_module, "SECONDS", 0.5)
    start = time.monotonic()
    assert text_of(repository) == f"# what differs from commit {commit} is not known: git diff ended with -9\n"
    assert time.monotonic() - start < 20


# --- what is left out


def test_binary_files_are_only_named_and_the_rest_applies(repository: Repository, tmp_path: Path) -> None:
    repository.write("한 그림.png", b"\0\1")
    repository.commit(a="x = 1\n")
    repository.write("한 그림.png", b"\0\2")
    repository.write("a.py", "x = 2\n")
    text = text_of(repository)
    assert text.splitlines()[1] == "# left out, binary: 한 그림.png"
    assert given_back(repository, text.encode(), tmp_path / "clone")["a.py"] == b"x = 2\n"


def test_a_diff_that_is_too_large_names_its_files_only(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.commit(a="x = 1\n")
    repository.write("a.py", "x = 2\n" * 1000)
    monkeypatch.setattr(uncommitted_module, "MOST_BYTES", 5000)
    assert text_of(repository).splitlines()[1:] == ["# left out, more than 5,000 bytes together: a.py"]


SECRET_FILES = (
    *(".env", "deploy/.env.local", "prod.env", "server.pem", "a/tls.KEY", "id_rsa", "id_rsa.pub", "id_ed25519"),
    *("credentials", "credentials.json", "aws_credentials.csv", "my_secrets.py", "SecretSauce.yaml", ".netrc"),
    *(".npmrc", ".pypirc", "kubeconfig", "kubeconfig.yaml", "home/.ssh/config", ".aws/config", "x.tfstate"),
)
OTHER_FILES = ("train.py", "environment.yml", "keys.py", "monkey.py", "src/env.py", "model.keras", "pem.py")


@pytest.mark.parametrize("name", SECRET_FILES)
def test_files_that_hold_secrets_are_known_by_their_names(name: str) -> None:
    assert is_secret_file(name)


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files_are_not(name: str) -> None:
    assert not is_secret_file(name)


def test_files_that_hold_secrets_are_left_out_and_named(repository: Repository, tmp_path: Path) -> None:
    repository.write("deploy/.env", "A=1\n")
    repository.commit(a="x = 1\n")
    repository.write("deploy/.env", "A=tr0ub4dor\n")
    repository.write("a.py", "x = 2\n")
    imported = repository.write("app_secrets.py", "K = 'tr0ub4dor'\n")
    text = text_of(repository, [imported])
    assert "tr0ub4dor" not in text
    assert text.splitlines()[1] == "# left out, a secret by its name: deploy/.env, app_secrets.py"
    assert given_back(repository, text.encode(), tmp_path / "clone")["a.py"] == b"x = 2\n"


# in two halves, so that nobody's scanner takes this file for a leak
SECRETS = {
    "a password": 'password = "correct horse"',
    "a password in a call": 'connect(user, password="hunter2")',
    "a password of YAML": "db_password: tr0ub4dor",
    "a key of YAML": "api_key: abcd1234efgh",
    "a key between quotes": "api_key = 'abcd1234efgh'",
    "a key of an environment": "export API_KEY=abcdefghijkl",
    "AWS": "key_id = 'AKIA" + "IOSFODNN7EXAMPLE'",
    "GitHub": "gh = 'ghp_" + "a1B2" * 9 + "'",
    "Slack": "hook = 'xoxb" + "-123456789012-abcdefABCDEF'",
    "OpenAI": "key = 'sk-" + "proj-" + "a1B2" * 10 + "'",
    "Hugging Face": "login('hf_" + "aB1" * 11 + "')",
    "Google": "maps = 'AIza" + "B1c-" * 8 + "Xyz'",
    "a web token": "t = 'eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P'",
    "a URL": "uri = 'postgresql://me:tr0ub4dor@db/optuna'",
    "a URL without a user": "redis://:tr0ub4dor@cache:6379/0",
    "a token": "token: 0123456789abcdefgh",
    "a comment in code": "# api_key: abcd1234efgh",
}
HARMLESS = (
    "x = Dense(84, activation='swish')(x)",
    "password = get_password()",
    "self.password = password",
    "def login(user: str, password: str) -> None:",
    'password = os.environ["DB_PASSWORD"]',
    "api_key: str",
    "api_key: str | None = None",
    "tokens = 1000",
    "pad_token = '[PAD]'",
    "max_tokens: 4096",
    "key = 'kernel_size'",
    "keys=[1, 2, 3]",
    "digest = 'd0" + "0f" * 31 + "'",
    "uri: sqlite:///mlruns/studies.db",
    "url = f'http://{host}:{port}/'",
    "see https://example.com/a@b",
    "secret_key_length = 12",
    "",
)


@pytest.mark.parametrize("what", SECRETS)
def test_a_line_that_holds_a_secret_is_found(what: str) -> None:
    assert looks_secret(SECRETS[what])


@pytest.mark.parametrize("line", HARMLESS)
def test_a_line_of_code_is_not(line: str) -> None:
    assert not looks_secret(line, "train.py")


def test_a_value_of_a_settings_file_needs_no_digit(repository: Repository) -> None:
    assert looks_secret("  password: correcthorse", "conf/db.yaml")
    assert not looks_secret("  password: correcthorse", "conf/db.py")
    assert not looks_secret("  password: ${oc.env:PASSWORD}", "conf/db.yaml")
    assert not looks_secret("  password: null", "conf/db.yaml")


def test_lines_with_secrets_keep_their_sign_and_the_head_says_where(repository: Repository) -> None:
    repository.write("conf/db.yaml", "user: me\npassword: before1\n")
    commit = repository.commit(a="x = 1\n")
    repository.write("conf/db.yaml", "user: you\npassword: after12\n")
    repository.write("a.py", "x = 2\n")
    lines = text_of(repository).splitlines()
    assert lines[0] == (
        f"# what differs from commit {commit}; it no longer applies to conf/db.yaml: "
        "lines that may be secrets are left out"
    )
    mark = LEFT_OUT.decode()
    assert lines[-4:] == ["-user: me", f"-{mark}", "+user: you", f"+{mark}"]
    assert "+x = 2" in lines


def test_no_part_of_a_private_key_is_left(repository: Repository) -> None:
    body = [f"{'MIIEvQIBADANBgkq' * 4}" for _ in range(12)] + ["short"]
    kind = "RSA PRIVATE" + " KEY"
    key = [f"-----BEGIN {kind}-----", *body, f"-----END {kind}-----"]
    repository.write("a.txt", "\n".join(["before", *key, "after"]) + "\n")
    repository.commit()
    changed = [*key[:7], "MIIEvQIBADANBgkr" * 4, *key[8:]]  # this hunk begins and ends in the middle
    repository.write("a.txt", "\n".join(["before", *changed, "after", 'K = """', *key, '"""', "end"]) + "\n")
    text = text_of(repository)
    assert not re.search("MII|short|PRIVATE", text)
    assert {" after", "+end"} <= set(text.splitlines())


def test_the_line_that_a_hunk_quotes_is_looked_at_too(repository: Repository) -> None:
    before = 'password = "correct horse"\n' + "x = 1\n" * 20
    repository.commit(a=before)
    repository.write("a.py", before + "y = 1\n")
    assert "correct" not in text_of(repository)


def test_a_name_that_looks_like_a_secret_still_names_its_file(repository: Repository, tmp_path: Path) -> None:
    repository.write("password: tr0ub4dor", "1\n")
    repository.commit()
    repository.write("password: tr0ub4dor", "2\n")
    diff = uncommitted(repository.path)
    assert diff is not None
    assert given_back(repository, diff, tmp_path / "clone") == repository.content()


def test_a_line_that_is_too_long_to_be_looked_through_is_left_out() -> None:
    diff = b"diff --git a/n.ipynb b/n.ipynb\n@@ -0,0 +1,2 @@\n+" + b"x" * 5000 + b"\n+y\n"
    text, files = redacted(diff)
    assert text.splitlines()[2:] == [b"+" + TOO_LONG, b"+y"]
    assert files == ["n.ipynb"]


@given(st.lists(st.sampled_from([*SECRETS.values(), *HARMLESS]), max_size=6))
@settings(deadline=None, max_examples=30)
def test_a_redacted_diff_has_as_many_lines_and_holds_no_secret(lines: list[str]) -> None:
    diff = "\n".join(["diff --git a/b.py b/b.py", f"@@ -0,0 +1,{len(lines)} @@", *(f"+{line}" for line in lines)])
    text, _ = redacted(diff.encode())
    shown = text.decode().splitlines()
    assert len(shown) == len(diff.splitlines())
    assert not [line for line in shown[2:] if looks_secret(line[1:], "b.py")]


# --- once a process, and packages


def test_what_was_there_when_the_process_first_asked_is_what_counts(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository.commit(a="x = 1\n")
    repository.write("a.py", "x = 2\n")
    monkeypatch.chdir(repository.path)
    first = Origin.taken(())
    repository.write("a.py", "x = 3\n")
    assert Origin.taken(()) == first
    first.write(tmp_path)
    assert b"+x = 2" in (tmp_path / "uncommitted.diff").read_bytes()
    Origin(None, "a==1\n").write(tmp_path / "repository")
    assert sorted(file.name for file in repository.path.iterdir() if file.name != ".git") == [
        "a.py",
        "requirements.txt",
    ]


def test_the_files_of_a_builder_that_is_not_imported_yet_are_in_it(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(a="x = 1\n")
    repository.write("own_net.py", "import own_shapes\n")
    repository.write("own_shapes.py", "WIDTH = 1\n")
    monkeypatch.chdir(repository.path)
    monkeypatch.syspath_prepend(str(repository.path))
    diff = Origin.taken(("own_net.build",)).diff
    assert diff is not None
    assert {"+++ b/own_net.py", "+++ b/own_shapes.py"} <= set(diff.decode().splitlines())
    assert "own_net" not in sys.modules


def test_requirements_are_every_installed_distribution_pinned_and_sorted() -> None:
    first, *lines = requirements().splitlines()
    assert re.fullmatch(r"# besom==\S+, commit ([0-9a-f]{40}(, with uncommitted changes)?|unknown)", first)
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    names = [pin.name for pin in pins]
    assert names == [canonicalize_name(name) for name in names]
    assert lines == sorted(lines, key=lambda line: line.removeprefix("# ").partition("==")[0])
    installed = {canonicalize_name(one.metadata["Name"]) for one in distributions()} - {"besom"}
    assert installed == {line.removeprefix("# ").partition("==")[0] for line in lines}
    assert "://" not in requirements()


ABOUT: dict[str, tuple[dict[str, object] | None, str]] = {
    "from an index": (None, "mine-own==1.2"),
    "out of a folder": (
        {"url": "file:///home/me/mine", "dir_info": {"editable": True}},
        "# mine-own==1.2, installed from a folder",
    ),
    "from a wheel with a password": ({"url": "https://me:tr0ub4dor@example.com/a.whl"}, "mine-own==1.2"),
}


@pytest.mark.parametrize("what", ABOUT)
def test_a_distribution_is_a_line_without_its_address(what: str, tmp_path: Path) -> None:
    about, line = ABOUT[what]
    info = tmp_path / "Mine_Own-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Mine_Own\nVersion: 1.2\n")
    (tmp_path / "broken-3.dist-info").mkdir()
    if about is not None:
        (info / "direct_url.json").write_text(json.dumps(about))
    code = f"import sys; sys.path.append({str(tmp_path)!r})\n" + (
        "from besom.provenance.requirements import requirements; print(requirements())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert line in done.stdout.splitlines()
    assert "broken" not in done.stdout
    assert "tr0ub4dor" not in done.stdout


def test_provenance_imports_nothing_heavy() -> None:
    code = "import sys, besom.provenance.origin as o; o.Origin.taken(()); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"tensorflow", "keras", "mlflow", "pandas", "optuna", "hydra"} & set(done.stdout.split())
