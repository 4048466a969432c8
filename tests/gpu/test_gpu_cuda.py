"""What CUDA alone has: TF32, counted memory, generators of its own, 16-mixed."""

import gc
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from colours import colours, sgd, small_net

from iscp_lightning.attacks.pgd import random_start
from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.data import Shapes
from iscp_lightning.patterns import SearchSettings, search_patterns
from iscp_lightning.training import NaturalModule

pytestmark = pytest.mark.only_cuda("is about CUDA itself")


def errors(device: torch.device) -> list[float]:
    """Relative errors of a product and of a convolution in fp32."""
    generator = torch.Generator().manual_seed(0)
    matrix, images = (
        torch.randn(*shape, generator=generator) for shape in ((512, 512), (8, 64, 16, 16))
    )
    found = []
    for work, given in ((torch.matmul, (matrix, matrix.T)), (F.conv2d, (images, images[:8]))):
        exact = work(*(each.double() for each in given))
        result = work(*(each.to(device) for each in given)).cpu()
        found.append(((result - exact).norm() / exact.norm()).item())
    return found


def test_tf32_is_off_within_full_fp32_and_as_before_after(device):
    if torch.cuda.get_device_capability(device)[0] < 8:
        pytest.skip("this GPU has no TF32")
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        outside = errors(device)
        with full_fp32():
            assert max(errors(device)) < 2e-5
        assert outside[0] > 2e-5  # what cuDNN takes for a convolution is up to it
        assert errors(device) == outside
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_micro_batches_bound_the_memory_and_all_of_it_is_freed(device, trained):
    peaks, left = [], 0
    test = Shapes(train_count=10, test_count=100).test()
    settings = SearchSettings(canvas="random", search_epochs=1)
    for size in (8, 8, 256):  # the first one also makes what CUDA's libraries keep
        gc.collect()
        free = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        bounded = replace(settings, micro_batch_size=size)
        search_patterns(trained, test, settings=bounded, device=device, progress=False)
        gc.collect()
        peaks.append(torch.cuda.max_memory_allocated(device) - free)
        left = torch.cuda.memory_allocated(device) - free
    assert left == 0
    assert peaks[1] < peaks[2] / 2


def test_a_generator_of_another_device_is_refused(device):
    images = torch.rand(2, 1, 2, 2, device=device)
    with pytest.raises(RuntimeError, match="generator"):
        random_start(images, 0.1, "linf", torch.Generator())


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler")  # a first step is skipped
def test_it_learns_in_half_precision(new_trainer):
    module = NaturalModule(small_net(), sgd, num_classes=3)
    trainer, data = new_trainer(max_epochs=4, precision="16-mixed"), colours()
    trainer.fit(module, datamodule=data)
    (results,) = trainer.test(module, datamodule=data, verbose=False)
    assert results["test/clean_accuracy"] > 0.9
