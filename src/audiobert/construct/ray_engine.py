"""Run batch inference by Ray Data with vLLM on every GPU of a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from audiobert.construct.llm_settings import LlmSettings
from audiobert.errors import MissingExtraError, RemoteError, needs
from audiobert.llm.chat import Completion, Request, Traffic

# Requests per Ray job. A killed run loses at most the batches that were in the engine.
_SHARD = 20_000


class RayEngine:
    """Ray Data with vLLM: `engine_kwargs` go to vLLM, `concurrency` is the number of engines.

    `make_processor` builds the Ray Data processor from a preprocess and a postprocess function; by default vLLM's.
    """

    def __init__(
        self,
        settings: LlmSettings,
        traffic: Traffic,
        make_processor: Callable[[Callable[..., Any], Callable[..., Any]], Callable[[Any], Any]] | None = None,
    ) -> None:
        with needs("ray[data]", "scale"):
            from ray.data import llm  # noqa: F401
        self.settings, self.traffic = settings, traffic
        self._make_processor = make_processor or self._vllm

    def _vllm(self, preprocess: Callable[..., Any], postprocess: Callable[..., Any]) -> Callable[[Any], Any]:
        from importlib.util import find_spec

        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        if find_spec("vllm") is None:
            raise MissingExtraError("vllm") from None
        config = vLLMEngineProcessorConfig(
            model_source=self.settings.model,
            engine_kwargs=self.engine_kwargs(),
            concurrency=self.settings.concurrency,
            batch_size=self.settings.batch_size,
            should_continue_on_error=True,
        )
        return build_processor(config, preprocess=preprocess, postprocess=postprocess)

    def engine_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of vLLM: safetensors alone, no remote code."""
        fixed = {"load_format": "safetensors", "trust_remote_code": False}
        return {"enable_prefix_caching": True, **self.settings.engine_kwargs, **fixed}

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completion]]]:
        """Complete chats in shards; yield each completion as its batch arrives."""
        import ray

        ray.data.DataContext.get_current().enable_progress_bars = False
        processor = self._make_processor(self._preprocess(), _postprocess)
        for start in range(0, len(requests), _SHARD):
            shard = requests[start : start + _SHARD]
            rows = [
                {"index": index, "messages": json.dumps(request.messages), "schema": json.dumps(request.schema)}
                for index, request in enumerate(shard, start)
            ]
            answered = 0
            try:
                for row in processor(ray.data.from_items(rows)).iter_rows():
                    completion = _completion(row)
                    self.traffic.requests += 1
                    if completion.finish == "refused":
                        self.traffic.fault("engine")
                    else:
                        self.traffic.count(completion)
                    answered += 1
                    yield [(int(row["index"]), completion)]
            except ray.exceptions.RayError as error:
                raise RemoteError(
                    f"the Ray job failed ({type(error).__name__}: {str(error).strip().splitlines()[-1][:200]})"
                ) from None
            if answered < len(shard):
                raise RemoteError(f"the Ray job answered {answered} of {len(shard)} requests")

    def _preprocess(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        settings = self.settings.sampling()
        structured = self.settings.structured in ("auto", "json_schema")

        def preprocess(row: dict[str, Any]) -> dict[str, Any]:
            sampling = dict(settings)
            if structured:
                sampling["structured_outputs"] = {"json": row["schema"]}
            return {"index": row["index"], "messages": json.loads(row["messages"]), "sampling_params": sampling}

        return preprocess


def _postprocess(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in ("index", "generated_text", "num_input_tokens", "num_generated_tokens")}


def _completion(row: dict[str, Any]) -> Completion:
    if error := row.get("__inference_error__"):
        return Completion(str(error)[:200], "refused")
    counts = [row.get(name) for name in ("num_input_tokens", "num_generated_tokens")]
    prompt_tokens, completion_tokens = (int(count) if count is not None else None for count in counts)
    return Completion(str(row.get("generated_text") or ""), "stop", prompt_tokens, completion_tokens)
