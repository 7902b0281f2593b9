"""A stand-in for a vLLM server: the documented routes over a small transformers model, with faults to switch on.

Where it matters it behaves as the real one was seen to: requests hang while it is paused, a missing tensor leaves the
old one in place with HTTP 200, a bad path is a 500, and the weights' version is whatever it was told.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from safetensors.torch import load_file
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from transformers import AutoModelForCausalLM, PreTrainedModel


@dataclass
class StandIn:
    """The state of a server. The faults:

    raw_logprobs     gives log-probs as they are before the temperature is applied
    temperature      samples at that temperature, whatever is asked for
    top_p            cuts the distribution to that, whatever is asked for, and gives the log-probs of what is left
    keeps_weights    says 200 to new weights and goes on with the old ones
    keeps_tensor     takes all new weights but the one of this name
    forgets_version  goes on with the old version
    dies_after       answers that many prompts, then 500 for ever
    holds_load       takes new weights for the n-th time (from 0) only when `load_may_end` is set
    max_length       has room for that many tokens, and cuts answers short without a word
    no_dev_mode      has no routes that replace weights
    """

    model: PreTrainedModel
    url: str = ""
    version: str = "default"
    raw_logprobs: bool = False
    temperature: float | None = None
    top_p: float = 1.0
    keeps_weights: bool = False
    keeps_tensor: str = ""
    holds_load: int | None = None
    forgets_version: bool = False
    dies_after: int | None = None
    max_length: int = 512
    no_dev_mode: bool = False
    num_answers: int = 0
    loaded: list[str] = field(default_factory=list)
    running: threading.Event = field(default_factory=threading.Event)
    load_began: threading.Event = field(default_factory=threading.Event)
    load_may_end: threading.Event = field(default_factory=threading.Event)

    def app(self) -> Starlette:
        routes = [
            Route("/health", self.health),
            Route("/version", lambda _: JSONResponse({"version": "0.32.0"})),
            Route("/inference/v1/generate", self.generate, methods=["POST"]),
        ]
        if not self.no_dev_mode:
            routes += [
                Route("/is_paused", lambda _: JSONResponse({"is_paused": not self.running.is_set()})),
                Route("/weight_info", lambda _: JSONResponse({"weight_version": self.version})),
                Route("/get_world_size", lambda _: JSONResponse({"world_size": 1})),
                Route("/pause", self.pause, methods=["POST"]),
                Route("/resume", self.resume, methods=["POST"]),
                Route("/reset_prefix_cache", lambda _: JSONResponse({"success": True}), methods=["POST"]),
                Route("/collective_rpc", self.collective_rpc, methods=["POST"]),
                Route("/update_weight_version", self.update_version, methods=["POST"]),
            ]
        return Starlette(routes=routes)

    @property
    def is_dead(self) -> bool:
        return self.dies_after is not None and self.num_answers >= self.dies_after

    def health(self, _: Request) -> Response:
        return Response(status_code=503 if self.is_dead else 200)

    def pause(self, request: Request) -> Response:
        mode = request.query_params.get("mode", "abort")
        if mode not in ("abort", "wait", "keep"):
            return refusal(400, f"Input should be 'abort', 'wait' or 'keep', not {mode!r}")
        self.running.clear()
        return JSONResponse({"status": "paused"})

    def resume(self, _: Request) -> Response:
        self.running.set()
        return JSONResponse({"status": "resumed"})

    async def collective_rpc(self, request: Request) -> Response:
        body = await read_json(request)
        if "method" not in body:
            return refusal(400, "Missing 'method' in request body")
        if body["method"] != "reload_weights":
            return refusal(500, f"'CPUWorker' object has no attribute '{body['method']}'")
        folder = Path(body["kwargs"]["weights_path"])
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            return refusal(500, f"Call to collective_rpc method failed: '{folder}'")
        return await _in_thread(self._load, folder.name, files)

    def _load(self, name: str, files: list[Path]) -> Response:
        if self.holds_load == len(self.loaded):
            self.load_began.set()
            self.load_may_end.wait()
        tensors = {key: tensor for file in files for key, tensor in load_file(file).items()}
        tensors.pop(self.keeps_tensor, None)
        if not self.keeps_weights:
            try:
                self.model.load_state_dict(tensors, strict=False)
            except RuntimeError as error:  # another shape
                return refusal(500, f"Call to collective_rpc method failed: {error}")
        self.loaded.append(name)
        return JSONResponse({"results": [None]})

    async def update_version(self, request: Request) -> Response:
        body = await read_json(request)
        if "new_version" not in body:
            return refusal(400, "Field required: body.new_version")
        if not self.forgets_version:
            self.version = body["new_version"]
        return JSONResponse({"success": True, "new_version": body["new_version"]})

    async def generate(self, request: Request) -> Response:
        body = await read_json(request)
        return await _in_thread(self._generate, body)

    def _generate(self, body: dict[str, Any]) -> Response:
        if missing := [key for key in ("token_ids", "sampling_params") if key not in body]:
            return refusal(400, f"{len(missing)} validation errors: {missing}")
        ids = body["token_ids"]
        if not ids:
            return refusal(400, "List should have at least 1 item after validation, not 0")
        if bad := [i for i in ids if i >= self.model.config.vocab_size]:
            return refusal(400, f"Token id {bad[0]} is out of vocabulary")
        if len(ids) > self.max_length:
            return refusal(400, f"The decoder prompt (length {len(ids)}) is longer than {self.max_length}")
        self.running.wait()
        if self.is_dead:
            return refusal(500, "EngineCore encountered an issue.")
        self.num_answers += 1
        return JSONResponse(self._answer(ids, body["sampling_params"]))

    @torch.no_grad()
    def _answer(self, ids: list[int], parameters: dict[str, Any]) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(parameters["seed"])
        stop_ids = parameters.get("stop_token_ids", [])
        tokens: list[int] = []
        content: list[dict[str, Any]] = []
        room = min(parameters["max_tokens"], self.max_length - len(ids))
        while len(tokens) < room and not (tokens and tokens[-1] in stop_ids):
            logits = self.model(torch.tensor([ids + tokens])).logits[0, -1].float()
            hot = cut((logits / (self.temperature or parameters["temperature"])).log_softmax(-1), self.top_p)
            token = int(torch.multinomial(hot.exp(), 1, generator=generator))
            told = logits.log_softmax(-1) if self.raw_logprobs else hot
            tokens.append(token)
            content.append({"token_id": token, "logprob": float(told[token])})
        choice = {
            "index": 0,
            "finish_reason": "stop" if tokens[-1] in stop_ids else "length",
            "token_ids": tokens,
            "weight_versions": [{"version": self.version, "start": 0, "end": len(tokens)}],
            "logprobs": {"content": content},
        }
        return {"choices": [choice], "output_mode": "tokens"}


def cut(logprobs: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the likeliest tokens that hold `top_p` of the probability, and let it be theirs."""
    ordered, ids = logprobs.exp().sort(descending=True)
    dropped = ids[ordered.cumsum(0) - ordered >= top_p]
    return logprobs.index_fill(0, dropped, -torch.inf).log_softmax(-1) if top_p < 1 else logprobs


def refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": status}}, status)


async def read_json(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(await request.body())
    return body


async def _in_thread(function: Any, *arguments: Any) -> Response:
    from starlette.concurrency import run_in_threadpool

    response: Response = await run_in_threadpool(function, *arguments)
    return response


@contextmanager
def serving(folder: Path | str, *, port: int = 0, **faults: Any) -> Iterator[StandIn]:
    """Serve the model in `folder` on a port of this machine, a free one unless it is named."""
    stand_in = StandIn(AutoModelForCausalLM.from_pretrained(folder).eval(), **faults)
    stand_in.running.set()
    server = uvicorn.Server(uvicorn.Config(stand_in.app(), port=port, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    stand_in.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield stand_in
    finally:
        stand_in.running.set()
        stand_in.load_may_end.set()
        server.should_exit = server.force_exit = True
        thread.join(20)
