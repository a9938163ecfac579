"""The continuous batching of Transformers, built, and with four of its pieces replaced.

This is the only room that touches that machinery, much of which is private and moves with each minor release. Replaced
on the instance: the list of logits processors (by our sampler), the output router (by our listener), the loop body
(to take in and drop requests between two steps, on the engine's thread) and the loop itself (to hear that it ended).
Its queues stay empty: their `put` may wait ten seconds, and a cancellation that overtakes its request is lost there.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from inference.engine import Request
from inference.engines.sampler import Sampler
from inference.errors import Overloaded


@dataclass(frozen=True, slots=True)
class Settings:
    """How much one engine takes on."""

    rows: int = 32
    """Requests in one step."""
    waiting: int = 2
    """Requests held beyond those, so that a freed row is taken up at once; queues proper are the caller's."""
    batch_tokens: int = 512
    """Prompt and answer tokens in one step; longer prompts are read in pieces."""
    kv_bytes: int | None = None
    """Cache size; None takes a quarter of free memory. Never more than `rows` full contexts are reserved."""
    page: int = 256
    """Tokens of a cache page; prefixes are shared by whole pages."""
    share_prefixes: bool = True

    @classmethod
    def of(cls, model: Any) -> Settings:
        """Choose by where the model is: a GPU takes more at once, and far more of it when no mask is needed."""
        if model.device.type != "cuda":
            return cls()
        is_flash = model.config.get_text_config()._attn_implementation.startswith("flash")
        return cls(rows=256, batch_tokens=8192 if is_flash else 1024)


class Listener(Protocol):
    """What the batcher tells, always from its own thread."""

    def between_steps(self) -> None:
        """Say what to add and to drop; no request is in flight now."""
        ...

    def after_step(self) -> None:
        """Look at what the step changed."""
        ...

    def matched(self, key: str, tokens: int) -> None:
        """Hear how much of a prompt was found in shared pages."""
        ...

    def delivered(self, key: str, generated: list[int], is_finished: bool) -> None:
        """Take a request's whole answer so far."""
        ...

    def failed(self, key: str, why: str) -> None:
        """Hear that a request was given up."""
        ...

    def ended(self) -> None:
        """Hear that the thread is over, asked or not."""
        ...


class Batcher:
    """Steps a model over the requests it was given; construction reserves the cache, `start` starts the thread."""

    def __init__(self, model: Any, sampler: Sampler, settings: Settings, listener: Listener):
        """Build everything but the thread.

        Raises: Overloaded (`model_capacity`: the cache does not fit in memory).
        """
        from transformers import ContinuousBatchingConfig, GenerationConfig

        config = ContinuousBatchingConfig(
            page_size=settings.page,
            num_blocks=_blocks(model, settings),
            max_batch_tokens=settings.batch_tokens,
            max_requests_per_batch=settings.rows,
            allow_block_sharing=settings.share_prefixes,
            use_async_batching=False,
            use_cuda_graph=False,
            auto_switch_to_flash=False,
        )
        manager = model.init_continuous_batching(GenerationConfig(do_sample=False, eos_token_id=-1), config)
        manager.logit_processor = _Chooser(sampler)
        manager.output_router = _Router(listener)
        self._manager, self._listener = manager, listener
        self._step, self._loop = manager._generation_loop_body, manager._run_generation_loop
        manager._generation_loop_body = self._turn
        try:
            manager.warmup()
        except (MemoryError, ValueError) as error:
            raise Overloaded(f"no room for the cache of this model: {error}", code="model_capacity") from error
        cache = self._cache = manager.batch_processor.cache
        self._match, cache.search_prefix_match = cache.search_prefix_match, self._search
        self.longest = _longest(cache)
        self.kv_total = int(cache.num_blocks * settings.page)
        self.reserved = _reserved(manager.batch_processor)

    def start(self) -> None:
        """Start the thread, as a daemon: theirs is none, and would keep alive a process that ends by an exception."""
        manager = self._manager
        manager.background_thread_status.clear()
        manager._generation_thread = threading.Thread(target=self._run, name="engine", daemon=True)
        manager._generation_thread.start()

    def wake(self) -> None:
        """Make an idle thread look for work; cheap, from any thread."""
        self._manager._wake_up_loop.set()

    def add(self, key: str, slot: int, request: Request) -> None:
        """Queue a request under `key`; only from `between_steps`. `slot` is its line in the sampler's tables."""
        self._manager.add_request(
            list(request.ids),
            request_id=key,
            max_new_tokens=request.max_new,
            streaming=True,
            eos_token_id=sorted(request.stop_ids),
            slot=slot,
        )

    def drop(self, key: str) -> None:
        """Forget a request and free its pages before the next step; only from `between_steps`."""
        self._manager.batch_processor.scheduler.set_request_cancellation(key)

    def kv_used(self) -> int:
        """Count the tokens whose pages are taken; only from the batcher's thread."""
        return round(self.kv_total * (1 - float(self._cache.compute_free_capacity())))

    def stop(self, seconds: float) -> bool:
        """Stop after the running step; False if it did not stop in time. Afterwards nothing of the model is held."""
        self._manager.stop(block=True, timeout=seconds, hard_stop=True)
        if self._manager.is_running():
            return False
        self._manager.destroy()
        self._manager = self._cache = self._step = self._loop = self._match = None
        return True

    def _turn(self, processor: Any, bootstrapping: bool) -> bool:
        self._listener.between_steps()
        is_more = bool(self._step(processor, bootstrapping))
        self._listener.after_step()
        return is_more

    def _run(self) -> None:
        try:
            self._loop()
        finally:
            self._listener.ended()

    def _search(self, key: str, ids: list[int]) -> int:
        found = int(self._match(key, ids))
        self._listener.matched(key, found)
        return found


class _Chooser:
    """Stands where the batcher expects its list of logits processors; `slot` of a request is its one argument."""

    tensors_required = 1
    do_processing = True

    def __init__(self, sampler: Sampler):
        self._sampler = sampler

    def check_kwargs(self, kwargs: dict[str, object]) -> None:
        """Accept what `Batcher.add` passes."""

    def fill_defaults(self, table: Any) -> None:
        """Point padding at the neutral row."""
        table.fill_(self._sampler.spare)

    def prepare_tensor_args(self, requests_in_batch: list[Any], arg_storage: Any) -> Any:
        """Write the slots of the rows that get a token this step; the rest of the line stays neutral."""
        slots = [row.state.logit_processor_kwargs["slot"] for row in requests_in_batch if row.has_new_token]
        arg_storage[0].fill_(self._sampler.spare)
        arg_storage[0, : len(slots)] = self._sampler.plan(slots)
        return arg_storage

    def __call__(self, input_ids: Any, scores: Any, logits_processor_args: Any) -> Any:
        """Return scores whose argmax is the sample."""
        return self._sampler(scores, logits_processor_args[0][: len(scores)])


class _Router:
    """Stands where the batcher expects its output router."""

    def __init__(self, listener: Listener):
        self._listener = listener

    def deliver(self, output: Any) -> None:
        """Pass on one request's output."""
        self._listener.delivered(output.request_id, output.generated_tokens, output.is_finished())

    def deliver_batch(self, outputs: list[Any]) -> None:
        """Pass on what one step gave."""
        for output in outputs:
            self.deliver(output)

    def fail_and_deliver(self, state: Any, error: Exception) -> None:
        """Pass on that a request was given up."""
        self._listener.failed(state.request_id, repr(error))


def _blocks(model: Any, settings: Settings) -> int:
    """Turn the byte budget of the cache into blocks of one page in every layer."""
    text = model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token = text.num_hidden_layers * 2 * heads * width * model.dtype.itemsize
    if not text._attn_implementation.startswith("flash"):
        # Without a flash kernel the batcher keeps a mask of every batch token over every cached one.
        token += settings.batch_tokens * model.dtype.itemsize
    block = token * settings.page
    budget = settings.kv_bytes if settings.kv_bytes is not None else _free_memory(model.device) // 4
    whole = -(-int(text.max_position_embeddings) // settings.page)
    return int(max(2, min(budget // block, settings.rows * whole)))


def _free_memory(device: Any) -> int:
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").is_file() else []
    available = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    # Pages that only cache files count as free there, and not in what sysconf knows.
    return int(available[0]) * 1024 if available else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _longest(cache: Any) -> int:
    """Find how many tokens one request may hold when it is alone; more would end the batcher's thread."""
    from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens

    return int(infer_max_single_request_tokens(cache))


def _reserved(processor: Any) -> int:
    """Count what is kept beside the weights: the cache and the attention mask over it."""
    masks = processor.inputs_and_outputs.attention_mask or {}
    return int(processor.cache.cache_tensor.nbytes) + sum(int(mask.nbytes) for mask in masks.values())
