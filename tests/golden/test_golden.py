"""No change of structure moves a number: see golden.py."""

import pytest
import torch
from golden import FILE, environment, numbers
from safetensors import safe_open
from safetensors.torch import load_file

IN_PIXELS = ("masks", "mask_means")  # a sign that differs moves a pixel by two steps


def stored_with() -> dict[str, str]:
    with safe_open(FILE, "pt") as file:
        return dict(file.metadata())


@pytest.mark.filterwarnings("ignore:fewer than|no positive canvas")
@pytest.mark.skipif(stored_with()["torch"] != torch.__version__, reason="stored with another torch")
def test_every_number_is_what_it_was():
    stored, found = load_file(FILE), numbers()
    assert stored.keys() == found.keys()
    moved = [
        name
        for name in stored
        if not torch.allclose(stored[name], found[name], rtol=0, atol=rounding(name))
    ]
    assert not moved


def rounding(name: str) -> float:
    if stored_with() == environment():
        return 0
    return 0.05 if name.endswith(IN_PIXELS) else 1e-3
