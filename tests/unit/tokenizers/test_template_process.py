"""A chat template that fails, or never ends, is the error of its own request, and soon."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.chat_folders import chat_folder
from trellis.tokenizers import Tokenizer, TokenizerError, load
from trellis.tokenizers.template_process import (
    MEMORY_LIMIT,
    PROCESSES,
    TEXT_LIMIT,
    TIME_LIMIT,
    TemplateFailedError,
    render_template,
)

USER = [{"role": "user", "content": "x"}]
LONG = "its text is longer"
MEMORY = "needs more than 256 MiB"
TIME = "took longer than 2 s"
RECURSION = "its recursion is too deep"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
GROWING = "{% set ns = namespace(v='x' * 9) %}{% for i in range(99999) %}"

BAD = {
    "division by zero": ("{{ 1 / 0 }}", "division by zero"),
    "a key of the wrong type": ("{{ {[]: 1} }}", "unhashable type"),
    "an attribute of nothing": ("{{ x.y.z }}", "'x' is undefined"),
    "no jinja": ("{% for %}", "Expected an expression"),
    "another file": ("{% include 'x' %}", "no loader"),
    "the sandbox": ("{{ messages.__class__.__mro__ }}", "unsafe"),
    "the sandbox, by attr": ("{{ (messages | attr('__class__')).__mro__ }}", "unsafe"),
    "a name of Python's": ("{{ __import__('os').system('true') }}", "'__import__' is undefined"),
    "a change of the messages": ("{{ messages.append(1) }}", "unsafe"),
    "loops": (ENDLESS, TIME),
    "one long step": ("{{ 9 ** (9 ** 9) }}", TIME),
    "a step of much output": ("{{ lipsum(n=10000000) }}", TIME),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", RECURSION),
    "a nested expression": ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", RECURSION),
    "a nested list": (
        GROWING + "{% set ns.v = [ns.v] %}{% endfor %}{{ ns.v }}",
        f"{RECURSION}|{TIME}|{MEMORY}",
    ),
    "a wide range": ("{{ range(10 ** 9) }}", "Range too big"),
    "repetition": ("{{ 'a' * 10 ** 10 }}", MEMORY),
    "a wide format": ("{{ '%99999999999d' % 1 }}", MEMORY),
    "a wide str.format": ("{{ '{:>9999999999}'.format(1) }}", MEMORY),
    "a wide centre": ("{{ 'a' | center(10 ** 10) }}", MEMORY),
    "doubling": (GROWING + "{% set ns.v = ns.v + ns.v %}{% endfor %}", MEMORY),
    "a quadratic join": (
        GROWING + "{% set ns.v = ns.v + ('x' * 9999) %}{{ ns.v | length }}{% endfor %}{{ ns.v }}",
        f"{TIME}|{MEMORY}|{LONG}",
    ),
    "long text": ("{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}", LONG),
    "a long complaint": ("{{ raise_exception('no' * 10 ** 7) }}", "nono"),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One with nothing wrong."""
    return load("gpt2", chat_folder(tmp_path_factory.mktemp("good"), "{{ messages[0].content }}"))


@pytest.mark.parametrize("tokenizer_type", ["gpt2", "auto"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_template_is_an_error_of_its_request_alone(
    name: str, tokenizer_type: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    template, complaint = BAD[name]
    bad = load(tokenizer_type, chat_folder(tmp_path, template))
    started = time.monotonic()
    with pytest.raises(TokenizerError, match=f"chat_template: .*({complaint})") as caught:
        bad.chat_prompt(USER)
    assert time.monotonic() - started < TIME_LIMIT + 3  # on a busy machine, with a new process
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert tokenizer.chat_prompt(USER) == "x"


def test_a_format_shows_nothing_of_python() -> None:
    assert render_template("{{ '{0.__class__}'.format(x) }}", {"x": "x"}) == ""


def test_as_much_text_as_is_allowed_is_rendered(tokenizer: Tokenizer) -> None:
    text = "é" * (TEXT_LIMIT - 1)
    assert tokenizer.chat_prompt([{"role": "user", "content": text}]) == text


def test_large_messages_do_not_count_as_the_templates_memory() -> None:
    most = MEMORY_LIMIT - 40_000_000
    source = "{{ messages | length }} {{ ('a' * most) | length }}"
    messages = ["x" * 1_000_000] * 60
    assert render_template(source, {"messages": messages, "most": most}) == f"60 {most}"


def test_messages_nested_too_deeply_are_an_error() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(TokenizerError, match="must be JSON"):
        render_template("{{ 1 }}", {"value": value})


def test_text_of_all_kinds_comes_through(tokenizer: Tokenizer) -> None:
    text = "".join(map(chr, range(0x300))) + "漢😀\u2028\ud800\x00"
    assert tokenizer.chat_prompt([{"role": "user", "content": text}]) == text


def test_many_threads_render_at_once_and_a_slow_template_holds_up_one_process() -> None:
    failed: list[str] = []
    done: list[str] = []

    def slow() -> None:
        try:
            render_template(ENDLESS, {})
        except TemplateFailedError as error:
            failed.append(str(error))

    def quick(index: int) -> None:
        done.extend(render_template("{{ x }}", {"x": index}) for _ in range(20))

    threads = [threading.Thread(target=slow)]
    threads += [threading.Thread(target=quick, args=(index,)) for index in range(2 * PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    assert not failed  # the slow one still runs
    threads[0].join()
    assert failed == [TIME]
    assert sorted(done) == sorted(str(index) for index in range(2 * PROCESSES) for _ in range(20))
    assert len(workers()) <= PROCESSES


def test_a_process_that_is_gone_is_replaced() -> None:
    render_template("{{ 1 }}", {})
    for each in workers():
        each.kill()
        each.wait(10)
    assert render_template("{{ 1 }}", {}) == "1"


def test_no_process_and_no_jinja_before_the_first_render(tmp_path: Path) -> None:
    code = f"""
        import sys
        import psutil
        from trellis.tokenizers import load
        tokenizer = load("gpt2", {str(chat_folder(tmp_path, "{{ messages[0].content }}"))!r})
        assert not psutil.Process().children()
        print(tokenizer.chat_prompt([{{"role": "user", "content": "x"}}]))
        assert len(psutil.Process().children()) == 1
        assert "jinja2" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "x\n", "")


@pytest.mark.parametrize("busy", [False, True])
def test_the_processes_end_with_a_parent_that_is_killed(busy: bool) -> None:
    code = f"""
        import os, sys, threading
        from trellis.tokenizers import template_process
        template_process.TIME_LIMIT = 4.0
        template_process.render_template("{{{{ 1 }}}}", {{}})
        print([c.pid for c in __import__("psutil").Process().children()][0], flush=True)
        if {busy}:
            template_process.render_template({ENDLESS!r}, {{}})
        sys.stdin.read()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.3)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    worker.wait(10)  # raises if it is still there


def test_a_forked_process_starts_its_own() -> None:
    render_template("{{ 1 }}", {})
    before = {each.pid for each in workers()}
    child = os.fork()
    if child == 0:
        try:
            text = render_template("{{ 2 }}", {})
            others = {each.pid for each in workers()}
            os._exit(0 if text == "2" and not others & before else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert render_template("{{ 3 }}", {}) == "3"
    assert before <= {each.pid for each in workers()}


def workers() -> list[psutil.Process]:
    """The processes that render templates for this one."""

    def found() -> Iterator[psutil.Process]:
        for child in psutil.Process().children():
            if any(part.endswith("template_worker.py") for part in child.cmdline()):
                yield child

    return list(found())
