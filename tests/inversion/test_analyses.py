"""Tests of what all analyses of inversions promise."""

import re
from pathlib import Path

import pytest
import torch
from small import examined_colours

from iscp_lightning.data.shapes import ShapeFactors
from iscp_lightning.inversion import analyses
from iscp_lightning.inversion.analyses import every_analysis
from iscp_lightning.inversion.analysis import SHOWN, Analysis, Answer
from iscp_lightning.seeds import generator_states


def _examined(**settings):
    numbers = [torch.rand(12) for _ in range(4)]
    colours = [torch.rand(12, 3) for _ in range(3)]
    means = torch.rand(3, 3, 16, 16)
    factors = ShapeFactors(*numbers, *colours, shape=torch.arange(12) % 10)
    settings |= {"factors": factors, "class_means": means}
    examined = examined_colours(12, **settings)
    examined.subject.images.labels[1] = 2  # taken for 1
    return examined


def test_every_analysis_is_asked_once_by_its_own_name():
    asked = every_analysis()
    assert {type(a).__name__ for a in asked} == set(analyses.__all__) - {"every_analysis"}
    assert len({a.name for a in asked}) == len(asked)


def test_what_can_be_left_out_says_what_it_needs():
    for analysis in every_analysis():
        assert bool(analysis.needs) == ("applies" in vars(type(analysis)))


@pytest.mark.parametrize("analysis", every_analysis(), ids=lambda a: a.name)
@pytest.mark.parametrize("settings", [{}, {"judge": False}, {"same_classes": False}], ids=str)
def test_it_answers_without_touching_global_random_state(analysis, settings):
    examined = _examined(**settings)
    if not analysis.applies(examined):
        assert settings  # with all that can be known, all apply
        return
    before = generator_states()
    answer = analysis(examined)
    after = generator_states()
    assert torch.equal(before.pop("torch"), after.pop("torch"))
    assert before == after
    assert {r.about["analysis"] for r in answer.records} == {analysis.name}
    assert len({r.name for r in answer.records}) == len(answer.records)
    assert bool(analysis.unit) == any("strength" in r.about for r in answer.records)
    for sheet in answer.sheets.values():
        assert sheet.images.shape[:2] == (len(sheet.rows), len(sheet.columns))
        assert len(sheet.rows) <= SHOWN
        assert 0 <= sheet.images.min() <= sheet.images.max() <= 1


def test_the_one_of_contributing_works():
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(class Brightness.*?)```", text, re.S)
    names = {"Analysis": Analysis, "Answer": Answer}
    exec(code, names)
    examined = _examined()
    (record,) = names["Brightness"]()(examined).records
    change = (examined.reconstructions - examined.images).mean().item()
    assert record.value == pytest.approx(change, abs=1e-6)
