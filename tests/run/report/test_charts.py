"""Charts: where points land on the canvas, worked out by hand, and which numbers stand in the table."""

import math

from rlhf_cli.run.report.charts import Line, Scale, Words, draw, round_step, thin

WORDS = Words("loss", "falls")


def test_points_land_where_the_scales_say():
    # x: 1..5 on 50..408, so 89.5 a step. y: 2..4 with 6 % air is 1.88..4.12 on 170..10.
    chart = draw(WORDS, [Line("training", [(1, 4.0), (3, 2.0), (5, 3.0)])])
    assert chart is not None
    assert chart.drawn[0].polylines == ["50.0,18.6 229.0,161.4 408.0,90.0"]
    assert [mark.text for mark in chart.drawn[0].marks] == [
        "training: 4 at 1",
        "training: 2 at 3",
        "training: 3 at 5",
    ]
    assert [tick.text for tick in chart.x_ticks] == ["1", "2", "3", "4", "5"]
    assert [tick.text for tick in chart.y_ticks] == ["2", "2.5", "3", "3.5", "4"]
    assert chart.rows == [["1", "4"], ["3", "2"], ["5", "3"]]


def test_a_gap_breaks_the_line():
    points = [(1.0, 1.0), (2.0, 2.0), (3.0, math.nan), (4.0, 1.0), (5.0, math.nan), (6.0, 2.0), (7.0, 3.0)]
    chart = draw(WORDS, [Line("training", points)])
    assert chart is not None
    assert [len(piece.split()) for piece in chart.drawn[0].polylines] == [2, 2]
    assert len(chart.drawn[0].marks) == 5  # the lonely point at 4 is seen by its mark
    assert ["3", "-"] in chart.rows


def test_nothing_to_draw_is_no_chart():
    assert draw(WORDS, []) is None
    assert draw(WORDS, [Line("training", [(1, math.nan)])]) is None
    assert draw(WORDS, [Line("perfect", [(0, 0), (1, 1)], reference=True)]) is None


def test_a_constant_and_a_single_point_have_a_span():
    for points in ([(1, 0.0), (2, 0.0)], [(7, 3.5)]):
        chart = draw(WORDS, [Line("training", points)])
        assert chart is not None
        assert all(math.isfinite(mark.y) for mark in chart.drawn[0].marks)


def test_lines_share_the_table_by_step():
    chart = draw(WORDS, [Line("a", [(1, 1.0), (2, 2.0)]), Line("b", [(2, 5.0), (3, 6.0)])])
    assert chart is not None
    assert chart.header == ["step", "a", "b"]
    assert chart.rows == [["1", "1", ""], ["2", "2", "5"], ["3", "", "6"]]


def test_a_filled_line_stands_on_the_axis():
    chart = draw(WORDS, [Line("chosen", [(0, 1.0), (1, 1.0), (1, 2.0), (2, 2.0)], filled=True)])
    assert chart is not None
    first, last = chart.drawn[0].polylines[0].split()[0], chart.drawn[0].polylines[0].split()[-1]
    assert (first, last) == ("50.0,170", "408.0,170")


def test_steps_of_ticks_are_round():
    assert [round_step(x) for x in (0.8, 1.0, 1.1, 3.0, 7.0, 0.013, 2e5)] == [1, 1, 2, 5, 10, 0.02, 2e5]
    assert [tick.text for tick in Scale.of([0, 1e-5], 0, 100).ticks(4)] == ["0", "5e-06", "1e-05"]


def test_thinning_keeps_the_last_point():
    points = [(float(x), 0.0) for x in range(1001)]
    assert len(thin(points, 400)) <= 400
    assert thin(points, 400)[-1] == (1000.0, 0.0)
    assert thin(points, 2000) is points
