"""Figures of probes, from records written by hand."""

from dataclasses import replace

import numpy as np

from iscp_lightning.probes.drawings import (
    course,
    joint_course,
    plane_figure,
    strength_figures,
    words,
)
from iscp_lightning.records import Findings, Record


def of(classifier, measure, value, name=None, strength=None):
    about = {"classifier": classifier}
    about |= {} if name is None else {"distortion": name, "strength": strength}
    return Record(measure, value, about, (value - 0.1, value + 0.1))


RECORDS = [
    record
    for classifier, lower in (("a", 0.0), ("b", 0.1))
    for record in (
        of(classifier, "clean_accuracy", 0.9 - lower),
        *(
            of(classifier, measure, value - lower, name, strength)
            for measure in ("accuracy", "generalisation")
            for name, strength, value in (
                ("saturation", 8.0, 0.8),
                ("saturation", 1024.0, 0.6),
                ("patch shuffle", 4.0, 0.4),
                ("patch shuffle", 8.0, 0.2),
                ("edges", 0.0, 0.3),
            )
        ),
    )
]


def drawn(figure, line):
    (axes,) = figure.axes
    return axes.lines[line].get_xdata().tolist(), axes.lines[line].get_ydata().tolist()


def test_accuracies_start_with_the_undistorted_images():
    figures = strength_figures(RECORDS, "accuracy")
    assert set(figures) == {"accuracy_saturation", "accuracy_patch_shuffle"}
    x, y = drawn(figures["accuracy_saturation"], 1)
    np.testing.assert_allclose(x, [2, 8, 1024])
    np.testing.assert_allclose(y, [0.8, 0.7, 0.5])
    x, y = drawn(figures["accuracy_patch_shuffle"], 0)
    np.testing.assert_allclose([x, y], [[1, 4, 8], [0.9, 0.4, 0.2]])


def test_styles_have_figures_of_their_own():
    records = [of("a", "clean_accuracy", 0.9)]
    for styles, values in (("textures", (0.1, 0.2)), ("paintings", (0.7, 0.8))):
        for strength, value in zip((0.5, 1.0), values, strict=True):
            record = of("a", "accuracy", value, "stylised", strength)
            records.append(replace(record, about={**record.about, "styles": styles}))
    figures = strength_figures(records, "accuracy")
    assert drawn(figures["accuracy_stylised_textures"], 0)[1] == [0.1, 0.2]
    assert drawn(figures["accuracy_stylised_paintings"], 0)[1] == [0.7, 0.8]


def test_radii_of_the_largest_difference_are_in_steps_of_eight_bits():
    attacked = [of("a", "accuracy", v, "adversarial linf", r / 255) for r, v in ((2, 0.5), (8, 0))]
    figures = strength_figures([of("a", "clean_accuracy", 0.9), *attacked], "accuracy")
    x, y = drawn(figures["accuracy_adversarial_linf"], 0)
    np.testing.assert_allclose([x, y], [[2, 8], [0.5, 0]])


def test_generalisation_has_no_undistorted_images():
    x, y = drawn(strength_figures(RECORDS, "generalisation")["generalisation_saturation"], 0)
    np.testing.assert_allclose([x, y], [[8, 1024], [0.8, 0.6]])


def test_the_plane_takes_the_strongest_saturation_and_four_tiles():
    (axes,) = plane_figure(RECORDS).axes
    points = [(c.lines[0].get_xdata()[0], c.lines[0].get_ydata()[0]) for c in axes.containers]
    np.testing.assert_allclose(points, [(0.4, 0.6), (0.3, 0.5)])
    assert plane_figure([r for r in RECORDS if r.about.get("distortion") != "saturation"]) is None


def test_the_course_has_a_curve_for_what_every_epoch_measured():
    past = []
    for epoch in (1, 2):
        records = [Record("clean_accuracy", epoch / 4, {}, (0.0, 1.0))]
        about = {"distortion": "edges", "strength": 1.0}
        records += [Record("accuracy", 0.5, about)] if epoch == 2 else []
        past.append(Findings(records, provenance={"epoch": epoch}))
    figures = course(past)
    assert set(figures) == {"accuracy"}
    (line,) = figures["accuracy"].axes[0].lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([1, 2], [0.25, 0.5])
    assert course([]) == {}


def test_trainings_are_compared_where_two_have_measured_the_same():
    edges = {"distortion": "edges", "strength": 1.0}
    found = {
        "natural": [(1, [("clean_accuracy", 0.5, {}), ("shape_bias", 0.25, {})])],
        "adversarial": [
            (2, [("clean_accuracy", 0.375, {}), ("accuracy", 0.125, edges)]),
            (2.5, [("clean_accuracy", 0.75, {}), ("generalisation", 0.5, edges)]),
        ],
    }
    past = {
        name: [
            Findings([Record(*record) for record in records], provenance={"epoch": epoch})
            for epoch, records in epochs
        ]
        for name, epochs in found.items()
    }
    (axes,) = joint_course(past).axes
    assert axes.get_title() == "clean accuracy"
    curves = {line.get_label(): (*line.get_xdata(), *line.get_ydata()) for line in axes.lines}
    assert curves == {"natural": (1, 0.5), "adversarial": (2, 2.5, 0.375, 0.75)}
    assert joint_course({"natural": past["natural"]}) is None


def test_words():
    assert words(Record("shape_bias", 0)) == "shape bias"
    assert words(Record("accuracy", 0, {"distortion": "edges"})) == "edges"
    about = {"classifier": "a", "distortion": "stylised", "strength": 1.0, "styles": "textures"}
    assert words(Record("accuracy", 0, about)) == "stylised 1 textures"
