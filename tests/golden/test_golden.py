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
@pytest.mark.skipif(stored_with() != environment(), reason=f"stored with {stored_with()}")
def test_every_number_is_what_it_was():
    stored, found = load_file(FILE), numbers()
    assert stored.keys() == found.keys()
    moved = [name for name in stored if not torch.equal(stored[name], found[name])]
    assert not moved
