"""`rlhf serve-reward`: the reward of a ppo configuration behind HTTP, for runs elsewhere (`reward: [{kind: http}]`).

The contract is that of `reward/served.py`. Token ids are scored as they come; where a request has none, its texts
are encoded as the policy's own.
"""

import json
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rlhf_cli.config.sections import HttpReward, reward_model_paths
from rlhf_cli.config.stages import PpoConfig
from rlhf_cli.data import fields
from rlhf_cli.data.encode import Encoder
from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import ConfigError, RlhfError, UnavailableError
from rlhf_cli.models import device
from rlhf_cli.models.heads import ScoreScale, load_reward_model
from rlhf_cli.models.load import Vocabulary, load_vocabulary
from rlhf_cli.records import Demonstration
from rlhf_cli.reward.build import Outside, build_scorers
from rlhf_cli.reward.scorer import Scorer, combine
from rlhf_cli.reward.served import SCHEMA

_MOST_BYTES = 64 * 2**20
_POLL_SECONDS = 0.1


def serve(
    config: PpoConfig, host: str, port: int, *, should_stop: Callable[[], bool], say: Callable[[str], None]
) -> None:
    """Serve until asked to stop. Raises ConfigError, UnavailableError for a taken port, and what loading raises."""
    if any(isinstance(source, HttpReward) for source in config.reward):
        raise ConfigError(
            "a reward of kind http would be asked of another server, or of this one",
            where="reward",
            fix="serve a configuration whose rewards are computed here",
        )
    desk = open_desk(config)
    with _listen(host, port) as listener:
        server = uvicorn.Server(
            uvicorn.Config(make_app(desk), log_config=None, lifespan="off", server_header=False)
        )
        # A thread of its own leaves signals to the command.
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        say(f"scores at http://{host}:{listener.getsockname()[1]}/score; Ctrl-C stops")
        while thread.is_alive() and not should_stop():
            thread.join(_POLL_SECONDS)
        server.should_exit = True
        thread.join()


@dataclass(frozen=True)
class ScoreDesk:
    """What scores answers, one request at a time: models are not for several threads at once."""

    scorers: Sequence[tuple[Scorer, float]]
    encoder: Encoder
    turn: threading.Lock

    def score(self, items: Sequence[fields.Row]) -> list[float]:
        """Score items. Raises BadRow for one that cannot be read, RlhfError for one that cannot be scored."""
        episodes = [self._episode(item) for item in items]
        with self.turn:
            return combine(self.scorers, episodes)[0]

    def _episode(self, item: fields.Row) -> Episode:
        prompt, completion = fields.text(item, "prompt"), fields.string(item, "completion")
        finished = item.get("finished", True)
        if not isinstance(finished, bool):
            raise fields.BadRow("field 'finished' is neither true nor false")
        if "completion_ids" in item:
            prompt_ids, completion_ids = _ids(item, "prompt_ids"), _ids(item, "completion_ids")
        else:
            prompt_ids, completion_ids = self._encode(Demonstration(prompt, completion, "request"), finished)
        return Episode(prompt, prompt_ids, completion_ids, completion, finished)

    def _encode(self, record: Demonstration, finished: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rows = self.encoder.demonstrations([record])
        if not rows:
            raise fields.BadRow(
                f"prompt and completion exceed {self.encoder.max_length} tokens, or are empty"
            )
        ids, num_prompt = tuple(int(i) for i in rows[0].input_ids), rows[0].num_prompt
        answer = ids[num_prompt:]
        return ids[:num_prompt], answer if finished else answer[:-1]


def open_desk(config: PpoConfig) -> ScoreDesk:
    """Load what the `reward` section names."""
    vocabulary: Vocabulary = load_vocabulary(config.model)
    models = {path: load_reward_model(path) for path in reward_model_paths(config.reward)}
    place = device.pick_device()
    sizes = [device.num_parameters(model.loaded.model) for model in models.values()]
    scorers = build_scorers(
        config.reward,
        {path: (model.loaded, model.scale or ScoreScale()) for path, model in models.items()},
        vocabulary,
        micro_tokens=device.micro_tokens_for(config.train.micro_tokens, place),
        autocast=device.autocast_for(config.train.precision, place, max(sizes, default=0)),
        outside=Outside(Path(), lambda: False),
    )
    encoder = Encoder(
        vocabulary.tokenizer,
        stop_ids=vocabulary.stop_ids,
        template=config.data.template,
        max_length=vocabulary.max_positions or 2**31,
        over_length="drop",
    )
    return ScoreDesk(scorers, encoder, threading.Lock())


def make_app(desk: ScoreDesk) -> Starlette:
    """Make the application: POST /score, GET /health."""

    async def score(request: Request) -> Response:
        body = await _json_of(request)
        items = body.get("items") if isinstance(body, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            return _refusal(400, f'send {{"schema": "{SCHEMA}", "items": [...]}}')
        if body.get("schema", SCHEMA) != SCHEMA:
            return _refusal(400, f"schema is {body['schema']!r}, this server speaks {SCHEMA}")
        try:
            return JSONResponse({"scores": await run_in_threadpool(desk.score, items)})
        except fields.BadRow as error:
            return _refusal(400, str(error))
        except RlhfError as error:
            return _refusal(422, str(error))

    return Starlette(
        routes=[
            Route("/score", score, methods=["POST"]),
            Route("/health", lambda _: JSONResponse({"status": "ok"})),
        ]
    )


async def _json_of(request: Request) -> Any:
    """Read a JSON body, None where it is none or too large to be meant."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _MOST_BYTES:
            return None
        parts.append(part)
    try:
        return json.loads(b"".join(parts))
    except ValueError:
        return None


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _ids(item: fields.Row, name: str) -> tuple[int, ...]:
    ids = item.get(name)
    if not isinstance(ids, list) or not all(isinstance(i, int) and i >= 0 for i in ids):
        raise fields.BadRow(f"field {name!r} is not a list of token ids")
    return tuple(ids)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UnavailableError(
            f"cannot listen on {host}, port {port}: {error}",
            where="--port",
            fix="stop what listens there, or choose another port",
        ) from error
