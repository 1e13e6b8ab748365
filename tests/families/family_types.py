"""Which types the families' files are for, and what is refused."""

# Family -> the types that its files are for, beside auto.
TYPES = {
    "chatglm3_json": "llama",
    "clip": "gpt2",
    "internlm2": "llama",
    "aya_expanse": "gpt2", "baichuan2": "llama", "chatglm3": "llama", "claude": "gpt2",
    "command_r_plus": "gpt2", "deepseek_v3": "gpt2", "deepseek_v4": "gpt2", "gemini": "llama",
    "gemma": "llama", "gemma2": "llama", "gemma3": "llama", "gemma_json": "llama",
    "gpt2": "gpt2", "gpt2_json": "gpt2", "gpt35turbo": "gpt2", "gpt4o": "gpt2",
    "gpt_neox": "gpt2", "gptoss": "gpt2", "jamba": "llama", "jurassic2": "", "llama2": "llama",
    "llama2_json": "llama", "llama3": "llama3 gpt2", "llama3_1": "llama3 gpt2",
    "llama3_2": "llama3 gpt2", "llama3_bare": "llama3", "llama3_ranks": "llama3",
    "llama4_ranks": "llama4", "minicpm_v4_5": "qwen gpt2", "mistral_nemo": "mistral gpt2",
    "mistral_v1": "mistral", "mistral_v2": "mistral", "mistral_v3": "mistral",
    "mistral_v7": "mistral", "mistral_v7m1": "mistral", "moonshine": "llama", "mt5": "t5",
    "nerdstash": "llama", "nerdstash_v2": "llama", "olmo_dolma1_5": "gpt2",
    "olmo_dolma2": "gpt2", "qwen1_5": "qwen gpt2", "qwen2_5": "qwen gpt2",
    "qwen2_5_files": "qwen", "qwen3": "qwen gpt2", "qwen3_6_ranks": "qwen",
    "qwen_ranks": "qwen", "t5": "t5", "t5_json": "t5", "tekken_240718": "mistral",
    "tekken_240911": "mistral", "yi": "llama", "yi_json": "llama",
}  # fmt: skip

# What a type refuses, by the words of the refusal.
CUSTOM_CODE = "Python code of its own"
REFUSED = {
    ("baichuan2", "auto"): CUSTOM_CODE,
    ("chatglm3", "auto"): CUSTOM_CODE,
    ("chatglm3_json", "auto"): CUSTOM_CODE,
    ("internlm2", "auto"): CUSTOM_CODE,
    ("minicpm_v4_5", "auto"): CUSTOM_CODE,
    ("chatglm3_json", "llama"): r"the added token '\[gMASK\]' has the id 64790",
    ("internlm2", "llama"): r"the added token '<\|plugin\|>' has the id 92538",
    ("clip", "gpt2"): "its tokenizer_class is CLIPTokenizer",
    ("qwen2_5_files", "gpt2"): "its tokenizer_class is Qwen2Tokenizer",
    ("gpt2", "auto"): "name the tokenizer_class",
    ("olmo_dolma2", "llama3"): "bos_token '<.begin_of_text.>' is not in the vocabulary",
    ("gpt2", "llama"): "has no tokenizer of this type",
    ("qwen3", "llama"): "not Llama-2 style, but a byte-level BPE",
    ("llama2_json", "gpt2"): "not a byte-level BPE",
    ("llama3_ranks", "llama4"): "has 128000 tokens, not 200000",
    ("llama4_ranks", "llama3"): "has 200000 tokens, not 128000",
    ("gemma3", "t5"): "not a unigram model",
}

# Families whose files have a chat template.
TEMPLATES = [
    "aya_expanse",
    "chatglm3_json",
    "command_r_plus",
    "deepseek_v3",
    "gemini",
    "gemma3",
    "internlm2",
    "llama3",
    "llama3_1",
    "llama3_2",
    "minicpm_v4_5",
    "mistral_nemo",
    "qwen1_5",
    "qwen2_5",
    "qwen2_5_files",
    "qwen3",
]
