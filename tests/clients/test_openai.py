"""The official openai client against a whole house: a model pushed to a registry, answered by its sidecar.

The groups are those of the conformance list: models, chat, sampling, streams, errors, completions, operations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from tokenizers import Tokenizer

from inference.tiny import make_chat_model
from tests.services.house import House, open_house
from tests.services.sidecar import Sidecar, open_sidecar, upload

pytestmark = [pytest.mark.clients, pytest.mark.inference, pytest.mark.xdist_group("openai")]

MODEL = "ann/tiny"
ASK: list[Any] = [{"role": "user", "content": "Tell me of the weather in Paris."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_chat_model(folder, 1)
    return folder


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def sha(house: House, folder: Path) -> str:
    return upload(house, MODEL, folder)


@pytest.fixture(scope="module")
def sidecar(house: House, sha: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with open_sidecar(tmp_path_factory.mktemp("sidecar"), house.url, "--model", MODEL) as sidecar:
        sidecar.until_ready()
        yield sidecar


@pytest.fixture(scope="module")
def client(sidecar: Sidecar, house: House) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{sidecar.url}/v1", api_key=house.token, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def words(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def chat(client: OpenAI, **fields: Any) -> Any:
    asked = {"model": MODEL, "messages": ASK, "max_tokens": 12, "temperature": 0, "extra_body": {"ignore_eos": True}}
    return client.chat.completions.create(**{**asked, **fields})


def said(answer: Any, index: int = 0) -> str:
    return str(answer.choices[index].message.content)


def joined(stream: Any, index: int = 0) -> str:
    parts = (choice for chunk in stream for choice in chunk.choices if choice.index == index)
    return "".join(part.delta.content or "" for part in parts)


class TestModels:
    def test_list(self, client: OpenAI) -> None:
        assert MODEL in [model.id for model in client.models.list()]

    def test_retrieve(self, client: OpenAI, sha: str) -> None:
        model = client.models.retrieve(MODEL)
        assert (model.id, model.object, model.to_dict()["commit"]) == (MODEL, "model", sha)

    def test_unknown(self, client: OpenAI) -> None:
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("ann/none")


class TestChatCore:
    def test_shape(self, client: OpenAI, sha: str) -> None:
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASK, max_tokens=3)
        answer = raw.parse()
        assert (answer.object, answer.model, answer.choices[0].message.role) == ("chat.completion", MODEL, "assistant")
        assert raw.headers["x-model-commit"] == sha
        assert (answer.system_fingerprint or "").startswith(f"wr-{sha[:12]}-")

    def test_usage_adds_up(self, client: OpenAI) -> None:
        usage = chat(client).usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert usage.completion_tokens == 12

    def test_length_stops(self, client: OpenAI) -> None:
        answer = chat(client, max_tokens=2)
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 2)

    def test_max_completion_tokens(self, client: OpenAI) -> None:
        assert chat(client, max_tokens=openai.NOT_GIVEN, max_completion_tokens=3).usage.completion_tokens == 3

    def test_parts_and_developer(self, client: OpenAI) -> None:
        parts = [{"type": "text", "text": ASK[0]["content"]}]
        assert said(chat(client, messages=[{"role": "user", "content": parts}])) == said(chat(client))
        turns = {role: [{"role": role, "content": "Be brief."}, *ASK] for role in ("developer", "system")}
        assert said(chat(client, messages=turns["developer"])) == said(chat(client, messages=turns["system"]))

    def test_temperature_zero_is_deterministic(self, client: OpenAI) -> None:
        assert len({said(chat(client)) for _ in range(3)}) == 1

    def test_temperature_is_honoured(self, client: OpenAI) -> None:
        assert len({said(chat(client, temperature=2, seed=seed)) for seed in range(4)}) > 1

    def test_seed(self, client: OpenAI) -> None:
        one, again, other = (said(chat(client, temperature=1, seed=seed)) for seed in (5, 5, 6))
        assert one == again
        assert one != other

    def test_seed_under_concurrency(self, client: OpenAI) -> None:
        alone = said(chat(client, temperature=1, seed=5))
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda seed: said(chat(client, temperature=1, seed=seed)), [5, 1, 5, 2, 5, 3, 5, 4])
            )
        assert answers[::2] == [alone] * 4


class TestChatSampling:
    def test_stop_cuts(self, client: OpenAI) -> None:
        text = said(chat(client))
        stop = text[4:6]
        answer = chat(client, stop=stop)
        assert said(answer) == text[: text.index(stop)]
        assert answer.choices[0].finish_reason == "stop"

    def test_stop_list_in_a_stream(self, client: OpenAI) -> None:
        text = said(chat(client))
        stops = ["never said", text[5:7]]
        assert joined(chat(client, stop=stops, stream=True)) == text[: text.index(stops[1])]

    def test_n(self, client: OpenAI) -> None:
        answer = chat(client, n=3, temperature=1, seed=9)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert said(answer, 1) == said(chat(client, temperature=1, seed=10))

    def test_n_in_a_stream(self, client: OpenAI) -> None:
        plain = chat(client, n=2, temperature=1, seed=9)
        chunks = list(chat(client, n=2, temperature=1, seed=9, stream=True))
        assert [joined(chunks, index) for index in range(2)] == [said(plain, index) for index in range(2)]

    def test_logprobs(self, client: OpenAI) -> None:
        content = chat(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
        assert len(content) == 12
        assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 3 for entry in content)
        assert all(entry.top_logprobs[0].token == entry.token for entry in content)

    def test_logprobs_in_a_stream(self, client: OpenAI) -> None:
        plain = chat(client, logprobs=True, top_logprobs=1).choices[0].logprobs.content
        chunks = [
            choice for chunk in chat(client, logprobs=True, top_logprobs=1, stream=True) for choice in chunk.choices
        ]
        streamed = [entry for choice in chunks if choice.logprobs for entry in choice.logprobs.content]
        assert [entry.token for entry in streamed] == [entry.token for entry in plain]

    def test_logit_bias(self, client: OpenAI, words: Tokenizer) -> None:
        assert said(chat(client, logit_bias={str(words.token_to_id("x")): 100})) == "x" * 12

    def test_frequency_penalty(self, client: OpenAI, words: Tokenizer) -> None:
        bias = {str(words.token_to_id(letter)): 60 for letter in "xy"}
        plain = said(chat(client, logit_bias=bias, max_tokens=24))
        penalised = said(chat(client, logit_bias=bias, max_tokens=24, frequency_penalty=2))
        assert abs(plain.count("x") - plain.count("y")) > abs(penalised.count("x") - penalised.count("y"))

    def test_presence_penalty(self, client: OpenAI, words: Tokenizer) -> None:
        bias = {str(words.token_to_id(letter)): 60 for letter in ascii_lowercase}
        plain = said(chat(client, logit_bias=bias, max_tokens=26))
        assert len(set(said(chat(client, logit_bias=bias, max_tokens=26, presence_penalty=2)))) > len(set(plain))


class TestStream:
    def test_order_and_equal_text(self, client: OpenAI) -> None:
        chunks = list(chat(client, stream=True))
        assert chunks[0].choices[0].delta.role == "assistant"
        assert joined(chunks) == said(chat(client))
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"

    def test_done(self, sidecar: Sidecar, house: House) -> None:
        body = {"model": MODEL, "messages": ASK, "max_tokens": 2, "stream": True}
        headers = {"Authorization": f"Bearer {house.token}"}
        answer = httpx.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers)
        assert answer.text.endswith("data: [DONE]\n\n")

    def test_usage_chunk(self, client: OpenAI) -> None:
        chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens == 12

    def test_no_usage_unasked(self, client: OpenAI) -> None:
        assert all(chunk.usage is None for chunk in chat(client, stream=True))

    def test_early_first_token(self, client: OpenAI) -> None:
        started = time.monotonic()
        stream = iter(chat(client, stream=True, max_tokens=400))
        first = next(time.monotonic() for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
        assert sum(1 for _ in stream) > 10
        assert first - started < (time.monotonic() - started) / 2


class TestErrors:
    @pytest.mark.parametrize(
        ("param", "fields"),
        [
            ("messages", {"messages": []}),
            ("max_tokens", {"max_tokens": "many"}),
            ("temperature", {"temperature": 3}),
            ("n", {"n": 0}),
            ("max_tokens", {"max_tokens": -1}),
            ("messages[0].role", {"messages": [{"role": "robot", "content": "x"}]}),
        ],
        ids=["empty", "type", "range", "n", "negative", "role"],
    )
    def test_a_wrong_field_is_named(self, client: OpenAI, param: str, fields: dict[str, Any]) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, **fields)
        assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")

    def raw(self, sidecar: Sidecar, house: House, path: str, content: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"}
        return httpx.post(sidecar.url + path, content=content, headers=headers)

    def test_unknown_model(self, client: OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            chat(client, model="ann/none")
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")

    def test_missing_messages(self, sidecar: Sidecar, house: House) -> None:
        answer = self.raw(sidecar, house, "/v1/chat/completions", f'{{"model": "{MODEL}"}}')
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")

    def test_bad_json(self, sidecar: Sidecar, house: House) -> None:
        answer = self.raw(sidecar, house, "/v1/chat/completions", "{")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")

    def test_context(self, client: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, messages=[{"role": "user", "content": "weather " * 3000}])
        assert caught.value.code == "context_length_exceeded"

    def test_unknown_route(self, sidecar: Sidecar, house: House) -> None:
        answer = self.raw(sidecar, house, "/v1/nothing", "{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")

    def test_still_healthy(self, client: OpenAI, sidecar: Sidecar) -> None:
        assert httpx.get(f"{sidecar.url}/health").status_code == 200
        assert said(chat(client))


class TestKeys:
    def test_a_wrong_key(self, sidecar: Sidecar) -> None:
        stranger = OpenAI(base_url=f"{sidecar.url}/v1", api_key="hf_wrong", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()

    def test_a_private_model_is_its_readers(self, client: OpenAI, house: House, folder: Path, sidecar: Sidecar) -> None:
        upload(house, "ann/secret", folder, visibility="private")
        assert said(chat(client, model="ann/secret"))
        house.cli("user", "create", "bob")
        with OpenAI(base_url=f"{sidecar.url}/v1", api_key=house.new_token("bob"), max_retries=0) as bob:
            with pytest.raises(openai.NotFoundError):
                chat(bob, model="ann/secret")
            assert "ann/secret" not in [model.id for model in bob.models.list()]
            assert said(chat(bob))


class TestCompletions:
    def create(self, client: OpenAI, **fields: Any) -> Any:
        asked = {"model": MODEL, "prompt": "The quick", "max_tokens": 6, "temperature": 0}
        return client.completions.create(**{**asked, "extra_body": {"ignore_eos": True}, **fields})

    def test_basic(self, client: OpenAI) -> None:
        answer = self.create(client)
        assert (answer.object, answer.choices[0].finish_reason) == ("text_completion", "length")

    def test_list(self, client: OpenAI) -> None:
        answer = self.create(client, prompt=["The quick", "A model"])
        assert answer.choices[0].text == self.create(client).choices[0].text
        assert answer.choices[1].text == self.create(client, prompt="A model").choices[0].text

    def test_ids(self, client: OpenAI, words: Tokenizer) -> None:
        ids = words.encode("The quick").ids
        assert self.create(client, prompt=ids).choices[0].text == self.create(client).choices[0].text

    def test_echo(self, client: OpenAI) -> None:
        assert self.create(client, echo=True).choices[0].text == "The quick" + self.create(client).choices[0].text

    def test_logprobs(self, client: OpenAI) -> None:
        scores = self.create(client, logprobs=2).choices[0].logprobs
        assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.text_offset) == 6

    def test_n(self, client: OpenAI) -> None:
        assert len(self.create(client, n=2, temperature=1).choices) == 2

    def test_stream(self, client: OpenAI) -> None:
        text = "".join(chunk.choices[0].text for chunk in self.create(client, stream=True))
        assert text == self.create(client).choices[0].text

    def test_stop(self, client: OpenAI) -> None:
        text = self.create(client).choices[0].text
        answer = self.create(client, stop=text[3:5])
        assert answer.choices[0].text == text[: text.index(text[3:5])]
        assert answer.choices[0].finish_reason == "stop"

    def test_scoring_and_suffix_are_refused_aloud(self, client: OpenAI) -> None:
        for fields, param in (({"max_tokens": 0}, "max_tokens"), ({"suffix": "x"}, "suffix")):
            with pytest.raises(openai.BadRequestError) as caught:
                self.create(client, **fields)
            assert caught.value.param == param


class TestOperations:
    def test_health_ready_version_metrics(self, sidecar: Sidecar) -> None:
        for path in ("/health", "/ready", "/version"):
            assert httpx.get(sidecar.url + path).status_code == 200
        assert "weightroom_requests_total" in httpx.get(f"{sidecar.url}/metrics").text

    def test_request_id(self, sidecar: Sidecar) -> None:
        assert httpx.get(f"{sidecar.url}/health", headers={"X-Request-Id": "a-1"}).headers["x-request-id"] == "a-1"

    def test_health_is_quick_while_busy_and_eight_are_faster_than_one(self, client: OpenAI, sidecar: Sidecar) -> None:
        def one(seed: int) -> int:
            return int(chat(client, max_tokens=150, temperature=1, seed=seed).usage.completion_tokens)

        started = time.monotonic()
        alone = sum(one(seed) for seed in range(2)) / (time.monotonic() - started)
        times = []
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(one, seed) for seed in range(8)]
            for _ in range(5):
                asked = time.monotonic()
                assert httpx.get(f"{sidecar.url}/health").status_code == 200
                times.append(time.monotonic() - asked)
            together = sum(each.result() for each in running) / (time.monotonic() - started)
        assert sorted(times)[2] < 0.3
        assert together >= 1.5 * alone

    def test_a_short_request_is_not_stuck_behind_a_long_one(self, client: OpenAI) -> None:
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(chat, client, max_tokens=1500)
            for _ in range(3):
                chat(client, max_tokens=2)
            assert not long.done()
            assert long.result().usage.completion_tokens == 1500

    def test_a_stream_that_is_left_is_cancelled(self, client: OpenAI, sidecar: Sidecar) -> None:
        before = sidecar.gauge("weightroom_cancels_total")
        stream = chat(client, max_tokens=1900, stream=True)
        next(iter(stream))
        stream.close()
        sidecar.until_idle(3)
        assert sidecar.gauge("weightroom_cancels_total") == before + 1

    def test_a_plain_request_that_is_left_is_cancelled(self, client: OpenAI, sidecar: Sidecar) -> None:
        before = sidecar.gauge("weightroom_cancels_total")
        with pytest.raises(openai.APITimeoutError):
            chat(client, max_tokens=1900, timeout=0.3)
        sidecar.until_idle(3)
        assert sidecar.gauge("weightroom_cancels_total") == before + 1


def test_a_push_moves_the_branch_and_the_old_commit_keeps_its_name(
    client: OpenAI, house: House, tmp_path: Path
) -> None:
    moving = "ann/moving"
    make_chat_model(tmp_path / "first", 1)
    make_chat_model(tmp_path / "next", 2)
    older = upload(house, moving, tmp_path / "first")
    raw = client.chat.completions.with_raw_response.create(model=moving, messages=ASK, max_tokens=2)
    assert raw.headers["x-model-commit"] == older
    newer = upload(house, moving, tmp_path / "next")
    until = time.monotonic() + 60
    while raw.headers["x-model-commit"] != newer:
        assert time.monotonic() < until
        time.sleep(0.1)
        raw = client.chat.completions.with_raw_response.create(model=moving, messages=ASK, max_tokens=2)
    fixed = client.chat.completions.with_raw_response.create(model=f"{moving}@{older}", messages=ASK, max_tokens=2)
    assert fixed.headers["x-model-commit"] == older
