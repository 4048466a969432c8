import io
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from iscp_lightning import figures

NAN = np.nan
RNG = np.random.default_rng(0)


def image(side=4):
    return RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)


def overlapping(texts):
    boxes = [text.get_window_extent() for text in texts]
    return [(i, j) for j in range(len(boxes)) for i in range(j) if boxes[i].overlaps(boxes[j])]


@pytest.mark.parametrize(
    ("background", "white_pixel", "red_pixel"),
    [
        ("black", [0, 0, 0], [0, 0, 0]),
        ("white", [255, 255, 255], [255, 255, 255]),
        # 120 + 60 * luminance, and pure red has a luminance of 0.299
        ("dimmed", [180, 180, 180], [138, 138, 138]),
    ],
)
def test_render_pattern(background, white_pixel, red_pixel):
    canvas = np.array([[[10, 20, 30], [255, 255, 255]], [[255, 0, 0], [0, 0, 0]]], dtype=np.uint8)
    before = canvas.copy()
    shown = figures.render_pattern(canvas, np.array([[True, False], [False, True]]), background)
    assert shown.dtype == np.uint8
    assert shown.tolist() == [[[10, 20, 30], white_pixel], [red_pixel, [0, 0, 0]]]
    shown[:] = 7
    assert np.array_equal(canvas, before)


def test_render_pattern_is_black_by_default():
    shown = figures.render_pattern(np.full((2, 2, 3), 9, np.uint8), np.zeros((2, 2), bool))
    assert not shown.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"canvas": np.zeros((2, 2, 3))}, "`canvas` is float64 .*uint8"),
        ({"canvas": np.zeros((3, 2, 2), np.uint8)}, r"`canvas` .*\(3, 2, 2\).*\(H, W, 3\)"),
        ({"canvas": np.zeros((0, 2, 3), np.uint8)}, r"`canvas` .*\(0, 2, 3\)"),
        ({"selected": np.zeros((2, 3), bool)}, r"`selected` .*\(2, 3\).*\(2, 2\)"),
        ({"selected": np.zeros((2, 2), int)}, "`selected` is int64 .*bool"),
        ({"background": "grey"}, "`background` is 'grey'.*'dimmed'"),
    ],
)
def test_render_pattern_rejects(change, message):
    good = {"canvas": np.zeros((2, 2, 3), np.uint8), "selected": np.zeros((2, 2), bool)}
    with pytest.raises(ValueError, match=message):
        figures.render_pattern(**(good | change))


def test_pattern_grid_draws_each_cell():
    images = [[image(), image(), None], [image(), None, image()]]
    figure = figures.pattern_grid(
        images,
        row_labels=["airplane", "ship"],
        column_labels=["epoch 1\naccuracy 31.5 %", "epoch 2", "epoch 3"],
        captions=[["PW 0.74", None, "x"], ["a", "b", "c"]],
        title="Patterns",
    )
    cells = figure.axes
    assert len(cells) == 6
    for cell, expected in zip(cells, [*images[0], *images[1]], strict=True):
        if expected is None:
            assert not cell.images
            assert cell.patch.get_hatch()
            assert [text.get_text() for text in cell.texts] == ["n/a"]
        else:
            assert np.array_equal(cell.images[0].get_array(), expected)
            assert cell.images[0].get_interpolation() == "nearest"
            assert not cell.texts
        assert len(cell.get_xticks()) == len(cell.get_yticks()) == 0
    assert [c.get_title() for c in cells[:3]] == ["epoch 1\naccuracy 31.5 %", "epoch 2", "epoch 3"]
    assert [c.get_ylabel() for c in cells] == ["airplane", "", "", "ship", "", ""]
    assert [c.get_xlabel() for c in cells] == ["PW 0.74", "", "x", "a", "b", "c"]
    assert [text.get_text() for text in figure.texts] == ["Patterns"]


@pytest.mark.parametrize(
    "label", ["a", "epoch 100\nclean accuracy 31.5 %", "very " * 8 + "long", "high\n" * 9]
)
@pytest.mark.parametrize("title", ["Patterns", "A heading wider than the cells of a small grid"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2)])
def test_pattern_grid_leaves_room_for_labels(rows, columns, title, label):
    figure = figures.pattern_grid(
        [[image()] * columns] * rows,
        row_labels=[label] * rows,
        column_labels=[label] * columns,
        captions=[["PW 0.74"] * columns] * rows,
        title=title,
    )
    figure.savefig(io.BytesIO())
    cells = np.array(figure.axes).reshape(rows, columns)
    texts = [*figure.texts, *(cell.title for cell in cells[0])]
    texts += [cell.yaxis.label for cell in cells[:, 0]] + [c.xaxis.label for c in cells.flat]
    assert len(texts) == 1 + columns + rows + rows * columns
    assert not overlapping([*texts, *cells.flat])
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    for cell in cells.flat:
        assert cell.get_window_extent().width / figure.dpi >= 0.9
        assert cell.get_window_extent().height / figure.dpi >= 0.9


def test_pattern_grid_resolution():
    figure = figures.pattern_grid([[image(32)]], row_labels=["a"], column_labels=["b"])
    assert figure.dpi == 150
    assert figure.axes[0].get_window_extent().width == pytest.approx(5 * 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "`images` is 0 x 0"),
        ({"images": [[]]}, "`images` is 1 x 0"),
        ({"images": [[image(), image()], [image()]]}, r"`images\[1\]` .*length 1.*length 2"),
        ({"images": [[image()] * 2, [None, image()[..., 0]]]}, r"`images\[1\]\[1\]` .*\(4, 4\)"),
        ({"images": [[image() / 255] * 2] * 2}, r"`images\[0\]\[0\]` is float64 .*uint8"),
        ({"row_labels": ["a"]}, "`row_labels` .*length 1.*length 2"),
        ({"column_labels": ["a", "b", "c"]}, "`column_labels` .*length 3.*length 2"),
        ({"captions": [["a", "b"]]}, "`captions` .*length 1.*length 2"),
        ({"captions": [["a", "b"], ["a"]]}, r"`captions\[1\]` .*length 1.*length 2"),
    ],
)
def test_pattern_grid_rejects(change, message):
    good = {"images": [[image()] * 2] * 2, "row_labels": ["a", "b"], "column_labels": ["c", "d"]}
    with pytest.raises(ValueError, match=message):
        figures.pattern_grid(**(good | change))


@pytest.mark.filterwarnings("error")
def test_predictive_power_curve():
    sizes = (0.01, 0.07, 0.1)
    white = np.array([[0.2, 0.6, 0.9], [0.1, 0.5, 0.7], [0.4, 0.7, 1.2]])
    noise = np.array([[NAN, 0.3, 0.4], [NAN, NAN, 0.3], [NAN, NAN, 0.4]])
    figure = figures.predictive_power_curve(sizes, {"white": white, "noise": noise})
    figure.savefig(io.BytesIO())
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["white", "noise"]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [1, 7, 10])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), white[0])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [NAN, 0.3, 0.4])
    band = axes.collections[0].get_paths()[0].vertices
    for x, low, high in zip((1, 7, 10), *white[1:], strict=True):
        at_x = band[np.isclose(band[:, 0], x), 1]
        np.testing.assert_allclose((at_x.min(), at_x.max()), (low, high))
    assert axes.lines[0].get_color() != axes.lines[1].get_color()
    assert {line.get_marker() for line in axes.lines}.isdisjoint({"", "None"})
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > band[:, 1].max() > 1
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "7", "10"]
    assert axes.get_ylabel() == "mean predictive power (mPW)"
    assert axes.get_xlabel() == "pattern size (% of the image)"
    assert [text.get_text() for text in figure.legends[0].texts] == ["white", "noise"]


def test_crowded_size_labels_do_not_overlap():
    sizes = (0.001, 0.002, 0.003, 0.5)
    figure = figures.predictive_power_curve(sizes, {"white": np.ones((3, 4))})
    figure.savefig(io.BytesIO())
    labels = figure.axes[0].get_xticklabels()
    assert len(labels) > 2
    assert not overlapping(labels)


@pytest.mark.parametrize(
    ("sizes", "curves", "message"),
    [
        ((0.1, 0.2), {"a": np.ones((3, 3))}, r"`curves\['a'\]` .*\(3, 3\).*\(3, 2\)"),
        ((0.1, 0.2), {"a": np.ones(2)}, r"`curves\['a'\]` .*\(2,\).*\(3, 2\)"),
        ((0.1, 0.2), {"a": np.ones((0, 2))}, r"`curves\['a'\]` .*\(0, 2\)"),
        ((0.1, 0.2), {}, "`curves` is empty"),
        ((), {"a": np.ones((3, 0))}, r"`sizes` is \(\)"),
        ((0.2, 0.1), {"a": np.ones((3, 2))}, "`sizes` .*increasing"),
        ((0.0, 0.1), {"a": np.ones((3, 2))}, r"`sizes` .*\(0, 1\]"),
        ((1, 5), {"a": np.ones((3, 2))}, r"`sizes` is \(1, 5\)"),
    ],
)
def test_predictive_power_curve_rejects(sizes, curves, message):
    with pytest.raises(ValueError, match=message):
        figures.predictive_power_curve(sizes, curves)


def test_settling_curves_show_powers_above_one():
    power = np.array([[0.2, 1.4]])
    figure = figures.settling_curves([1, 2], power / 2, power, class_names=["a"], pattern_size=0.05)
    assert [axes.get_ylim()[1] > 1.4 for axes in figure.axes] == [False, True]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [1, 3, 20, 21])
def test_settling_curves(classes):
    overlap, power = RNG.random((2, classes, 4))
    overlap[0, 1] = NAN
    power[:, 0] = NAN
    names = [f"class {k}" for k in range(classes)]
    figure = figures.settling_curves(
        [1, 2, 5, 9], overlap, power, class_names=names, pattern_size=0.05, title="Run"
    )
    figure.savefig(io.BytesIO())
    assert len(figure.axes) == 2
    for axes, values in zip(figure.axes, (overlap, power), strict=True):
        *lines, mean = axes.lines
        assert len(lines) == classes
        for line, row in zip(lines, values, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 5, 9])
            np.testing.assert_array_equal(line.get_ydata(), row)
            assert line.get_linewidth() < mean.get_linewidth()
        expected = [NAN if np.isnan(c).all() else np.nanmean(c) for c in values.T]
        np.testing.assert_allclose(mean.get_ydata(), expected)
        assert to_rgba(mean.get_color()) == to_rgba("black")
        colours = {to_rgba(line.get_color()) for line in lines}
        assert len(colours) == (classes if classes <= 20 else 1)
        assert axes.get_xlabel() == "epoch"
    left, right = figure.axes
    assert left.get_ylabel() == "pattern overlap (IoU) with the final epoch"
    assert right.get_ylabel() == "predictive power (PW)"
    assert left.get_shared_x_axes().joined(left, right)
    assert figure.get_suptitle() == "Run (pattern size 5 %)"
    shown = [text.get_text() for text in figure.legends[0].texts]
    assert shown == [*(names if classes <= 20 else ["one class"]), "mean over classes"]
    legend = figure.legends[0].get_window_extent()
    assert right.get_window_extent().x1 < legend.x0
    assert legend.x1 <= figure.bbox.x1
    assert legend.y0 >= 0
    assert legend.y1 <= figure.bbox.y1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overlap": np.ones((2, 4))}, r"`overlap` .*\(2, 4\).*\(2, 3\)"),
        ({"power": np.ones((3, 2))}, r"`power` .*\(3, 2\).*\(2, 3\)"),
        ({"class_names": []}, "`class_names` is empty"),
        ({"epochs": []}, "`epochs` is empty"),
        ({"pattern_size": 5}, r"`pattern_size` is 5; .*\(0, 1\]"),
    ],
)
def test_settling_curves_rejects(change, message):
    good = {
        "epochs": [1, 2, 3],
        "overlap": np.ones((2, 3)),
        "power": np.ones((2, 3)),
        "class_names": ["a", "b"],
        "pattern_size": 0.05,
    }
    with pytest.raises(ValueError, match=message):
        figures.settling_curves(**(good | change))


@pytest.mark.parametrize("epochs", [[1], [1, 2], [10, 20, 30]])
def test_epoch_ticks_are_whole_numbers(epochs):
    ones = np.ones((1, len(epochs)))
    figure = figures.settling_curves(epochs, ones, ones, class_names=["a"], pattern_size=0.05)
    ticks = figure.axes[0].get_xticks()
    assert len(ticks) > 0
    assert all(float(tick).is_integer() for tick in ticks)


def draw_everything():
    ones, curve = np.ones((2, 3)), np.ones((3, 3))
    figures.pattern_grid([[image(), None]], row_labels=["a"], column_labels=["b", "c"], title="t")
    figures.predictive_power_curve([0.1, 0.2, 0.3], {"a": curve}, title="t")
    figures.settling_curves([1, 2, 3], ones, ones, class_names=["a", "b"], pattern_size=0.1)


def test_rc_params_stay_unchanged():
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # so that a change made by an earlier test does not hide one here
        before = dict(matplotlib.rcParams)
        draw_everything()
        assert dict(matplotlib.rcParams) == before


def test_nothing_global_is_imported():
    code = """
import sys
from iscp_lightning import figures
print("matplotlib" in sys.modules)
figures.pattern_grid([[None]], row_labels=["a"], column_labels=["b"])
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert re.split(r"\s+", result.stdout.strip()) == ["False", "True", "False"]


def test_prediction_matrix_shows_shares_of_the_rows():
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 1, 2]])
    figure = figures.prediction_matrix(counts, class_names=["a", "b", "c"], title="t")
    axes = figure.axes[0]
    shares = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shares[0], [0.8, 0.2, 0])
    assert np.isnan(shares[1]).all()
    assert [text.get_text() for text in axes.texts] == ["0.80", "0.20", "0.25", "0.25", "0.50"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="counts"):
        figures.prediction_matrix(counts, class_names=["a", "b"])


def matrix_of(values, **options):
    rows, columns = np.shape(values)
    names = {"row_labels": list("abcdef"[:rows]), "column_labels": list("uvwxyz"[:columns])}
    return figures.value_matrix(values, **(names | {"label": "power"} | options))


def test_value_matrix_shows_values():
    figure = matrix_of([[0.25, NAN, 1.5], [0, 0.75, 1]], title="t")
    axes, scale = figure.axes
    shown = np.ma.filled(axes.images[0].get_array(), NAN)
    np.testing.assert_array_equal(shown, [[0.25, NAN, 1.5], [0, 0.75, 1]])
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.patch.get_hatch()
    texts = ["0.25", "", "1.50", "0.00", "0.75", "1.00"]
    assert [text.get_text() for text in axes.texts] == texts
    assert [label.get_text() for label in axes.get_xticklabels()] == ["u", "v", "w"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert (axes.get_title(), scale.get_ylabel()) == ("t", "power")


def test_value_matrix_takes_texts_of_its_own():
    figure = matrix_of([[0.9, 0.1]], texts=[["x\ny", "z"]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["x\ny", "z"]
    colours = [text.get_color() for text in figure.axes[0].texts]
    assert colours == ["white", "black"]


@pytest.mark.parametrize("size", [(1, 1), (6, 6)])
def test_texts_of_a_value_matrix_do_not_touch(size):
    texts = [["0.123\nrate 1.000"] * size[1]] * size[0]
    names = [f"runs/with_a_long_name_{i}" for i in range(size[0])]
    figure = matrix_of(np.full(size, 0.5), texts=texts, row_labels=names)
    figure.savefig(io.BytesIO())
    assert not overlapping([*figure.axes[0].texts, *figure.axes[0].get_yticklabels()])


def test_value_matrix_rejects_other_shapes():
    with pytest.raises(ValueError, match=r"`values` is of shape \(1, 2\); .* \(2, 2\)"):
        matrix_of([[0.5, 0.5]], row_labels=["a", "b"])


def test_banded_curves_show_values_intervals_and_chance():
    values = np.array([[0.9, 0.5, 0.2], [0.8, 0.4, NAN], [1.0, 0.6, NAN]])
    figure = figures.banded_curves(
        [2, 8, 64], {"a": values}, xlabel="p", ylabel="accuracy", logarithmic=True, chance=0.1
    )
    (axes,) = figure.axes
    line, chance = axes.lines
    np.testing.assert_allclose(line.get_ydata(), [0.9, 0.5, 0.2])
    assert chance.get_ydata() == [0.1, 0.1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "8", "64"]
    assert axes.get_xscale() == "log"
    for x, curves in (([2, 1], {"a": values[:, :2]}), ([], {}), ([1], {})):
        with pytest.raises(ValueError, match=r"`x` is|`curves` is"):
            figures.banded_curves(x, curves, xlabel="p", ylabel="accuracy")


def test_the_plane_shows_points_and_their_intervals():
    point = [[0.2, 0.1, 0.4], [0.8, 0.7, 0.85]]
    figure = figures.plane({"a": point, "b": point}, xlabel="texture", ylabel="shape")
    (axes,) = figure.axes
    first, *_ = axes.containers
    assert (first.lines[0].get_xdata(), first.lines[0].get_ydata()) == ([0.2], [0.8])
    across, upright = (bars.get_segments()[0].tolist() for bars in first.lines[2])
    np.testing.assert_allclose(across, [[0.1, 0.8], [0.4, 0.8]])
    np.testing.assert_allclose(upright, [[0.2, 0.7], [0.2, 0.85]])
    with pytest.raises(ValueError, match="`points` is empty"):
        figures.plane({}, xlabel="texture", ylabel="shape")


def test_curve_panels_compare_the_same_labels_in_every_measure():
    first = [[1, 3], [0.5, 0.75], [0.4, NAN], [0.6, NAN]]
    second = [[2], [0.25], [0.125], [1.5]]
    panels = {"accuracy": {"a": first, "b": second}, "bias": {"b": second}}
    figure = figures.curve_panels(panels, xlabel="epoch")
    left, right = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["accuracy", "bias"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in left.lines] == [
        (1, 3, 0.5, 0.75),
        (2, 0.25),
    ]
    assert left.lines[1].get_color() == right.lines[0].get_color() != left.lines[0].get_color()
    assert right.get_ylim()[1] > 1.5
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    for wrong in ({}, {"accuracy": {}}, {"accuracy": {"a": [[1], [0.5]]}}):
        with pytest.raises(ValueError, match=r"`panels(\['accuracy'\](\['a'\])?)?` is"):
            figures.curve_panels(wrong, xlabel="epoch")
    four = figures.curve_panels({name: {"a": first} for name in "abcd"}, xlabel="epoch")
    assert len(four.axes) == 4
