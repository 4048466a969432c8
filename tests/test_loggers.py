import builtins
import csv
import io
import json
import sys
from pathlib import Path

import pytest
import wandb
from PIL import Image
from wandb_records import read_offline_run

from iscp_lightning import loggers
from iscp_lightning.callbacks.logged import LOGGED_SIDE
from iscp_lightning.cli import main
from iscp_lightning.loggers import RunCSVLogger, RunWandbLogger, has_wandb_login

SMALL = Path(__file__).parent / "configs" / "small.yaml"
KEY = "0123456789" * 4
DEAD = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(autouse=True)
def _wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_IDENTITY_TOKEN_FILE", raising=False)
    wandb.teardown()
    yield
    wandb.finish()
    wandb.teardown()


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(folder: Path, *metrics: dict[str, float]) -> None:
    logger = RunCSVLogger(str(folder))
    for row in metrics:
        logger.log_metrics(row, step=int(row["at"]))
    logger.finalize("success")


def test_csv_continues_the_file_of_an_earlier_process(tmp_path: Path):
    folder = tmp_path / "run"
    write(folder, {"at": 0, "loss": 2.5}, {"at": 1, "loss": 1.5})
    assert [path.name for path in folder.iterdir()] == ["metrics.csv"]
    write(folder, {"at": 2, "loss": 0.5, "accuracy": 0.25})
    write(folder, {"at": 3, "accuracy": 0.75})
    assert [row["loss"] for row in rows(folder)] == ["2.5", "1.5", "0.5", ""]
    assert [row["accuracy"] for row in rows(folder)] == ["", "", "0.25", "0.75"]
    assert [row["step"] for row in rows(folder)] == ["0", "1", "2", "3"]


def test_csv_forgets_what_a_resumed_run_repeats(tmp_path: Path):
    logger = RunCSVLogger(str(tmp_path / "run"))
    logger.drop_from(0)  # no file yet
    write(tmp_path / "run", *({"at": step, "loss": step / 2} for step in (3, 7, 8, 12)))
    logger.drop_from(8)
    write(tmp_path / "run", {"at": 8, "loss": 0.125})
    kept = [(row["step"], row["loss"]) for row in rows(tmp_path / "run")]
    assert kept == [("3", "1.5"), ("7", "3.5"), ("8", "0.125")]


MACHINE = "machine {} login user password " + KEY


@pytest.mark.parametrize(
    ("environment", "netrc", "expected"),
    [
        ({}, None, False),
        ({"WANDB_API_KEY": KEY}, None, True),
        ({"WANDB_API_KEY": ""}, None, False),
        ({"WANDB_IDENTITY_TOKEN_FILE": "token.jwt"}, None, True),
        ({}, MACHINE.format("api.wandb.ai"), True),
        ({}, MACHINE.format("example.org"), False),
        ({"WANDB_BASE_URL": DEAD}, MACHINE.format("api.wandb.ai"), False),
        # W&B writes host and port of a server of one's own
        ({"WANDB_BASE_URL": DEAD}, MACHINE.format("127.0.0.1:9"), True),
        ({}, "machine api.wandb.ai nonsense", False),
        ({}, b"\xff\xfe\x00machine", False),
    ],
)
def test_finds_a_wandb_login(environment, netrc, expected, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if netrc is not None:
        monkeypatch.setenv("NETRC", str(tmp_path / "some-netrc"))
        content = netrc if isinstance(netrc, bytes) else netrc.encode()
        (tmp_path / "some-netrc").write_bytes(content)
    assert has_wandb_login() is expected


def test_netrc_of_the_home_folder_is_the_default(tmp_path, monkeypatch):
    monkeypatch.delenv("NETRC")
    assert not has_wandb_login()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text(MACHINE.format("api.wandb.ai"))
    assert has_wandb_login()


@pytest.mark.parametrize(
    ("mode", "key", "expected"),
    [
        (None, KEY, "online"),
        (None, None, "offline"),
        ("offline", KEY, "offline"),
        ("disabled", KEY, "disabled"),
        ("online", None, "online"),
    ],
)
def test_wandb_mode(mode, key, expected, tmp_path, monkeypatch):
    for name, value in (("WANDB_MODE", mode), ("WANDB_API_KEY", key)):
        if value:
            monkeypatch.setenv(name, value)
    assert RunWandbLogger(str(tmp_path / "run")).arguments["mode"] == expected


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_wandb_without_a_login_is_offline_and_asks_nothing(tmp_path, monkeypatch):
    def asked(*_: object) -> None:
        raise AssertionError("a prompt")

    for stream in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, stream, Terminal())
    monkeypatch.setattr(builtins, "input", asked)
    monkeypatch.setattr("getpass.getpass", asked)
    monkeypatch.setattr(sys.stdin, "readline", asked)
    monkeypatch.setenv("TERM", "xterm")
    logger = RunWandbLogger(str(tmp_path / "run"), name="a name", version="abcd1234")
    logger.log_metrics({"loss": 0.5}, step=3)
    assert (logger.experiment.offline, logger.version) == (True, "abcd1234")
    run = read_offline_run(tmp_path / "run")
    assert [(row["loss"], row["trainer/global_step"]) for row in run.history] == [(0.5, 3)]
    assert not list(tmp_path.glob("wandb*"))


def test_wandb_survives_an_unreachable_server(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", DEAD)
    monkeypatch.setattr(loggers, "WANDB_TIMEOUT", 1)
    logger = RunWandbLogger(str(tmp_path / "run"), version="abcd1234")
    with pytest.warns(UserWarning, match="W&B is not reachable, logging offline"):
        logger.log_metrics({"loss": 0.5}, step=3)
    logger.log_metrics({"loss": 0.25}, step=4)
    run = read_offline_run(tmp_path / "run")
    assert [row["loss"] for row in run.history] == [0.5, 0.25]


def test_wandb_gives_up_a_server_that_goes_away(tmp_path):
    settings = RunWandbLogger(str(tmp_path / "run")).arguments["settings"]
    assert settings.init_timeout == loggers.WANDB_TIMEOUT
    assert settings.finish_timeout == loggers.WANDB_FINISH_TIMEOUT > 0  # 0 waits for days


def test_wandb_survives_a_refused_login(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    logger = RunWandbLogger(str(tmp_path / "run"))
    with pytest.warns(UserWarning, match="WANDB_API_KEY invalid"):
        assert logger.experiment.offline


def test_the_next_run_of_a_process_gets_a_wandb_run_of_its_own(tmp_path):
    first, second = (RunWandbLogger(str(tmp_path / name), version=name) for name in ("a", "b"))
    assert first.experiment.id == "a"
    loggers.finish_wandb()
    assert second.experiment.id == "b"


def test_disabled_wandb_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = RunWandbLogger(str(tmp_path / "run"))
    logger.log_metrics({"loss": 0.5}, step=3)
    logger.log_image("image", [Image.new("RGB", (4, 4))])
    assert list((tmp_path / "run").iterdir()) == []


SNAPSHOT = """
trainer:
  logger: null
  callbacks:
    - class_path: PatternSnapshot
      init_args:
        classes: [0, 1]
        pattern_sizes: [0.1]
        search: {search_epochs: 1, canvas: white}
"""


def test_records_of_an_offline_training(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    Path("snapshot.yaml").write_text(SNAPSHOT)
    main(["fit", "-c", str(SMALL), "-c", "snapshot.yaml", "--run", "tiny"])
    run = read_offline_run(tmp_path / "runs" / "tiny")
    found = json.loads(Path("runs/tiny/results.json").read_text())["patterns"]

    for name in ("circle", "square"):
        (logged,) = [row for row in run.history if f"patterns/pattern/{name}.filenames" in row]
        (file,) = logged[f"patterns/pattern/{name}.filenames"]
        assert logged[f"patterns/pattern/{name}.captions"][0].endswith(", epoch 1")
        assert file in run.files
        with Image.open(run.folder / file) as image:
            assert image.size == (LOGGED_SIDE, LOGGED_SIDE)

    (path,) = [row["patterns.path"] for row in run.history if "patterns.path" in row]
    assert path in run.files
    table = json.loads((run.folder / path).read_text())
    assert table["columns"][0] == "epoch"
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    objectives = {row["class"]: row["value"] for row in rows if row["measure"] == "objective"}
    assert objectives == {entry["name"]: entry["objective"] for entry in found["classes"]}

    config = run.config["config"]
    assert config["seed_everything"] == 0
    assert config["trainer"]["max_epochs"] == 1
    assert config["model"]["init_args"]["classifier"] == "test_resnet"
    search = config["trainer"]["callbacks"][0]["init_args"]["search"]
    assert (search["canvas"], search["schedule"]) == ("white", "paper")  # defaults are logged too
    assert any("test/clean_accuracy" in row for row in run.history)


def test_records_lie_in_the_run_folder_wherever_the_service_of_wandb_was_started(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        logger = RunWandbLogger(save_dir="runs/a", name="a", version=f"of-{name}")
        logger.log_metrics({"loss": 1.0}, step=1)
        wandb.finish()  # not its service
    for name in ("two", "one"):
        run = read_offline_run(tmp_path / name / "runs" / "a")
        assert any("loss" in row for row in run.history)
