"""What a release wrote, every later one reads: the same view, from the log alone and from the record with its tail."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from noria.actor.load import load
from noria.contract.values import dumps, loads
from noria.machine.view import view
from noria.ports import ActorKey, Known, RunKey, Stored, StoredRecord

SAVED = sorted((Path(__file__).parents[1] / "fixtures").glob("*.json.gz"))
SCENES = [(path.name.removesuffix(".json.gz"), *scene) for path in SAVED for scene in json.loads(gzip.decompress(path.read_bytes())).items()]


class Saved:
    """The ports that `load` asks, on what was saved."""

    def __init__(self, scene: dict[str, Any], with_record: bool) -> None:
        self.key = ActorKey(scene["workflow"], scene["run"])
        self.entries = [
            Stored(sequence, kind, ActorKey(*self.key.tree, path), base64.b64decode(body), time)
            for sequence, kind, path, time, body in scene["entries"]
        ]
        self.record = base64.b64decode(scene["record"]) if with_record else None
        self.texts = scene["blobs"]
        self.log, self.commands, self.records, self.blobs = Of(self, "run"), Of(self, "in"), self, self

    async def get(self, run: RunKey, name: str | None = None) -> Any:
        if name is not None:
            return base64.b64decode(self.texts[name])
        return None if self.record is None else StoredRecord(1, self.record)


class Of:
    def __init__(self, saved: Saved, kind: str) -> None:
        self.saved, self.kind = saved, kind

    async def read_tree(self, actor: ActorKey, after: int = 0) -> list[Stored]:
        return [e for e in self.saved.entries if e.kind == self.kind and e.sequence > after]

    async def read(self, actor: ActorKey, after: int = 0, known: Known | None = None) -> list[Stored]:
        return [e for e in await self.read_tree(actor, after) if e.actor == actor]

    async def last(self, actor: ActorKey) -> Stored | None:
        return (await self.read(actor) or [None])[-1]


def test_there_is_a_fixture() -> None:
    assert SAVED


@pytest.mark.parametrize("with_record", [False, True], ids=["log", "record"])
@pytest.mark.parametrize(("release", "name", "scene"), SCENES, ids=[f"{release}-{name}" for release, name, _ in SCENES])
async def test_it_folds_for_ever(release: str, name: str, scene: dict[str, Any], with_record: bool) -> None:
    saved: Any = Saved(scene, with_record)
    if with_record and saved.record is None:
        pytest.skip("no record was saved")
    loaded = await load(saved, saved.key)
    assert loaded.unreadable == []
    shown = loads(dumps(view(loaded.tree, *saved.key.tree, nested=True)))
    for field, value in scene["view"].items():
        if field == "steps":  # those inside the items of a foreach were not told then
            shown[field] = {step: record for step, record in shown[field].items() if step in value or step.partition(".")[0] not in value}
        assert shown[field] == value, field
