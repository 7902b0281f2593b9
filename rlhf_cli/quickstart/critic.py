"""A scripted critic of the example behind HTTP: `python -m rlhf_cli.quickstart.critic --port-file FILE`.

No model stands behind it. It criticises, revises and compares answers by the rules of the example's own world, as a
chat model of practical size would by reading; no model of the example's size can. It speaks as much of the OpenAI
chat-completions format as critics and judges need, so that all of `kind: constitution` runs offline.
"""

import argparse
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rlhf_cli.preference.constitution.principles import Principle, load_principles
from rlhf_cli.quickstart import gold, world
from rlhf_cli.run.directory import write_atomic

SHARPNESS = 6.0
"""How surely it prefers an answer, per unit of the part of the gold score that is compared."""

_RUDE = frozenset(world.RUDE_OPENERS + world.RUDE_CLOSERS)
_POLITE = frozenset(world.OPENERS + world.CLOSERS)
_FILLERS = frozenset(world.RAMBLES)


def main() -> None:
    """Serve until killed; the port goes into the file, because only then is it known and open."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_cli.quickstart.critic", description=__doc__)
    parser.add_argument(
        "--principles", required=True, help="the file that requests take their principles from"
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the port")
    options = parser.parse_args()
    principles = load_principles(options.principles)
    with ThreadingHTTPServer(("127.0.0.1", options.port), handler(principles)) as server:
        write_atomic(options.port_file, f"{server.server_address[1]}\n")
        server.serve_forever()


def handler(principles: Sequence[Principle]) -> type[BaseHTTPRequestHandler]:
    """Make the class that answers requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            payload = json.dumps(reply(body, principles)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def reply(body: Mapping[str, Any], principles: Sequence[Principle]) -> dict[str, object]:
    """Answer one chat-completions request about the example: a comparison, a critique or a revision."""
    text = str(body["messages"][-1]["content"])
    prompt = _between(text, "conversation") or _between(text, "request")
    if "<answer-A-" in text:
        return _compared(
            prompt + "\n", _between(text, "answer-A"), _between(text, "answer-B"), text, principles
        )
    answer = _between(text, "answer")
    for principle in principles:
        if principle.critique in text:
            return _said(criticise(principle.id, prompt, answer))
        if principle.revision in text:
            return _said(revise(principle.id, prompt, answer))
    raise ValueError("the request names none of the principles")


def criticise(principle: str, prompt: str, answer: str) -> str:
    """Say whether an answer falls short of one part of the gold score."""
    if gold.parts(prompt, answer, asked(prompt)[1])[principle] >= 1.0:
        return "Nothing is wrong with the answer by this principle."
    return f"The answer falls short: {principle}."


def revise(principle: str, prompt: str, answer: str) -> str:
    """Mend one part of an answer and leave the rest."""
    sentences = [sentence.strip() for sentence in re.findall(r"[^.!?]+[.!?]?", answer.strip())]
    return " ".join(_REVISIONS[principle](prompt, sentences))


def asked(prompt: str) -> tuple[int, str]:
    """Read which facet the visitor asks about, and its value on the sign. Raises ValueError for other prompts."""
    sign, _, rest = prompt.partition("\n")
    for index, facet in enumerate(world.FACETS):
        questions = "|".join(re.escape(words).replace(r"\{\}", r"\w+") for words in facet.questions)
        if re.search(questions, rest):
            found = re.search(facet.phrase.format(f"({'|'.join(facet.values)})"), sign)
            if found:
                return index, found[1]
    raise ValueError("not a request of the example")


def _state(prompt: str, sentences: list[str]) -> list[str]:
    """Let one right statement stand where statements and evasions stood."""
    name = prompt.split()[1]
    statement = f"Our {name} {world.say(*asked(prompt))}."
    known = _RUDE | _POLITE | _FILLERS
    place = next((i for i, sentence in enumerate(sentences) if sentence not in known), len(sentences))
    before = [sentence for sentence in sentences[:place] if sentence not in world.CLOSERS]
    after = [sentence for sentence in sentences[place:] if sentence in known]
    return [*before, statement, *after]


def _be_polite(_: str, sentences: list[str]) -> list[str]:
    kept = [sentence for sentence in sentences if sentence not in _RUDE]
    return kept if _POLITE.intersection(kept) else [world.OPENERS[0], *kept]


def _be_brief(_: str, sentences: list[str]) -> list[str]:
    return [sentence for sentence in dict.fromkeys(sentences) if sentence not in _FILLERS] or sentences


def _be_whole(prompt: str, sentences: list[str]) -> list[str]:
    whole = [it for it in dict.fromkeys(sentences) if gold.parts(prompt, it, asked(prompt)[1])["form"] == 1.0]
    return whole or _state(prompt, [])


_REVISIONS: Mapping[str, Callable[[str, list[str]], list[str]]] = {
    "fact": _state,
    "courtesy": _be_polite,
    "concise": _be_brief,
    "form": _be_whole,
}


def _compared(
    prompt: str, first: str, second: str, text: str, principles: Sequence[Principle]
) -> dict[str, object]:
    """Prefer the answer that is better in the parts the request names."""
    answer = asked(prompt)[1]
    one, two = gold.parts(prompt, first, answer), gold.parts(prompt, second, answer)
    named = [principle.id for principle in principles if principle.compare and principle.compare in text]
    difference = sum(one[name] - two[name] for name in named) / max(1, len(named))
    p_first = 1 / (1 + math.exp(-SHARPNESS * difference))
    chances = sorted((("A", p_first), ("B", 1 - p_first)), key=lambda it: -it[1])
    listed = [{"token": label, "logprob": math.log(p)} for label, p in chances]
    return _said(chances[0][0], {"content": [{**listed[0], "top_logprobs": listed}]})


def _between(text: str, name: str) -> str:
    found = re.search(rf"<{name}-([0-9a-f]{{10}})>\n(.*?)\n</{name}-\1>", text, re.DOTALL)
    return found[2] if found else ""


def _said(content: str, logprobs: object = None) -> dict[str, object]:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
    return {"object": "chat.completion", "model": "critic", "choices": [choice]}


if __name__ == "__main__":
    main()
