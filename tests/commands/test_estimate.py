from pathlib import Path

import pytest

from iscp_lightning.classifiers.rates import Rates
from iscp_lightning.cli import main
from iscp_lightning.commands._estimate import duration, estimated, size
from iscp_lightning.work import Work

SMALL = str(Path(__file__).parents[1] / "configs" / "small.yaml")


def table(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, list[str]]:
    main(arguments)
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {row[0]: row[1:] for row in cells if len(row) > 1}


def test_a_training_is_counted_and_nothing_is_left(capsys):
    rows = table(capsys, "fit", "--estimate", "-c", SMALL, "--trainer.max_epochs", "3")
    assert not Path("runs").exists()
    assert rows["stage"] == ["forward", "gradient", "update", "time"]
    trained = int(rows["training"][2].replace(",", ""))
    assert trained > 0
    assert trained % 3 == 0
    again = table(capsys, "fit", "--estimate", "-c", SMALL, "--trainer.max_epochs", "6")
    assert int(again["training"][2].replace(",", "")) == 2 * trained


def test_attacks_snapshots_and_searches_are_counted(capsys):
    shapes = ["--data.source", "Shapes", "--data.source.test_count", "100"]
    rows = table(
        capsys,
        *("fit", "--estimate", "-c", SMALL, *shapes, "--trainer.max_epochs", "4"),
        *("--model", "MadryModule", "--model.attack.steps", "5", "--data.val_fraction", "0.1"),
        *("--trainer.callbacks", "PatternSnapshot", "--trainer.callbacks.epochs", "[1, 9]"),
        *("--trainer.callbacks.search.canvas", "white"),
    )
    updates, gradients = rows["training"][2], rows["training"][1]
    assert int(gradients.replace(",", "")) == 5 * int(updates.replace(",", ""))
    assert rows["patterns: ranking canvases"][0] == "200"  # after epoch 1, and at the end
    rows = table(
        capsys,
        *("search", "--estimate", "--model.classifier.class_path", "torch.nn.Flatten"),
        *("--model.search.canvas", "white", *shapes),
    )
    assert rows["searching"][1] == f"{5 * 10 * 18:,}"


def test_what_says_nothing_of_its_work_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--estimate", "-c", SMALL, "--model", "lightning.pytorch.demos.BoringModel"])
    assert "`--estimate`: BoringModel does not say what it takes" in capsys.readouterr().err


def test_time_is_shared_by_processes_and_memory_is_not():
    works = [Work("a", forwards=1000, device_bytes=3 * 2**30), Work("b", updates=500)]
    text = estimated(works, Rates(10, 5, 1), 2, "cuda")
    assert text.splitlines()[1].split()[-2:] == ["50", "s"]
    assert text.splitlines()[3].split()[-2:] == ["5.0", "min"]
    assert "3.0 GiB of data on each device; 0 MiB besides" in text


def test_words_for_times_and_sizes():
    assert [duration(t) for t in (3, 130, 1800, 7200, 3e5)] == [
        *("3 s", "2.2 min", "30 min", "2.0 h", "3.5 days")
    ]
    assert [size(n) for n in (5 * 2**20, 1.5 * 2**30)] == ["5 MiB", "1.5 GiB"]
