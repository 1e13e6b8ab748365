"""Assembling again, over what is there, in every way that files can come: nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGUFWriter

from support.cli import run
from support.fake_engines import write_engine
from trellis.engine_files.engine_folder import read_engine
from trellis.files import CopyMode, place
from trellis.pipeline.hooks import FILE, HookError
from trellis.repository.assemble import Assembly, AssemblyError, Plan, assemble
from trellis.repository.model_config import parameters, parse_config
from trellis.tokenizers import load


@pytest.fixture
def plan(tmp_path: Path, llama_folder: Path) -> Plan:
    engine = read_engine(write_engine(tmp_path / "llama-out", "0.9.0"))
    return Plan(engine, "llama", llama_folder)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "triton_model_repo"


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file: inode, time of change, content."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_ino,
            path.lstat().st_mtime_ns,
            path.read_bytes(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rank(target: Path) -> Path:
    return target / "tensorrt_llm" / "1" / "rank0.engine"


def test_making_it_again_changes_nothing(plan: Plan, target: Path) -> None:
    assert assemble(plan, target) == Assembly(True)
    before = state(target)
    assert assemble(plan, target) == Assembly(False)
    assert state(target) == before
    assert sorted(path.name for path in target.parent.iterdir()) == [
        "llama-out",
        "triton_model_repo",
    ]


def test_a_new_setting_changes_what_it_must(plan: Plan, target: Path, tmp_path: Path) -> None:
    assemble(plan, target)
    before = state(target)
    settings = {"kv_cache_free_gpu_mem_fraction": "0.2"}
    assert assemble(
        Plan(plan.engine, "llama", plan.tokenizer_dir, settings=settings), target
    ).changed
    contents = {name: content for name, (_, _, content) in state(target).items()}
    changed = [name for name, content in contents.items() if content != before[name][2]]
    assert sorted(changed) == [".trellis.json", "tensorrt_llm/config.pbtxt"]


def test_what_trellis_did_not_make_stays(plan: Plan, target: Path) -> None:
    assemble(plan, target)
    (target / "ensemble" / "notes.txt").write_text("mine")
    (target / "my_model").mkdir()
    (target / "my_model" / "config.pbtxt").write_text('name: "my_model"')
    settings = {"triton_max_batch_size": "8"}
    assemble(Plan(plan.engine, "llama", plan.tokenizer_dir, settings=settings), target)
    assert (target / "ensemble" / "notes.txt").read_text() == "mine"
    assert (target / "my_model" / "config.pbtxt").read_text() == 'name: "my_model"'


def test_an_engine_that_was_built_again_over_its_files_is_taken_anew(
    plan: Plan, target: Path
) -> None:
    assemble(plan, target)
    (plan.engine.path / "rank0.engine").write_bytes(b"built again")  # the link's content as well
    assert assemble(plan, target).changed
    assert not assemble(plan, target).changed


def test_files_of_an_engine_that_is_no_longer_served_go(plan: Plan, target: Path) -> None:
    write_engine(plan.engine.path, "0.9.0", 2, mapping={"world_size": 2, "tp_size": 2})
    assemble(Plan(read_engine(plan.engine.path), "llama", plan.tokenizer_dir), target)
    assert (target / "tensorrt_llm" / "1" / "rank1.engine").exists()
    write_engine(plan.engine.path, "0.9.0")
    assemble(Plan(read_engine(plan.engine.path), "llama", plan.tokenizer_dir), target)
    assert not (target / "tensorrt_llm" / "1" / "rank1.engine").exists()
    assert (plan.engine.path / "rank1.engine").exists()


@pytest.mark.parametrize("mode", ["link", "copy", "symlink"])
def test_the_engine_comes_as_asked(plan: Plan, target: Path, mode: CopyMode) -> None:
    asked = Plan(plan.engine, "llama", plan.tokenizer_dir, copy=mode)
    assemble(asked, target)
    source = plan.engine.path / "rank0.engine"
    assert rank(target).read_bytes() == source.read_bytes()
    assert rank(target).is_symlink() == (mode == "symlink")
    assert rank(target).samefile(source) == (mode != "copy")
    assert not assemble(asked, target).changed


def test_an_unchanged_copy_is_not_copied_again(plan: Plan, target: Path, tmp_path: Path) -> None:
    source = plan.engine.path / "rank0.engine"
    assemble(Plan(plan.engine, "llama", plan.tokenizer_dir, copy="copy"), target)
    inode = rank(target).stat().st_ino
    settings = {"triton_max_batch_size": "8"}
    changed = Plan(plan.engine, "llama", plan.tokenizer_dir, settings=settings, copy="copy")
    assert assemble(changed, target).changed
    assert rank(target).stat().st_ino == inode
    source.write_bytes(b"another engine")
    assert assemble(changed, target).changed
    assert rank(target).read_bytes() == b"another engine"


def test_a_large_copy_shows_its_progress(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rank0.engine"
    with source.open("wb") as file:
        os.truncate(file.fileno(), (1 << 28) + 5)  # a hole: takes no room
    place(source, tmp_path / "copy", "copy")
    assert (tmp_path / "copy").stat().st_size == (1 << 28) + 5
    assert (tmp_path / "copy").stat().st_mtime_ns == source.stat().st_mtime_ns
    assert "rank0.engine" in capsys.readouterr().out
    (tmp_path / "copy").unlink()


@pytest.fixture
def unreadable(plan: Plan) -> Path:
    """An engine folder from which a file goes away while the repository is made."""
    file = plan.engine.path / "rank0.engine"
    file.unlink()
    return file


def test_a_failure_half_way_leaves_everything_as_it_was(
    plan: Plan, target: Path, unreadable: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        assemble(plan, target)
    assert [path.name for path in target.parent.iterdir()] == ["llama-out"]
    unreadable.write_bytes(b"back")
    assemble(plan, target)
    before = state(target)
    unreadable.unlink()
    settings = {"triton_max_batch_size": "8"}
    with pytest.raises(FileNotFoundError):
        assemble(Plan(plan.engine, "llama", plan.tokenizer_dir, settings=settings), target)
    assert state(target) == before


def test_a_folder_that_is_not_ours_is_left_alone(plan: Plan, target: Path) -> None:
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(AssemblyError, match="exists and was not made by `make repo`"):
        assemble(plan, target)
    assert [path.name for path in target.iterdir()] == ["thesis.txt"]


def test_the_mount_is_where_the_engine_will_be_found(plan: Plan, target: Path) -> None:
    for mount, expected in (("", str(target)), ("/triton_model_repo", "/triton_model_repo")):
        done = run(
            "assemble", "--engine", plan.engine.path, "--tokenizer=llama",
            "--tokenizer_dir", plan.tokenizer_dir, "--model_repo", target, f"--mount={mount}",
        )  # fmt: skip
        assert done.status == 0, done.output
        config = (target / "tensorrt_llm" / "config.pbtxt").read_text()
        assert f'string_value: "{expected}/tensorrt_llm/1"' in config


def test_what_was_found_is_said(plan: Plan, target: Path) -> None:
    done = run(
        "assemble", "--engine", plan.engine.path, "--tokenizer=llama",
        "--tokenizer_dir", plan.tokenizer_dir, "--model_repo", target,
    )  # fmt: skip
    assert (
        "TensorRT-LLM 0.9.0, bfloat16, TP 1 x PP 1, batch 8, input 2048, context 2560, beams 4,"
        " vocabulary 32000; tokenizer llama" in done.output
    )


def test_the_release_can_be_given(plan: Plan, target: Path) -> None:
    done = run(
        "assemble", "--engine", plan.engine.path, "--tokenizer=llama",
        "--tokenizer_dir", plan.tokenizer_dir, "--model_repo", target, "--trtllm=0.17.0",
    )  # fmt: skip
    assert done.status == 0, done.output
    config = (target / "tensorrt_llm" / "config.pbtxt").read_text()
    assert config.startswith("# Written by `make repo` for an engine of TensorRT-LLM 0.17.0")


def remake(plan: Plan, target: Path) -> Assembly:
    settings = {"triton_max_batch_size": "8"}
    return assemble(Plan(plan.engine, "llama", plan.tokenizer_dir, settings=settings), target)


def test_foreign_folders_and_links_stay_what_they_are(
    plan: Plan, target: Path, tmp_path: Path
) -> None:
    assemble(plan, target)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.pbtxt").write_text("name: 'x'")
    (target / "my_ensemble" / "1").mkdir(parents=True)
    (target / "linked").symlink_to(elsewhere)
    (target / "ensemble" / "dangling").symlink_to("nowhere")
    (target / "ensemble" / "config.txt").symlink_to(elsewhere / "config.pbtxt")
    assert remake(plan, target).changed
    assert (target / "my_ensemble" / "1").is_dir()
    assert (target / "linked").readlink() == elsewhere
    assert (target / "ensemble" / "dangling").is_symlink()
    assert (target / "ensemble" / "config.txt").is_symlink()
    assert sorted(p.name for p in target.parent.iterdir() if p.name.startswith(".")) == []


def test_a_foreign_file_in_the_way_of_a_new_one_is_named_not_replaced(
    plan: Plan, target: Path
) -> None:
    assemble(plan, target)
    manifest = target / ".trellis.json"
    made = json.loads(manifest.read_text())
    made["files"].pop("preprocessing/1/model.py")  # as if an older Trellis had not had it
    manifest.write_text(json.dumps(made))
    (target / "preprocessing" / "1" / "model.py").write_text("mine")
    with pytest.raises(AssemblyError, match=r"preprocessing/1/model\.py was put there"):
        remake(plan, target)
    assert (target / "preprocessing" / "1" / "model.py").read_text() == "mine"


def test_a_link_to_a_repository_stays_a_link(plan: Plan, target: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target.symlink_to(tmp_path / "real")
    assert assemble(plan, target).changed
    assert remake(plan, target).changed
    assert target.is_symlink()
    assert (tmp_path / "real" / "ensemble" / "config.pbtxt").is_file()


def test_an_engine_inside_the_repository_is_refused(plan: Plan, target: Path) -> None:
    assemble(plan, target)
    inside = read_engine(target / "tensorrt_llm" / "1")
    with pytest.raises(AssemblyError, match=r"ENGINE=.*lies inside REPO"):
        assemble(Plan(inside, "llama", plan.tokenizer_dir, copy="symlink"), target)


def test_another_way_of_copying_is_followed(plan: Plan, target: Path) -> None:
    assemble(Plan(plan.engine, "llama", plan.tokenizer_dir, copy="symlink"), target)
    assert rank(target).is_symlink()
    assert assemble(plan, target).changed
    assert not rank(target).is_symlink()


def test_what_a_killed_run_left_is_put_right(plan: Plan, target: Path) -> None:
    assemble(plan, target)
    (target / "notes.txt").write_text("mine")
    gone = 4_000_000  # above any process number
    target.rename(target.with_name(f".{target.name}.old.{gone}"))
    target.with_name(f".{target.name}.new.{gone}.x").mkdir()
    assert not assemble(plan, target).changed
    assert (target / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in target.parent.iterdir() if p.name.startswith(".")) == []


def test_named_chat_templates_come_along(plan: Plan, target: Path, tmp_path: Path) -> None:
    folder = tmp_path / "llama-tokenizer"
    shutil.copytree(plan.tokenizer_dir, folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assemble(replace(plan, tokenizer_dir=folder), target)
    for model in ("preprocessing", "postprocessing"):
        files = target / model / "1" / "tokenizer"
        assert (files / "additional_chat_templates" / "tool_use.jinja").read_text() == "tools"


def test_a_tokenizer_in_the_engines_own_folder_is_found(target: Path, tmp_path: Path) -> None:
    engine = tmp_path / "ir-out"
    engine.mkdir()
    for name in ("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml"):
        (engine / name).write_text("<net/>")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (engine / name).write_text("{}")
    assemble(Plan(read_engine(engine), "auto", engine), target)
    files = {path.name for path in (target / "preprocessing" / "1" / "tokenizer").iterdir()}
    assert files == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


def test_the_repository_of_another_engine_is_replaced_only_when_told_to(
    plan: Plan, target: Path, tmp_path: Path
) -> None:
    assemble(plan, target)
    before = state(target)
    other = replace(plan, engine=read_engine(write_engine(tmp_path / "other-out", "0.17.0")))
    with pytest.raises(AssemblyError, match=r"another engine, ENGINE=llama-out; .* REPLACE=1"):
        assemble(other, target)
    assert state(target) == before
    assert assemble(replace(other, replace=True), target).changed
    assert not assemble(other, target).changed


@pytest.mark.parametrize(
    ("key", "value"),
    [("parse_special_tokens", "false"), ("add_eos_token", "true"), ("extra_ids", "7")],
)
def test_an_option_of_the_tokenizer_reaches_both_of_its_models(
    plan: Plan, target: Path, key: str, value: str
) -> None:
    assemble(replace(plan, settings={key: value}), target)
    for model in ("preprocessing", "postprocessing"):
        config = parse_config((target / model / "config.pbtxt").read_text())
        assert parameters(config)[key] == value


def test_hooks_come_and_go_and_are_rejected_by_name(
    plan: Plan, target: Path, tmp_path: Path
) -> None:
    file = tmp_path / "my.py"
    copies = [target / model / "1" / FILE for model in ("preprocessing", "postprocessing")]
    file.write_text("def prompt(text): return text")
    assert assemble(replace(plan, hooks=file), target)
    assert not assemble(replace(plan, hooks=file), target)
    assert [copy.read_text() for copy in copies] == [file.read_text()] * 2
    for text in ("def other(text): return text", "def prompt(text)"):
        file.write_text(text)
        with pytest.raises(HookError, match=r"HOOKS=.*/my.py: "):
            assemble(replace(plan, hooks=file), target)
    with pytest.raises(HookError, match=r"HOOKS=no.py: No such file or directory"):
        assemble(replace(plan, hooks=Path("no.py")), target)
    assert assemble(plan, target)
    assert not any(copy.exists() for copy in copies)


def test_options_of_the_tokenizer_are_not_ignored(plan: Plan, target: Path) -> None:
    """As they are set by SET= or by hand in config.pbtxt."""
    lengths = {}
    for name, settings in {
        "plain": {},
        "with an end": {"add_eos_token": "true"},
        "as letters": {"parse_special_tokens": "false"},
    }.items():
        assemble(replace(plan, settings=settings), target)
        lengths[name] = prompt_ids(target, "a</s>")
    assert lengths["with an end"] == [*lengths["plain"], 2]
    assert len(lengths["as letters"]) > len(lengths["plain"])


def prompt_ids(repository: Path, prompt: str) -> list[int]:
    """The ids that `preprocessing` makes of a prompt, read with the files that are served."""
    folder = repository / "preprocessing" / "1"
    texts = parameters(parse_config((repository / "preprocessing" / "config.pbtxt").read_text()))
    code = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from trellis.pipeline.model_settings import ModelSettings, load_tokenizer\n"
        "settings = ModelSettings('p', Path(sys.argv[1]), json.loads(sys.argv[2]), {}, 1)\n"
        "print(load_tokenizer(settings).encode(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, str(folder), json.dumps(texts), prompt]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ids: list[int] = json.loads(done.stdout)
    return ids


@pytest.mark.parametrize(
    ("eos", "eot", "ends"), [(2, 3, [2, 3]), (2, 2, None), (2, None, None), (None, 3, [3])]
)
def test_a_ggufs_end_of_turn_ends_an_answer_beside_its_end_of_text(
    target: Path,
    tmp_path: Path,
    llama_folder: Path,
    eos: int | None,
    eot: int | None,
    ends: list[int] | None,
) -> None:
    folder = tmp_path / "gguf-out"
    folder.mkdir()
    writer = GGUFWriter(folder / "model.gguf", "llama")
    writer.add_context_length(512)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{number}" for number in range(32_000)])
    if eos is not None:
        writer.add_eos_token_id(eos)
    if eot is not None:
        writer.add_eot_token_id(eot)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assemble(Plan(read_engine(folder), "llama", llama_folder), target)
    for model in ("preprocessing", "postprocessing", "tensorrt_llm"):
        made = target / model / "1" / "tokenizer" / "generation_config.json"
        assert (json.loads(made.read_text())["eos_token_id"] if made.exists() else None) == ends
    tokenizer = load("llama", target / "preprocessing" / "1" / "tokenizer")
    assert tokenizer.end_ids == tuple(dict.fromkeys([2, *(ends or [])]))
    assert not assemble(Plan(read_engine(folder), "llama", llama_folder), target).changed
