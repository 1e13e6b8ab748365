"""The file of keys: what is read, what is refused by name, what is written."""

import stat
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from trellis.cli import keys
from trellis.gateway.access.key_file import KeyFileError, digest, new_key, read_keys

DIGEST = digest("test")
WRONG = {
    "": "the file: Input should be a valid dictionary",
    "keys: [": "line 1: no YAML or JSON",
    "{}": "keys: Field required",
    "keys: {a: {}}": "keys.a.sha256: Field required",
    "keys: {a: {sha256: trellis-secret}}": "keys.a.sha256: no SHA-256 of a key",
    f"keys: {{a: {{sha256: {DIGEST}, rpm: 3}}}}": "keys.a.rpm: Extra inputs",
    f"keys: {{a: {{sha256: {DIGEST}, requests_per_minute: -1}}}}": "keys.a.requests_per_minute",
    f"keys: {{a: {{sha256: {DIGEST}, requests_per_minute: '3'}}}}": "valid integer",
    f"keys: {{'a b': {{sha256: {DIGEST}}}}}": "a name has 1 to 64",
    f"keys: {{a: {{sha256: {DIGEST}}}, b: {{sha256: {DIGEST}}}}}": "the same as that of a",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named_and_no_key_is_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(KeyFileError) as refused:
        read_keys(path)
    assert WRONG[text] in str(refused.value)
    assert str(refused.value).startswith(str(path))
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"none\.yaml"):
        read_keys(tmp_path / "none.yaml")


def test_json_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(f'{{"keys": {{"a": {{"sha256": "{DIGEST}", "tokens_in_flight": 5}}}}}}')
    assert read_keys(path)["a"].tokens_in_flight == 5


def test_keys_are_random_and_long() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert {len(key) for key in made} == {51}


def trellis_keys(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer(add_completion=False)
    app.command()(keys.main)
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.stdout, done.stderr


def test_the_command_shows_a_key_once_and_keeps_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    file = ("--file", str(path))
    status, key, _ = trellis_keys("add", "alice", *file, "--requests-per-minute", "60")
    assert status == 0
    assert trellis_keys("add", "bob", *file)[0] == 0
    key = key.strip()
    assert key not in path.read_text()
    entry = read_keys(path)["alice"]
    assert (entry.sha256, entry.requests_per_minute) == (digest(key), 60)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert trellis_keys("list", *file)[1] == "alice: requests_per_minute 60\nbob: no limits\n"
    assert trellis_keys("remove", "alice", *file)[0] == 0
    assert list(read_keys(path)) == ["bob"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add",), "add: give the NAME"),
        (("list", "alice"), "list: takes no NAME"),
        (("add", "bob"), "there is a key bob"),
        (("remove", "eve"), "there is no key eve; there are: bob"),
        (("add", "b b"), "a name has 1 to 64"),
    ],
)
def test_the_command_says_what_it_cannot_do(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    file = ("--file", str(tmp_path / "keys.yaml"))
    trellis_keys("add", "bob", *file)
    status, shown, error = trellis_keys(*arguments, *file)
    assert (status, shown) == (1, "")
    assert said in error
    assert list(read_keys(tmp_path / "keys.yaml")) == ["bob"]
