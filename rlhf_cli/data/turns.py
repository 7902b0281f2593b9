"""Work in two threads that take turns: while one waits for code that runs without Python, the other goes on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_NUM_THREADS = 2


def in_turns(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `function(item)` of each item in order, begun at most two items early. Raises what the first one raises."""
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        begun: deque[Future[R]] = deque()
        for item in items:
            begun.append(threads.submit(function, item))
            if len(begun) > _NUM_THREADS:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
