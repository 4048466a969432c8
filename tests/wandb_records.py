"""Reads the `.wandb` file of an offline run: a LevelDB log of protobuf records."""

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import wandb
from wandb.proto.wandb_internal_pb2 import Record

BLOCK, FILE_HEADER, FULL, LAST = 32_768, 7, 1, 4


class OfflineRun(NamedTuple):
    history: list[dict[str, Any]]
    config: dict[str, Any]
    files: list[str]
    folder: Path


def read_offline_run(save_dir: Path) -> OfflineRun:
    """End W&B's runs and return what the only offline run under `save_dir` holds."""
    wandb.finish()
    wandb.teardown()  # `finish` may return before the last block is in the file
    (path,) = save_dir.glob("wandb/offline-run-*/run-*.wandb")
    run = OfflineRun([], {}, [], path.parent / "files")
    for record in read_records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            run.history.append(plain(record.history.item))
        elif kind == "config":
            run.config.update(plain(record.config.update))
        elif kind == "run":
            run.config.update(plain(record.run.config.update))
        elif kind == "files":
            run.files.extend(file.path for file in record.files.files)
    return run


def plain(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def read_records(data: bytes) -> list[Record]:
    records, payload, at = [], b"", FILE_HEADER
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # too short for another header: padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        payload += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            records.append(Record.FromString(payload))
            payload = b""
    return records
