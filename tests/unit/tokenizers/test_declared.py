"""A type takes what a tokenizer's files declare, or refuses it by name; it never overrides it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from support.tokenizer_folders import TYPE_OF, Folders
from trellis.tokenizers import Tokenizer, TokenizerError, known_types, load

quick = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<turn>", "</turn>", "▁<FIM>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = [*SPECIAL, *BYTES, "▁", "a", "b", "é", "안", "▁a", "▁▁", "▁▁▁▁", "a▁b"]
MERGES = [("▁", "▁"), ("▁▁", "▁▁"), ("▁", "a")]
ADDED = ["▁▁", "▁▁▁▁", "naïve", "<tool>"]


def fallback_backend() -> tokenizers.Tokenizer:
    """A BPE with byte tokens, whose runs of '▁' are added tokens, as Gemma's."""
    vocab = {piece: token for token, piece in enumerate(PIECES)}
    model = models.BPE(
        vocab=vocab, merges=MERGES, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    backend = tokenizers.Tokenizer(model)
    backend.add_special_tokens(SPECIAL)
    backend.add_tokens([AddedToken(content, normalized=False) for content in ADDED])
    return backend


def byte_level_backend() -> tokenizers.Tokenizer:
    """A byte-level BPE without merges, with added tokens that its alphabet can spell or not."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = models.BPE(vocab={letter: token for token, letter in enumerate(alphabet)}, merges=[])
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<bos>", "<eos>", "<pad>", "<unk>", "<｜end▁of▁turn｜>"])
    backend.add_tokens([AddedToken(content, normalized=False) for content in ("<tool>", "안녕")])
    return backend


def save(folder: Path, backend: tokenizers.Tokenizer, **config: Any) -> Path:
    """A tokenizer's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    roles = {f"{role}_token": f"<{role}>" for role in ("bos", "eos", "pad", "unk")}
    (folder / "tokenizer_config.json").write_text(json.dumps({**roles, **config}))
    return folder


REPLACE = decoders.Replace("▁", " ")
DECODERS: dict[str, Any] = {
    "llama": decoders.Sequence(
        [REPLACE, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
    "gemma": decoders.Sequence([REPLACE, decoders.ByteFallback(), decoders.Fuse()]),
    "metaspace always": decoders.Metaspace("▁", "always", True),
    "metaspace first": decoders.Metaspace("▁", "first", True),
    "metaspace never": decoders.Metaspace("▁", "never", True),
    "by a pattern": decoders.Sequence(
        [decoders.Replace(Regex("▁+"), " "), decoders.ByteFallback(), decoders.Fuse()]
    ),
    "a piece's own space": decoders.Sequence([REPLACE, decoders.Strip(" ", 1, 0)]),
}


@pytest.mark.parametrize("kind", DECODERS)
def test_texts_are_those_of_the_declared_decoder(kind: str, tmp_path: Path) -> None:
    backend = fallback_backend()
    backend.decoder = DECODERS[kind]
    ours = load("auto", save(tmp_path / "x", backend))
    has_bytes = "ByteFallback" in backend.decoder.__getstate__().decode()
    single = [token for token in range(backend.get_vocab_size()) if not is_byte(token)]
    if "metaspace" in kind:  # the library takes the space inside a first token as well
        single = [token for token in single if backend.id_to_token(token) != "a▁b"]
    letters = [[backend.token_to_id(f"<0x{b:02X}>") for b in c.encode()] for c in "é€😀\ufffd"]
    atoms = [[token] for token in single] + (letters if has_bytes else [])

    @quick
    @given(st.lists(st.sampled_from(atoms), max_size=8), st.booleans())
    def check(drawn: list[list[int]], skip: bool) -> None:
        ids = [token for atom in drawn for token in atom]
        theirs = backend.decode(ids, skip_special_tokens=skip)
        assert ours.decode(ids, skip) == theirs
        stream = ours.stream_decoder(skip)
        assert "".join([stream.push([token]) for token in ids]) == theirs

    check()


def is_byte(token: int) -> bool:
    return len(SPECIAL) <= token < len(SPECIAL) + 256


def test_added_tokens_of_a_byte_level_tokenizer_have_their_letters(tmp_path: Path) -> None:
    backend = byte_level_backend()
    backend.add_tokens(["naïve"])
    ours = load("gpt2", save(tmp_path / "x", backend))
    text = "a<tool>안녕 naïve<｜end▁of▁turn｜>"
    ids = ours.encode(text)
    assert backend.token_to_id("naïve") in ids
    assert ours.decode(ids, skip_special_tokens=False) == text
    assert "\ufffd" in backend.decode(ids, skip_special_tokens=False)  # the library cannot


NORMALIZERS: dict[str, tuple[Any, Any]] = {
    "gemma": (normalizers.Replace(" ", "▁"), None),
    "llama": (
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        None,
    ),
    "split at spaces": (
        normalizers.Replace(" ", "▁"),
        pre_tokenizers.Split(" ", "merged_with_previous"),
    ),
    "metaspace never": (None, pre_tokenizers.Metaspace("▁", "never", False)),
    "metaspace first": (None, pre_tokenizers.Metaspace("▁", "first", False)),
    "metaspace always": (normalizers.NFKC(), pre_tokenizers.Metaspace("▁", "always", True)),
}
TEXTS = st.text(st.sampled_from("ab é안▁\t\nﬁ１"), max_size=12)


@pytest.mark.parametrize("kind", ["auto", "llama", "mistral"])
@pytest.mark.parametrize("declared", NORMALIZERS)
def test_ids_are_those_of_the_declared_steps(declared: str, kind: str, tmp_path: Path) -> None:
    backend = fallback_backend()
    normalizer, pre_tokenizer = NORMALIZERS[declared]
    if normalizer is not None:
        backend.normalizer = normalizer
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    backend.decoder = DECODERS["gemma"]
    ours = load(kind, save(tmp_path / "x", backend), {"add_special_tokens": "false"})

    @quick
    @given(st.lists(st.one_of(TEXTS, st.sampled_from([*SPECIAL, *ADDED])), max_size=5))
    def check(parts: list[str]) -> None:
        text = "".join(parts)
        assert ours.encode(text) == backend.encode(text, add_special_tokens=False).ids

    check()


@pytest.mark.parametrize("declared", NORMALIZERS)
def test_a_fragment_has_no_space_before_it_and_keeps_its_own(declared: str, tmp_path: Path) -> None:
    backend = fallback_backend()
    normalizer, pre_tokenizer = NORMALIZERS[declared]
    if normalizer is not None:
        backend.normalizer = normalizer
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    backend.decoder = DECODERS["gemma"]
    ours = load("auto", save(tmp_path / "x", backend))
    for text in ("a", " a", "b", "a b", "é", "  "):
        assert ours.decode(ours.encode_fragment(text)) == text
    assert ours.encode_fragment("b</turn>") == [backend.token_to_id("b"), 5]
    assert ours.encode_fragment("") == []


TEMPLATE = processors.TemplateProcessing("<bos> $A <eos>", None, [("<bos>", 2), ("<eos>", 1)])
AROUND: list[tuple[Any, dict[str, bool], tuple[list[int], list[int]]]] = [
    # post-processor, tokenizer_config.json, what is put around a text
    (TEMPLATE, {}, ([2], [1])),
    (TEMPLATE, {"add_eos_token": False}, ([2], [])),
    (TEMPLATE, {"add_bos_token": False}, ([], [1])),
    (TEMPLATE, {"add_bos_token": True, "add_eos_token": False}, ([2], [])),
    (None, {"add_bos_token": True}, ([2], [])),
    (None, {}, ([], [])),
]


@pytest.mark.parametrize(("processor", "config", "expected"), AROUND)
def test_what_is_around_a_text_is_what_the_files_say(
    processor: Any,
    config: dict[str, bool],
    expected: tuple[list[int], list[int]],
    tmp_path: Path,
) -> None:
    backend = fallback_backend()
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = DECODERS["gemma"]
    if processor is not None:
        backend.post_processor = processor
    folder = save(tmp_path / "x", backend, **config)
    plain = load("auto", folder, {"add_special_tokens": "false"}).encode("a")
    assert load("auto", folder).encode("a") == expected[0] + plain + expected[1]


def test_a_bos_that_is_asked_for_and_not_there_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "x", byte_level_backend(), bos_token=None)
    with pytest.raises(TokenizerError, match="add_bos_token is true, but there is no bos_token"):
        load("gpt2", folder, {"add_bos_token": "true"})


# SentencePiece models with settings of their own


MODELS: dict[str, dict[str, Any]] = {
    "as Llama's": {},
    "no dummy prefix": {"add_dummy_prefix": False},
    "extra spaces are removed": {"remove_extra_whitespaces": True},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "sentencepiece's defaults": {
        "normalization_rule_name": "nmt_nfkc",
        "remove_extra_whitespaces": True,
    },
    "spaces of the user's own": {"user_defined_symbols": ["▁▁▁", "<turn>", "▁▁"]},
    "no byte tokens": {"byte_fallback": False},
}


def train(folder: Path, **options: Any) -> Path:
    """A small BPE model, and the settings asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello a hello ab fi1 안녕 é"] * 200),
        model_prefix=str(folder / "tokenizer"),
        **{
            "vocab_size": 290,
            "model_type": "bpe",
            "byte_fallback": True,
            "hard_vocab_limit": False,
            "minloglevel": 2,
            "remove_extra_whitespaces": False,
            "normalization_rule_name": "identity",
            **options,
        },
    )
    (folder / "tokenizer.vocab").unlink()
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_a_models_own_settings_hold(name: str, tmp_path: Path) -> None:
    folder = train(tmp_path / "x", **MODELS[name])
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    plain = {"add_special_tokens": "false"}
    mistral, llama = load("mistral", folder, plain), load("llama", folder, plain)

    @quick
    @given(st.text(st.sampled_from("helo ab1ﬁ１▁é안\u0301\t\n"), max_size=14))
    def check(text: str) -> None:
        ids = reference.encode(text)
        assert mistral.encode(text) == ids
        assert mistral.encode_batch([text, text]) == [ids, ids]
        if not text.startswith((" ", "▁")) or "extra" in name or "defaults" in name:
            assert llama.encode(text) == ids
        if "no byte tokens" not in name:  # the library writes ⁇ for what it does not know
            assert mistral.decode(ids) == reference.decode(ids)
        stream = mistral.stream_decoder()
        assert "".join([stream.push([token]) for token in ids]) == mistral.decode(ids)

    check()


def test_a_legacy_llama_puts_a_space_after_every_special_token(tmp_path: Path) -> None:
    folder = train(tmp_path / "x")
    (folder / "tokenizer_config.json").write_text(json.dumps({"legacy": True}))
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ours = load("llama", folder, {"add_special_tokens": "false"})
    assert ours.encode("hello</s>hello") == [
        *reference.encode("hello"),
        2,
        *reference.encode("hello"),
    ]
    assert ours.encode("  a") == reference.encode("  a")


@pytest.mark.parametrize(
    ("setting", "name"),
    [({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix")],
)
def test_a_setting_that_cannot_be_had_is_refused_by_name(
    setting: dict[str, Any], name: str, tmp_path: Path
) -> None:
    folder = train(tmp_path / "x", **setting)
    for kind in ("llama", "mistral", "auto"):
        with pytest.raises(TokenizerError, match=name):
            load(kind, folder)


# Types and files that do not belong together


def test_a_type_never_grows_the_vocabulary_of_files_of_another_kind(folders: Folders) -> None:
    for name, owner in TYPE_OF.items():
        size = load(owner, folders[name]).vocab_size
        for kind in known_types():
            opened = or_refusal(kind, folders[name])
            if isinstance(opened, TokenizerError):
                assert str(folders[name]) in str(opened), kind
                continue
            assert opened.vocab_size == size, (kind, name)
            assert opened.end_ids, (kind, name)


def test_a_tokenizer_class_of_another_type_is_refused(folders: Folders, tmp_path: Path) -> None:
    for source in folders["gpt2"].iterdir():
        shutil.copy(source, tmp_path)
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=r"Qwen2Tokenizer.*the type for it: qwen"):
        load("gpt2", tmp_path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tekken", "mistral"), ("mistral3", "mistral"), ("llama3", "llama3"), ("llama", "llama")],
)
def test_auto_reads_the_files_that_a_type_owns_as_that_type(
    name: str, kind: str, folders: Folders, corpus_lines: list[str]
) -> None:
    auto, own = load("auto", folders[name]), load(kind, folders[name])
    lines = corpus_lines[::40]
    assert auto.encode_batch(lines) == own.encode_batch(lines)
    assert (auto.bos_id, auto.end_ids, auto.vocab_size) == (
        own.bos_id,
        own.end_ids,
        own.vocab_size,
    )
    assert auto.end_ids


def test_ids_above_a_gap_have_their_text(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: token for token, letter in enumerate(alphabet)} | {"aa": 400}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[("a", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    ours = load(
        "gpt2",
        save(
            tmp_path / "x", backend, bos_token=None, eos_token=None, pad_token=None, unk_token=None
        ),
    )
    assert ours.vocab_size == 401
    assert ours.decode([400, 300, 400]) == "aaaa"


@pytest.mark.parametrize(
    "decoder", [decoders.WordPiece(), decoders.CTC(), decoders.Sequence([decoders.Fuse(), REPLACE])]
)
def test_a_decoder_that_looks_at_several_tokens_is_refused_by_name(
    decoder: Any, tmp_path: Path
) -> None:
    backend = fallback_backend()
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoder
    with pytest.raises(TokenizerError, match="does not say what one token adds to a text"):
        load("llama", save(tmp_path / "x", backend))


def or_refusal(kind: str, folder: Path) -> Tokenizer | TokenizerError:
    """What a type makes of a folder."""
    try:
        return load(kind, folder)
    except TokenizerError as error:
        return error
