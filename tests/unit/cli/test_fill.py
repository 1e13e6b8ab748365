"""tools/fill_template.py: the published commands, escapes, and what it leaves alone."""

from pathlib import Path

import pytest

from support.cli import run
from support.paths import ROOT
from trellis.contract.placeholder import known_placeholders, translate
from trellis.repository.model_config import parameters, parse_config
from trellis.repository.template import parse_substitutions, placeholders_in, split_escaped

TEMPLATES = ROOT / "model_repo_src"
PUBLISHED = (
    "triton_max_batch_size:128,decoupled_mode:true,max_queue_delay_microseconds:100,"
    "max_beam_width:1,batching_strategy:inflight_fused_batching,"
    "engine_dir:/triton_model_repo/tensorrt_llm/1,max_tokens_in_paged_kv_cache:,"
    "max_kv_cache_length:,batch_scheduler_policy:guaranteed_completion,"
    "kv_cache_free_gpu_mem_fraction:0.2,max_num_sequences:4,enable_trt_overlap:true,"
    "exclude_input_in_output:"
)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A copy of `tensorrt_llm`'s template."""
    file = tmp_path / "config.pbtxt"
    file.write_text((TEMPLATES / "tensorrt_llm" / "config.pbtxt").read_text())
    return file


def test_the_published_command_fills_tensorrt_llm(template: Path) -> None:
    done = run("fill_template", "--in_place", template, PUBLISHED)
    assert done.status == 0
    config = parse_config(template.read_text())
    assert config.max_batch_size == 128
    assert config.model_transaction_policy.decoupled
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    values = parameters(config)
    assert values["gpt_model_path"] == "/triton_model_repo/tensorrt_llm/1"
    assert values["kv_cache_free_gpu_mem_fraction"] == "0.2"
    assert values["batch_scheduler_policy"] == "guaranteed_completion"
    assert values["exclude_input_in_output"] == "true"
    assert "max_kv_cache_length is max_attention_window_size since TensorRT-LLM 0.7" in done.output
    assert "max_num_sequences has no effect after TensorRT-LLM 0.7" in done.output
    assert "enable_trt_overlap has no effect after TensorRT-LLM 0.9" in done.output


@pytest.mark.parametrize("model", ["preprocessing", "postprocessing"])
def test_the_published_command_fills_the_tokenizer(tmp_path: Path, model: str) -> None:
    file = tmp_path / "config.pbtxt"
    file.write_text((TEMPLATES / model / "config.pbtxt").read_text())
    substitutions = "tokenizer_type:llama,tokenizer_dir:/llama-tokenizer"
    assert run("fill_template", "-i", file, substitutions).status == 0
    values = parameters(parse_config(file.read_text()))
    assert (values["tokenizer_type"], values["tokenizer_dir"]) == ("llama", "/llama-tokenizer")


def test_without_in_place_the_result_is_printed_and_the_file_kept(template: Path) -> None:
    before = template.read_text()
    done = run("fill_template", template, "engine_dir:/engines/a")
    assert 'string_value: "/engines/a"' in done.output
    assert template.read_text() == before


def test_a_backslash_keeps_commas_and_colons() -> None:
    assert parse_substitutions(r"a:x\,y,b:http\://z") == {"a": "x,y", "b": "http://z"}
    assert parse_substitutions("a:b:c") == {"a": "b:c"}
    assert split_escaped(r"a\,b,c", ",") == [r"a\,b", "c"]


@pytest.mark.parametrize("value", [r"/a b/\"c\"", "/안녕", r"C\\dir", 'quo"te'])
def test_a_value_arrives_as_it_was_given(template: Path, value: str) -> None:
    assert run("fill_template", "-i", template, f"engine_dir:{value}").status == 0
    wanted = parse_substitutions(f"engine_dir:{value}")["engine_dir"]
    assert parameters(parse_config(template.read_text()))["gpt_model_path"] == wanted


def test_allow_unfilled_leaves_what_was_not_given(template: Path) -> None:
    done = run("fill_template", "-i", "--allow-unfilled", template, "decoupled_mode:false")
    assert done.status == 0
    left = placeholders_in(template.read_text())
    assert "engine_dir" in left
    assert "decoupled_mode" not in left
    assert run("fill_template", "-i", template, "").status == 0
    assert placeholders_in(template.read_text()) == []


def test_placeholders_in_comments_are_nobodys_business(tmp_path: Path) -> None:
    file = tmp_path / "config.pbtxt"
    file.write_text('# write ${this} or ${that}\nname: "${tokenizer_type}"\n')
    assert run("fill_template", "-i", file, "tokenizer_type:gpt2").status == 0
    assert file.read_text() == '# write ${this} or ${that}\nname: "gpt2"\n'


def test_a_result_that_triton_cannot_read_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "config.pbtxt"
    file.write_text('nmae: "${tokenizer_type}"\n')
    done = run("fill_template", "-i", file, "tokenizer_type:gpt2")
    assert done.status == 1
    assert 'has no field named "nmae"' in done.output
    assert file.read_text() == 'nmae: "${tokenizer_type}"\n'


def test_in_place_keeps_the_mode_and_leaves_no_other_file(template: Path) -> None:
    template.chmod(0o640)
    assert run("fill_template", "-i", template, "").status == 0
    assert template.stat().st_mode & 0o777 == 0o640
    assert list(template.parent.iterdir()) == [template]


@pytest.mark.parametrize("model", ["preprocessing", "tensorrt_llm", "postprocessing", "ensemble"])
def test_list_documents_every_placeholder(model: str) -> None:
    file = TEMPLATES / model / "config.pbtxt"
    done = run("fill_template", "--list", file, env={"COLUMNS": "200"})
    for name in placeholders_in(file.read_text()):
        spec = known_placeholders()[name]
        (line,) = (line for line in done.output.splitlines() if f" {name} " in line)
        assert spec.meaning[:40] in line
        assert f" {spec.type} " in line


def test_every_placeholder_has_a_default_that_fits_or_none() -> None:
    for spec in known_placeholders().values():
        assert spec.meaning
        if spec.default:
            assert spec.check(spec.default) == spec.default


def test_keys_of_other_releases_are_translated_or_reported() -> None:
    assert translate({"max_attention_window_size": "9"}, ["max_kv_cache_length"], "0.6.1") == (
        {"max_kv_cache_length": "9"},
        ["max_attention_window_size is max_kv_cache_length in TensorRT-LLM 0.6.1: filled in there"],
    )
    assert translate({"enable_chunked_context": "true"}, ["engine_dir"], "0.5.0") == (
        {},
        ["enable_chunked_context has no effect in TensorRT-LLM 0.5.0: it has no such setting"],
    )


def test_a_key_that_only_published_templates_of_this_model_have_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "config.pbtxt"
    file.write_text((TEMPLATES / "postprocessing" / "config.pbtxt").read_text())
    command = "tokenizer_type:llama,triton_max_batch_size:8,postprocessing_instance_count:4"
    done = run("fill_template", "-i", file, command)
    assert done.status == 0
    assert "postprocessing_instance_count has no effect here: one instance, since" in done.output
    assert parse_config(file.read_text()).instance_group[0].count == 1


def test_a_list_without_its_backslash_is_told_how_to_be_written(template: Path) -> None:
    before = template.read_text()
    done = run("fill_template", "-i", template, "gpu_device_ids:0,1")
    assert done.status == 1
    assert r"'1' has no value; write 1:value, or 'gpu_device_ids:0\,1'" in done.output
    assert template.read_text() == before
    assert run("fill_template", "-i", template, r"gpu_device_ids:0\,1").status == 0
    assert parameters(parse_config(template.read_text()))["gpu_device_ids"] == "0,1"


@pytest.mark.parametrize("value", ["engine_dir:C\\", r"engine_dir:C\dir", "engine_dir:\\"])
def test_a_lone_backslash_is_refused_with_the_remedy(template: Path, value: str) -> None:
    done = run("fill_template", "-i", template, value)
    assert done.status == 1
    assert r"a lone backslash; write \\ for a backslash, and \, or \: for a comma" in done.output


def test_a_backslash_before_a_comma_may_itself_be_kept() -> None:
    assert parse_substitutions(r"a:C\\,b:1") == {"a": "C\\", "b": "1"}


def test_a_key_that_was_filled_before_is_named_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "config.pbtxt"
    file.write_text((TEMPLATES / "preprocessing" / "config.pbtxt").read_text())
    assert run("fill_template", "-i", "--allow-unfilled", file, "tokenizer_type:llama").status == 0
    done = run("fill_template", "-i", file, "tokenizer_type:gpt2")
    assert done.status == 1
    assert 'tokenizer_type was filled before, with "llama"; fill a fresh copy' in done.output
    assert run("fill_template", "-i", file, "").status == 0
    done = run("fill_template", "-i", file, "triton_max_batch_size:8")
    assert done.status == 1
    assert "has no placeholder left, it was filled before" in done.output


def test_the_published_backend_is_met_with_the_way_on(template: Path) -> None:
    done = run("fill_template", "-i", template, "triton_backend:tensorrtllm")
    assert done.status == 1
    assert "for an engine of TensorRT-LLM run `make repo ENGINE=folder`" in done.output


def test_nothing_filled_in_is_no_success(template: Path) -> None:
    before = template.read_text()
    done = run("fill_template", "-i", "--allow-unfilled", template, "enable_trt_overlap:true")
    assert done.status == 1
    assert "nothing was filled in" in done.output
    assert template.read_text() == before
