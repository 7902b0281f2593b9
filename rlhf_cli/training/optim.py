"""AdamW with a schedule, global-norm clipping per role, and division by the step's weight."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rlhf_cli.config.sections import Optim
from rlhf_cli.models.gradients import add_gradients_in_place
from rlhf_cli.models.parallel import fill, whole
from rlhf_cli.run.ranks import Ranks
from rlhf_cli.training.guards import NotFinite

_ELEMENTS_AT_ONCE = 2**24  # of gradients that are added up over processes


@dataclass(frozen=True, slots=True)
class Role:
    """One trained model under its name, with its peak learning rate. Each role is clipped on its own."""

    name: str
    module: nn.Module
    lr: float

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """List what learns, by name; shared parameters once."""
        return [(f"{self.name}.{n}", p) for n, p in self.module.named_parameters() if p.requires_grad]


def lr_factor(step: int, num_steps: int, *, schedule: str, warmup: float, final_ratio: float) -> float:
    """Give the learning rate of step `step` (from 0) as a share of the peak.

    Linear warm-up over `warmup * num_steps` steps, then constant, or linear or cosine down to `final_ratio`.
    """
    num_warmup = round(warmup * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    if schedule == "constant":
        return 1.0
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    shape = 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return final_ratio + (1 - final_ratio) * shape


class Updater:
    """Turns accumulated gradient sums into one optimizer step, on all processes the same."""

    def __init__(
        self, roles: Sequence[Role], optim: Optim, num_steps: int, ranks: Ranks | None = None
    ) -> None:
        self.roles = roles
        self.ranks = ranks or Ranks()
        self.step_count = 0
        self._settings = optim
        self._num_steps = num_steps
        for role in roles:
            add_gradients_in_place(role.module)
        groups = [group for role in roles for group in _decay_groups(role, optim.weight_decay)]
        self._optimizer = torch.optim.AdamW(groups, betas=optim.betas, eps=optim.eps, fused=True)

    def step(self, weight: float) -> dict[str, float]:
        """Add gradients up, divide by `weight` of all, clip, step, clear. Returns lr and gradient norms.

        Raises NotFinite before anything is changed when a norm is not finite.
        """
        add_up_gradients([parameter for _, parameter in self._named()], self.ranks)
        norms = {role.name: self._norm(role, weight) for role in self.roles}
        factor = self._factor()
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        self._optimizer.step()
        self.skip()
        names = {name: f"grad_norm/{name}" if len(norms) > 1 else "grad_norm" for name in norms}
        return {"lr": self.roles[0].lr * factor} | {names[name]: norm for name, norm in norms.items()}

    def skip(self) -> None:
        """Count a step without an update."""
        self.clear()
        self.step_count += 1

    def clear(self) -> None:
        """Drop the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def memory_reserved(self) -> Iterator[None]:
        """Hold the memory of the moments inside the block, before the first step as after it."""
        new = [p for _, p in self._named() if p not in self._optimizer.state]
        held = [torch.empty_like(p) for p in new for _ in range(2)]
        yield
        del held

    def _norm(self, role: Role, weight: float) -> float:
        kinds = by_kind(parameter for _, parameter in role.parameters() if parameter.grad is not None)
        for parameters in kinds:
            torch._foreach_div_(gradients_of(parameters), weight)
        norm = total_norm(kinds)
        if not bool(torch.isfinite(norm)):
            raise NotFinite(
                f"the gradient of the {role.name} is not finite at step {self.step_count + 1}",
                where="optim.lr",
                fix="lower optim.lr, or look for broken rows in this step's batch: events.jsonl names them",
            )
        if self._settings.clip_norm:
            for parameters in kinds:
                torch.nn.utils.clip_grads_with_norm_(parameters, self._settings.clip_norm, norm)
        return float(norm)

    def _factor(self) -> float:
        settings = self._settings
        return lr_factor(
            self.step_count,
            self._num_steps,
            schedule=settings.schedule,
            warmup=settings.warmup,
            final_ratio=settings.final_lr_ratio,
        )

    @property
    def is_shared_out(self) -> bool:
        """Say whether weights are in parts on several processes."""
        return any(isinstance(parameter, DTensor) for _, parameter in self._named())

    def weights(self) -> dict[str, Tensor]:
        """Give every weight that learns by name, in parts where it is shared out."""
        return {name: parameter.data for name, parameter in self._named()}

    def state_tensors(self) -> dict[str, Tensor]:
        """Give the moments of every parameter by name, in parts where it is shared out."""
        tensors = {}
        for name, parameter in self._named():
            for key, value in self._optimizer.state[parameter].items():
                tensors[f"{name}/{key}"] = value
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor], step_count: int) -> None:
        """Put saved moments back, by name, together."""
        self.step_count = step_count
        for name, parameter in self._named():
            state = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"{name}/{key}" in tensors:
                    value = tensors[f"{name}/{key}"]
                    like = torch.zeros((), device=parameter.device) if key == "step" else parameter.data
                    state[key] = torch.empty_like(like, dtype=value.dtype)
                    fill(state[key], value, self.ranks)
            if state:
                self._optimizer.state[parameter] = state

    def _named(self) -> Iterable[tuple[str, nn.Parameter]]:
        return [pair for role in self.roles for pair in role.parameters()]


def by_kind(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Put parameters in parts and whole ones into lists of their own, which torch's `foreach` functions want."""
    everything = list(parameters)
    kinds = [[p for p in everything if isinstance(p, DTensor) is sharded] for sharded in (True, False)]
    return [kind for kind in kinds if kind]


def gradients_of(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """List the gradients that are there."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def total_norm(kinds: Sequence[Sequence[nn.Parameter]]) -> Tensor:
    """Measure the norm [] of all gradients, wherever their parts are."""
    if not kinds:
        return torch.zeros(())
    norms = [whole(torch.nn.utils.get_total_norm(gradients_of(kind))) for kind in kinds]
    norms = [norm.to(norms[0].device) for norm in norms]  # with cpu_offload some are on the CPU
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def add_up_gradients(parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
    """Replace the gradients of whole weights by the sums over all processes; those in parts are sums already."""
    plain = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
    if ranks.size == 1 or not plain:
        return
    # An expert that only some processes have asked has no gradient elsewhere.
    used = ranks.most([int(parameter.grad is not None) for parameter in plain])
    waiting: list[Tensor] = []
    for parameter in (parameter for parameter, is_used in zip(plain, used, strict=True) if is_used):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if waiting and (
            sum(each.numel() for each in waiting) + parameter.numel() > _ELEMENTS_AT_ONCE
            or parameter.grad.dtype != waiting[0].dtype
        ):
            _add_up_at_once(waiting, ranks)
            waiting = []
        waiting.append(parameter.grad)
    if waiting:
        _add_up_at_once(waiting, ranks)


def _add_up_at_once(tensors: Sequence[Tensor], ranks: Ranks) -> None:
    sums = ranks.add_up(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = torch.split(sums, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _decay_groups(role: Role, weight_decay: float) -> list[dict[str, object]]:
    """Split a role's parameters: matrices decay; vectors (norms, biases) do not."""
    groups: list[dict[str, object]] = []
    for parameters in by_kind(parameter for _, parameter in role.parameters()):
        matrices = [p for p in parameters if p.ndim >= 2]
        vectors = [p for p in parameters if p.ndim < 2]
        groups.append({"params": matrices, "weight_decay": weight_decay})
        groups.append({"params": vectors, "weight_decay": 0.0})
    shared = {"lr": role.lr, "peak_lr": role.lr}
    return [group | shared for group in groups if group["params"]]
