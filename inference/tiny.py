"""A chat model of a few hundred kilobytes, random and repeatable, for demos and tests.

    python -m inference.tiny FOLDER [--seed N]

Laid out as every loader expects; needs no torch. Equal seeds give equal files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy
import numpy.typing
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = (
    "The quick brown fox jumps over the lazy dog. A model is a folder of weights, and a commit names it for ever. "
    "Push the weights, pull the weights, and ask the model what it thinks of the weather in Paris today."
)
SPECIALS = ["<|end|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN, LAYERS, HEADS, KV_HEADS, INNER, CONTEXT = 64, 2, 4, 2, 128, 2048


def make_chat_model(folder: Path, seed: int = 0) -> None:
    """Write config, weights, tokenizer and chat template of a tiny Llama into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    vocab = 512
    save_file(_weights(vocab, numpy.random.default_rng(seed)), folder / "model.safetensors", {"format": "pt"})
    ends = [tokenizer.token_to_id("<|end|>"), tokenizer.token_to_id("<|im_end|>")]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": vocab,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": ends[1],
        "pad_token_id": ends[0],
    }
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"eos_token_id": ends, "pad_token_id": ends[0]})
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|end|>",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
        },
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    # A small corpus runs out of merges: the rest of the vocabulary is plain words, so that every id has a text.
    tokenizer.add_tokens([f" word{n}" for n in range(512 - tokenizer.get_vocab_size())])
    return tokenizer


def _weights(vocab: int, random: numpy.random.Generator) -> dict[str, numpy.typing.NDArray[numpy.float32]]:
    def matrix(rows: int, columns: int, spread: float = 0.15) -> numpy.typing.NDArray[numpy.float32]:
        return random.normal(0, spread, (rows, columns)).astype(numpy.float32)

    ones = numpy.ones(HIDDEN, dtype=numpy.float32)
    head = HIDDEN // HEADS
    weights = {
        "model.embed_tokens.weight": matrix(vocab, HIDDEN, 1.0),
        "model.norm.weight": ones,
        "lm_head.weight": matrix(vocab, HIDDEN, 0.3),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        weights |= {
            at + "input_layernorm.weight": ones.copy(),
            at + "post_attention_layernorm.weight": ones.copy(),
            at + "self_attn.q_proj.weight": matrix(HIDDEN, HIDDEN),
            at + "self_attn.k_proj.weight": matrix(KV_HEADS * head, HIDDEN),
            at + "self_attn.v_proj.weight": matrix(KV_HEADS * head, HIDDEN),
            at + "self_attn.o_proj.weight": matrix(HIDDEN, HIDDEN),
            at + "mlp.gate_proj.weight": matrix(INNER, HIDDEN),
            at + "mlp.up_proj.weight": matrix(INNER, HIDDEN),
            at + "mlp.down_proj.weight": matrix(HIDDEN, INNER),
        }
    return weights


def main() -> None:
    """Write one model from the command line."""
    parser = argparse.ArgumentParser(description="Write a tiny random chat model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    make_chat_model(chosen.folder, chosen.seed)


if __name__ == "__main__":
    main()
