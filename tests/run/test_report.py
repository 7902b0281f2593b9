"""The HTML report: complete, self-contained, escaped."""

import json
from html.parser import HTMLParser

from rlhf_cli.run.claim import RunSpec
from rlhf_cli.run.report import read_curves, write_report
from rlhf_cli.run.session import StageResult, open_run


def test_report_shows_the_run_and_escapes_what_it_shows(tmp_path):
    spec = RunSpec("sft", tmp_path, "d1", {"seed": 3}, resolved_text="note: <script>alert(1)</script>\n")
    with open_run(spec) as run:
        for step in (1, 2, 3):
            run.metrics.append(step, {"loss": 3.0 / step, "<b>odd</b>": 1.0})
        run.dir.samples.parent.mkdir()
        run.dir.samples.write_text("<|user|> hi & bye")
        run.dir.data_report.write_text(json.dumps({"rows": 2}))
        run.finish(StageResult(tmp_path, 3, {"eval_loss": 0.25, "none": float("nan")}))
    page = (tmp_path / "report.html").read_text()
    for text in ("completed", "&lt;script&gt;", "&lt;|user|&gt; hi &amp; bye", "&#34;rows&#34;: 2", "0.25"):
        assert text in page
    for text in ("<script", "<b>odd", "http", "src=", "url("):
        assert text not in page
    assert page.count("<polyline") == 2
    HTMLParser().feed(page)


def test_no_run_no_report(tmp_path):
    assert write_report(tmp_path) is None


def test_curves_fill_the_frame_and_break_at_gaps():
    nan = float("nan")
    rows = [
        {"step": step, "time": 0.0, "loss": loss} for step, loss in ((1, 4.0), (2, nan), (3, 2.0), (5, 3.0))
    ]
    (curve,) = read_curves([*rows, {"step": 6, "time": 0.0, "only_nan": nan}])
    assert curve.lines == ["0.0,0.0", "160.0,120.0 320.0,60.0"]
    assert (curve.low, curve.high, curve.last, curve.first_step, curve.last_step) == (2.0, 4.0, 3.0, 1, 5)


def test_many_points_are_thinned_and_the_last_value_stays():
    rows = [{"step": step, "time": 0.0, "loss": float(step)} for step in range(1, 2001)]
    (curve,) = read_curves(rows)
    assert len(curve.lines[0].split()) <= 502
    assert (curve.last, curve.last_step, curve.high) == (2000.0, 2000, 2000.0)
