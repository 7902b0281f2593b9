"""A desk in memory: what the pages need of one, with an order that tests can foresee."""

from dataclasses import dataclass, field

from rlhf_cli.errors import RunConflictError
from rlhf_cli.preference.ballots import Vote
from rlhf_cli.preference.desk import PastVote, Progress
from rlhf_cli.preference.labeler import Question, Verdict, unblind
from rlhf_cli.records import Text


@dataclass
class ScriptedDesk:
    """Everybody is asked every question, in order; `votes` maps (annotator, presentation) to the verdict in force."""

    questions: list[tuple[Text, str, str]]
    votes: dict[tuple[str, int], Verdict] = field(default_factory=dict)
    keys: dict[str, object] = field(default_factory=dict)

    def next(self, annotator: str) -> Question | None:
        for index, (prompt, first, second) in enumerate(self.questions, 1):
            if (annotator, index) not in self.votes:
                return Question(
                    pair_id=index,
                    presentation_id=index,
                    prompt=prompt,
                    first=first,
                    second=second,
                    number=index,
                    total=len(self.questions),
                )
        return None

    def vote(self, annotator: str, presentation_id: int, verdict: Verdict, *, key: str) -> None:
        if key in self.keys:
            return
        if (annotator, presentation_id) in self.votes:
            raise RunConflictError("this question is answered already", where="/secret/sft-model/collect.db")
        self.keys[key] = verdict
        self.votes[annotator, presentation_id] = verdict

    def undo(self, annotator: str, *, key: str) -> Question | None:
        mine = [place for place in self.votes if place[0] == annotator]
        if mine and key not in self.keys:
            self.keys[key] = "undone"
            del self.votes[mine[-1]]
        return self.next(annotator)

    def progress(self, annotator: str) -> Progress:
        mine = sum(name == annotator for name, _ in self.votes)
        total = len(self.questions)
        return Progress(mine=mine, done=mine, total=total)

    def history(self, annotator: str, limit: int = 20) -> list[PastVote]:
        mine = [(index, verdict) for (name, index), verdict in self.votes.items() if name == annotator]
        return [
            PastVote(index, str(self.questions[index - 1][0]), verdict)
            for index, verdict in mine[::-1][:limit]
        ]

    def ballots(self) -> list[Vote]:
        """Return the votes in force; response 1 is always shown first."""
        return [
            Vote(index, unblind(verdict.winner, 1), name, verdict.reason, verdict.seconds)
            for (name, index), verdict in self.votes.items()
        ]
