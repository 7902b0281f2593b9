"""A real browser at the page: silent, offline, right, and readable from phone to desktop, light and dark."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from example_runs import HOSTILE, answers_text, make_run, ppo_rows

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("RLHF_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no chromium; name one in the environment variable RLHF_BROWSER")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row | {f"score/{HOSTILE}": 1 / 3} for row in ppo_rows(20)]
    rows += [{"step": row["step"], "eval/reward": row["reward"] + 1 / 7} for row in rows]
    root = tmp_path_factory.mktemp("browser") / ("a-run-with-a-long-name-" * 4)
    return make_run(root, "ppo", rows, answers=answers_text()).dir.root


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_silent_and_fits(browser: "Browser", run_dir: Path, width: int, scheme: str):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    address = (run_dir / "report.html").absolute().as_uri()
    page.goto(address)
    assert heard == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert (brightness(ink) > brightness(paper)) is (scheme == "dark")
    page.close()


def brightness(color: str) -> float:
    return sum(float(part) for part in color.strip("rgba()").split(",")[:3])


def test_the_numbers_are_those_of_the_metrics(browser: "Browser", run_dir: Path):
    page = browser.new_page()
    page.goto((run_dir / "report.html").absolute().as_uri())
    rows = page.eval_on_selector_all(
        "table[data-chart=Reward] tbody tr", "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
    )
    recorded = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    training = {row["step"]: row["reward"] for row in recorded if "reward" in row}
    held_out = {row["step"]: row["eval/reward"] for row in recorded if "eval/reward" in row}
    assert len(rows) == 20
    for step, reward, eval_reward in rows:
        assert float(reward) == pytest.approx(training[int(step)], rel=1e-5)
        assert float(eval_reward) == pytest.approx(held_out[int(step)], rel=1e-5)
    page.close()


def test_a_mark_lies_at_the_height_of_its_value(browser: "Browser", run_dir: Path):
    """Marks and the labels of the axis are laid out apart; what is read off must be what was recorded."""
    page = browser.new_page()
    page.goto((run_dir / "report.html").absolute().as_uri())
    svg = page.locator("svg.chart[aria-label='KL from the reference over step']")
    ticks = svg.locator("text[text-anchor=end]").evaluate_all(
        "ts => ts.map(t => [+t.getAttribute('y') - 4, +t.textContent])"
    )
    (y0, v0), (y1, v1) = ticks[0], ticks[-1]
    marks = svg.locator("circle").evaluate_all("cs => cs.map(c => [+c.getAttribute('cy'), c.textContent])")
    assert len(marks) == 20
    for number, (y, text) in enumerate(marks, start=1):
        assert v0 + (y - y0) * (v1 - v0) / (y1 - y0) == pytest.approx(0.3 * number, abs=0.03)
        assert text == f"training: {0.3 * number:.6g} at {8 * number}"
    page.close()


def test_it_prints_with_all_charts_and_without_navigation(browser: "Browser", run_dir: Path):
    page = browser.new_page()
    page.goto((run_dir / "report.html").absolute().as_uri())
    page.emulate_media(media="print")
    assert page.locator("figure").first.is_visible()
    assert not page.locator("nav").is_visible()
    assert page.pdf().startswith(b"%PDF")
    page.close()
