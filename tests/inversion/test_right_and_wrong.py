"""Tests of what reconstructions of wrongly classified images show, with colours known by hand."""

import math

from small import examined_colours

from iscp_lightning.inversion.analyses import RightAndWrong


def _values(found, **about):
    return {
        r.measure: r.value
        for r in found.records
        if all(r.about.get(key) == value for key, value in about.items())
    }


def test_what_a_judge_sees_of_wrong_images():
    examined = examined_colours()
    # the classifier says green of image 1, which is said to be blue; red of image 3, likewise
    examined.subject.images.labels[1] = 2
    examined.subject.images.labels[3] = 2
    examined.reconstructions[3] = examined.reconstructions[2]  # which is blue
    examined.reconstructions[0] = examined.reconstructions[2]  # of a red image, said to be red
    found = RightAndWrong()(examined)
    assert _values(found, split="right") == {"images": 28, "shows_label": 27 / 28}
    assert _values(found, split="right", pictures="original") == {"shows_label": 1}
    assert _values(found, split="wrong", pictures="original") == {
        **{"shows_label": 0, "shows_prediction": 1, "shows_neither": 0}
    }
    assert _values(found, split="wrong", pictures="reconstruction") == {
        **{"shows_label": 0.5, "shows_prediction": 0.5, "shows_neither": 0}
    }
    examined.reconstructions[1] = examined.reconstructions[0].roll(1, 0)  # red: neither
    found = _values(RightAndWrong()(examined), split="wrong", pictures="reconstruction")
    assert found["shows_neither"] == 0.5


def test_the_sheet_shows_wrong_images_alone():
    examined = examined_colours()
    examined.subject.images.labels[1] = 2
    examined.subject.images.labels[5] = 0
    sheet = RightAndWrong()(examined).sheets[""]
    assert sheet.rows == ["blue\n(taken for green)", "red\n(taken for blue)"]
    assert sheet.images.shape == (2, 2, 3, 16, 16)
    assert sheet.images[1, 0].equal(examined.images[5])
    assert sheet.images[1, 1].equal(examined.reconstructions[5])


def test_a_classifier_that_is_never_wrong_has_no_sheet():
    found = RightAndWrong()(examined_colours())
    assert not found.sheets
    wrong = _values(found, split="wrong", pictures="reconstruction")
    assert len(wrong) == 3
    assert all(math.isnan(value) for value in wrong.values())


def test_it_wants_a_judge_and_known_classes():
    assert RightAndWrong().applies(examined_colours())
    assert not RightAndWrong().applies(examined_colours(judge=False))
    assert not RightAndWrong().applies(examined_colours(same_classes=False))
