"""What a commit says of itself: README metadata and config.json → card, library, task and tags; pure.

Tags come in the order of the Hub: library, file formats, model type, task, the card's own, languages, then
`dataset:`, `arxiv:`, `base_model:`, `license:`. Listings filter by them. Whatever cannot be read counts as not said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from registry import frontmatter
from registry.frontmatter import CardError, Json

Kind = Literal["model", "dataset", "space"]

README, CONFIG = "README.md", "config.json"
MOST_README = 4 << 20
"""Bytes of a README that is still read for its metadata."""
MOST_CONFIG = 1 << 20
"""Bytes of a config.json that is still read."""
_LONGEST_TAG = 128
_MOST_TAGS = 400
_MOST_VALUE = 8 << 10
_LONGEST_TITLE = 200
_KEPT_CONFIG = ("architectures", "model_type", "auto_map", "quantization_config")
_ARXIV = re.compile(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})|\barxiv:\s?(\d{4}\.\d{4,5})", re.IGNORECASE)
_FORMATS = {
    ".safetensors": "safetensors",
    ".gguf": "gguf",
    ".onnx": "onnx",
    ".bin": "pytorch",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".h5": "tf",
    ".msgpack": "jax",
    ".tflite": "tflite",
}
_LIBRARIES = {
    "adapter_config.json": "peft",
    "model_index.json": "diffusers",
    "modules.json": "sentence-transformers",
    "open_clip_config.json": "open_clip",
}
_TASKS = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForSemanticSegmentation": "image-segmentation",
    "ForCTC": "automatic-speech-recognition",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
    "ForAudioClassification": "audio-classification",
    "Model": "feature-extraction",
}
_DATASET_KEYS = (
    "task_categories",
    "task_ids",
    "annotations_creators",
    "language_creators",
    "multilinguality",
    "source_datasets",
    "language",
    "license",
    "size_categories",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What listings and info answers say of one commit; `tensors` counts numbers by dtype."""

    card: Mapping[str, Json] = field(default_factory=dict)
    config: Mapping[str, Json] = field(default_factory=dict)
    tensors: Mapping[str, int] = field(default_factory=dict)
    library: str = ""
    task: str = ""
    tags: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Numbers in all tensors together."""
        return sum(self.tensors.values())

    @property
    def title(self) -> str:
        """The name that the card gives itself, for searching."""
        said = (_word(self.card.get(key)) for key in ("title", "pretty_name", "model_name"))
        return next((title for title in said if title), "")[:_LONGEST_TITLE]


def describe(
    kind: Kind, paths: Collection[str], read: Callable[[str, int], bytes | None], tensors: Mapping[str, int]
) -> Facts:
    """Gather the facts of a commit from its paths and two of its files.

    `read(path, limit)` gives the content of a file, or None if it is absent, larger than `limit` bytes or in LFS.
    """
    prose, card = _card(read(README, MOST_README))
    if kind != "model":
        tags = _dataset_tags(card) if kind == "dataset" else _space_tags(card)
        return Facts(card=card, tags=_tidy([*tags, *_arxiv(prose)]))
    config = _config(read(CONFIG, MOST_CONFIG)) if CONFIG in paths else {}
    library = _word(card.get("library_name")) or _library(paths, config)
    task = _word(card.get("pipeline_tag")) or _task(library, config)
    tags = _model_tags(card, paths, library, task, config)
    # Listings read every row's config, so no value of it may be large.
    kept = {key: config[key] for key in _KEPT_CONFIG if key in config and len(json.dumps(config[key])) <= _MOST_VALUE}
    return Facts(card, kept, dict(tensors), library[:64], task[:64], _tidy([*tags, *_arxiv(prose), *_closing(card)]))


def validate(content: str, kind: Kind) -> tuple[list[str], list[str]]:
    """Judge a README before it is committed: errors refuse it, warnings are told."""
    if frontmatter.unclosed(content):
        return ["The metadata block that begins with '---' has no closing '---' line."], []
    block, _ = frontmatter.split(content)
    try:
        card = frontmatter.read(block)
    except CardError as error:
        return [str(error)], []
    if not card:
        return [], ["empty or missing yaml metadata in repo card"]
    return list(_errors(card, kind)), []


def _errors(card: Mapping[str, Json], kind: Kind) -> Iterator[str]:
    for key in ("license", "language", "tags", "datasets", "base_model", "task_categories", "size_categories"):
        value = card.get(key)
        if value not in (None, []) and not isinstance(value, str) and not _strings(value):
            yield f'"{key}" must be a string or an array of strings'
    for key in ("library_name", "pipeline_tag", "license_name", "license_link", "pretty_name", "sdk", "title"):
        if card.get(key) is not None and not isinstance(card[key], str):
            yield f'"{key}" must be a string'
    if card.get("model-index") is not None and kind == "model" and not isinstance(card["model-index"], list):
        yield '"model-index" must be an array'
    if kind == "space" and card.get("sdk") not in (None, "gradio", "docker", "static", "streamlit"):
        yield '"sdk" must be one of [gradio, docker, static, streamlit]'


def _card(raw: bytes | None) -> tuple[str, dict[str, Json]]:
    if raw is None:
        return "", {}
    block, prose = frontmatter.split(raw.decode("utf-8", "replace"))
    try:
        return prose, frontmatter.read(block)
    except CardError:
        return prose, {}


def _config(raw: bytes | None) -> dict[str, Json]:
    if raw is None:
        return {}
    try:
        found = frontmatter.plain(json.loads(raw))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _library(paths: Collection[str], config: Mapping[str, Json]) -> str:
    for path, library in _LIBRARIES.items():
        if path in paths:
            return library
    if "model_type" in config or "architectures" in config:
        return "transformers"
    return "gguf" if any(path.endswith(".gguf") for path in paths) else ""


def _task(library: str, config: Mapping[str, Json]) -> str:
    named = _strings(config.get("architectures"))
    if library == "sentence-transformers":
        return "sentence-similarity"
    if library != "transformers" or not named:
        return ""
    return next((task for ending, task in _TASKS.items() if named[0].endswith(ending)), "")


def _model_tags(
    card: Mapping[str, Json], paths: Collection[str], library: str, task: str, config: Mapping[str, Json]
) -> Iterator[str]:
    yield library
    seen = {path[path.rfind(".") :] for path in paths if "." in path}
    yield from dict.fromkeys(tag for ending, tag in _FORMATS.items() if ending in seen)
    yield _word(config.get("model_type"))
    yield task
    yield from _strings(card.get("tags"))
    yield from _strings(card.get("language"))
    yield from (f"dataset:{name}" for name in _strings(card.get("datasets")))


def _closing(card: Mapping[str, Json]) -> Iterator[str]:
    relation = _word(card.get("base_model_relation"))
    for name in _strings(card.get("base_model")):
        yield f"base_model:{name}"
        if relation:
            yield f"base_model:{relation}:{name}"
    yield from (f"license:{name}" for name in _strings(card.get("license")))


def _dataset_tags(card: Mapping[str, Json]) -> Iterator[str]:
    for key in _DATASET_KEYS:
        yield from (f"{key}:{name}" for name in _strings(card.get(key)))
    yield from _strings(card.get("tags"))


def _space_tags(card: Mapping[str, Json]) -> Iterator[str]:
    yield _word(card.get("sdk"))
    yield from _strings(card.get("tags"))
    yield from (f"license:{name}" for name in _strings(card.get("license")))


def _arxiv(prose: str) -> Iterator[str]:
    for match in _ARXIV.finditer(prose[:MOST_README]):
        yield f"arxiv:{match[1] or match[2]}"


def _tidy(tags: Iterable[str]) -> tuple[str, ...]:
    kept = dict.fromkeys(tag for tag in tags if tag and len(tag) <= _LONGEST_TAG)
    return tuple(kept)[:_MOST_TAGS]


def _strings(value: Json) -> list[str]:
    """Read one string or a list of them; anything else says nothing."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return [one.strip() for one in value if isinstance(one, str) and one.strip()]
    return []


def _word(value: Json) -> str:
    return value.strip() if isinstance(value, str) else ""
