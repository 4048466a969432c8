"""No change of structure moves a number: see golden.py."""

import pytest
import torch
from golden import FILE, environment, numbers
from safetensors import safe_open
from safetensors.torch import load_file


def stored_with() -> dict[str, str]:
    with safe_open(FILE, "pt") as file:
        return dict(file.metadata())


@pytest.mark.filterwarnings("ignore:fewer than|no positive canvas")
@pytest.mark.skipif(stored_with()["torch"] != torch.__version__, reason="stored with another torch")
def test_every_number_is_what_it_was():
    stored, found = load_file(FILE), numbers()
    assert stored.keys() == found.keys()
    rounding = 0 if stored_with() == environment() else 0.05
    moved = [
        name
        for name in stored
        if not torch.allclose(stored[name], found[name], rtol=0, atol=rounding)
    ]
    assert not moved
