"""Makes the two tokenizer folders beside this file: ``python -m jobs.presets.tiny_text.train``.

A Llama-like byte-level BPE, whose corpus repeats the prompt template until each of its words is one token (so that
the template takes the published number of tokens), and a CLIP-like lower-case BPE with word ends.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from gamecraft_core.text.templates import TEMPLATES

HERE = Path(__file__).resolve().parent
_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>")
_PAD = "<pad>"
_CLIP_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_LLAMA_WORDS = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

CORPUS = """
A quiet village at dawn, mist over the river and a wooden bridge.
Walking through a sunlit forest, moss on the stones, birds in the distance.
A medieval castle on a hill under storm clouds, banners in the wind.
First person view of a narrow street with market stalls and red lanterns.
A snowy mountain pass at night, stars above, a lamp swinging from a cart.
The camera glides over turquoise water towards a white lighthouse.
An abandoned space station corridor, flickering lights, cables on the floor.
Desert dunes in the evening, long shadows, a caravan far away.
A cosy library with tall shelves, warm light and a sleeping cat.
Driving along a coastal road, cliffs on the left, the sea on the right.
Blurry, low quality, distorted, grey and empty.
The person looks like a traveller with a green cloak and a walking stick.
"""


def train_llm(folder: Path, corpus: str = CORPUS) -> Tokenizer:
    """tokenizer.json: as few merges as make the template's words whole."""
    frame = TEMPLATES["gamecraft"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    between = re.split("|".join(map(re.escape, _SPECIAL)), frame.before + frame.after)
    tokenizer.train_from_iterator([*between * 50, *corpus.splitlines()], trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*_SPECIAL, _PAD)])
    begin = _SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    print(f"{folder.name}: {tokenizer.get_vocab_size()} ids, template {len(tokenizer.encode(frame.before).ids)} tokens")
    return tokenizer


def train_clip(folder: Path, corpus: str = CORPUS) -> dict[str, int]:
    """vocab.json and merges.txt; the special tokens have the highest ids, the end of text the very highest."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, min_frequency=2, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus.splitlines() * 2, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(alphabet) + [f"{letter}</w>" for letter in sorted(alphabet)]
    merges = [tuple(pair) for pair in trained["merges"]]
    vocab = dict.fromkeys([*pieces, *(left + right for left, right in merges), *_CLIP_SPECIAL])
    ids = {piece: number for number, piece in enumerate(vocab)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{folder.name}: {len(ids)} ids")
    return ids


if __name__ == "__main__":
    for make, name in ((train_llm, "llm"), (train_clip, "clip")):
        place = HERE / name
        place.mkdir(exist_ok=True)
        make(place)
