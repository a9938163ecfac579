"""Messages and text → token ids, and token ids → text: everything about one commit's language."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from inference.defaults import Defaults, Specials, read_defaults, read_specials
from inference.errors import InvalidRequest, ModelNotCapable, ModelRefused
from inference.rendering import Renderer

KEPT = 32
"""Commits whose tokenizers stay in memory."""
RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
"""Template variables that a request's `chat_template_kwargs` may not replace."""
_PRIMER = 4
_HALF = "\ufffd"


class Decoding:
    """Text of one answer as its ids arrive; never half a character.

    The pieces and the `rest` together equal the decoding of all ids at once.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()):
        # Some decoders drop a leading space at the start of a text; the prompt's last ids tell that this is no start.
        primer = list(prompt[-_PRIMER:])
        if primer and tokenizer.decode(primer).endswith(_HALF):
            primer = []
        self._tokenizer = tokenizer
        self._primer = primer
        self._stream = DecodeStream(ids=primer, skip_special_tokens=True)
        self._ids: list[int] = []
        self._given = 0
        self._whole = True

    def feed(self, id_: int) -> str:
        """Take one id and give what is certain now; often nothing, in the middle of a character."""
        self._ids.append(id_)
        try:
            piece: str | None = self._stream.step(self._tokenizer, id_)
        except Exception:
            # tokenizers raises its bare base class when a decoder rewrites what it gave before; start a new sentence.
            self._stream = DecodeStream(skip_special_tokens=True)
            piece = None
        self._whole = piece is not None
        self._given += len(piece or "")
        return piece or ""

    def rest(self) -> str:
        """Give what was held back when the ids end; half a character becomes U+FFFD."""
        if self._whole:
            return ""
        before = self._tokenizer.decode(self._primer, skip_special_tokens=True)
        text = self._tokenizer.decode(self._primer + self._ids, skip_special_tokens=True)
        self._whole = True
        return text[len(before) + self._given :]


class Wording:
    """How one commit turns messages into ids and ids into text; thread-safe, constant after construction."""

    def __init__(self, sha: str, folder: Path, renderer: Renderer):
        self.sha = sha
        self.defaults: Defaults = read_defaults(folder)
        self._specials: Specials = read_specials(folder)
        self._renderer = renderer
        self._tokenizer = load_tokenizer(folder)
        self._added = frozenset(self._tokenizer.get_added_tokens_decoder())
        self._alphabet = _byte_alphabet() if "ByteLevel" in repr(self._tokenizer.decoder) else {}
        self.vocab: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.stop_ids = self.defaults.stop_ids or self._end_token()

    def chat(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]],
        variables: Mapping[str, object],
    ) -> tuple[int, ...]:
        """Render messages, and the tools that the model is told of, through the chat template; give its ids.

        Raises: ModelNotCapable (no template), InvalidRequest (the template refuses, or `variables` has a taken name).
        """
        template = self._specials.template
        if template is None:
            raise ModelNotCapable("This model has no chat template; use /v1/completions.", param="model")
        taken = sorted(RESERVED.intersection(variables))
        if taken:
            raise InvalidRequest(f"chat_template_kwargs may not set {taken[0]!r}.", param="chat_template_kwargs")
        if "developer" not in template:
            messages = [_as_system(message) for message in messages]
        given = {
            **self._specials.tokens,
            **variables,
            "messages": list(messages),
            "tools": list(tools) or None,
            "documents": None,
            "add_generation_prompt": True,
        }
        text = self._renderer.render(self.sha, template, given)
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, text: str) -> tuple[int, ...]:
        """Turn plain text into ids, with the special tokens that the tokenizer puts around a text."""
        return tuple(self._tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text; special tokens have none."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def decoding(self, prompt: Sequence[int] = ()) -> Decoding:
        """Begin to read one answer."""
        return Decoding(self._tokenizer, prompt)

    def token(self, id_: int) -> tuple[str, bytes]:
        """Give a token's text (U+FFFD for part of a character) and its exact bytes."""
        word = self._tokenizer.id_to_token(id_)
        if word is None:
            return "", b""
        raw = self._raw(word, id_)
        return raw.decode("utf-8", "replace"), raw

    def _raw(self, word: str, id_: int) -> bytes:
        if len(word) == 6 and word.startswith("<0x") and word.endswith(">"):
            return bytes.fromhex(word[3:5])
        if self._alphabet and id_ not in self._added and all(letter in self._alphabet for letter in word):
            return bytes(self._alphabet[letter] for letter in word)
        return word.replace("\u2581", " ").encode()

    def _end_token(self) -> frozenset[int]:
        text = self._specials.tokens.get("eos_token")
        id_ = None if text is None else self._tokenizer.token_to_id(text)
        return frozenset() if id_ is None else frozenset({id_})


class Wordings:
    """The wording of each commit, read once and kept while it is used."""

    def __init__(self, renderer: Renderer):
        self._renderer = renderer
        self._kept: OrderedDict[str, Wording] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, sha: str, folder: Path) -> Wording:
        """Give a commit's wording; two first callers may both read it, and get equal ones.

        Raises: ModelRefused: no tokenizer, or one that cannot be read.
        """
        with self._lock:
            found = self._kept.get(sha)
            if found is not None:
                self._kept.move_to_end(sha)
                return found
        made = Wording(sha, folder, self._renderer)
        with self._lock:
            self._kept[sha] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json`; older files go through Transformers' converters.

    Raises: ModelRefused.
    """
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            tokenizer = Tokenizer.from_file(str(path))
        else:
            from transformers import AutoTokenizer

            loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            tokenizer = loaded.backend_tokenizer
    except Exception as error:
        # Both libraries raise bare exceptions for bad files; the file's author must hear of any of them.
        raise ModelRefused(f"The tokenizer of this revision cannot be read: {str(error)[:200]}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _as_system(message: Mapping[str, object]) -> Mapping[str, object]:
    return {**message, "role": "system"} if message.get("role") == "developer" else message


def _byte_alphabet() -> dict[str, int]:
    """Draw the letters that byte-level tokenizers write bytes with.

    Source: GPT-2's scheme: printable Latin-1 stands for itself, the other bytes follow from U+0100 in order.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
