"""The store is a function of raw data, settings and code alone: whatever was there before, however it is computed."""

import ast
import errno
import os
import random
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from stages.common.files import tree_digests
from stages.common.summary import read_summary
from stages.config.ingest import NearDuplicates
from stages.ingest import _again, _read, _tree, _work, _worker, _write
from tests.stages.ingesting import (
    CONFIG,
    FOLDERS,
    SHEET,
    config,
    encoded,
    from_scratch,
    ingest,
    noise,
    png,
    tarred,
    zipped,
)

SETTLED = 0.15  # seconds after which the time of a file is believed


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for index in range(40):
            (tmp_path / "raw" / name / f"{index:02d}.png").write_bytes(png(100 * label + index))
    return tmp_path / "raw"


def test_grown_and_shrunk_in_steps_it_equals_one_from_scratch(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(0)
    for step in range(8):
        files = sorted(raw.rglob("*.*"))
        for path in dice.sample(files, 6):
            path.unlink()
        for path in dice.sample(sorted(raw.rglob("*.png")), 4):
            if dice.random() < 0.5:
                path.write_bytes(png(dice.randrange(10**6)))
            else:
                path.rename(path.with_name(f"moved {step} {path.name}"))
        (raw / "cat" / f"{step} new.png").write_bytes(png(1000 + step))
        (raw / "dog" / f"{step} more.zip").write_bytes(
            zipped({f"{at}.png": png(2000 + 10 * step + at) for at in range(5)})
        )
        (raw / "dog" / f"{step} broken.png").write_bytes(png(3000 + step)[:-20])
        time.sleep(SETTLED)
        grown = tree_digests(ingest(raw, source=FOLDERS).path)
        assert grown == from_scratch(raw, monkeypatch, source=FOLDERS)


def test_digests_taken_while_shards_are_written_are_those_of_the_files(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_write, "_PIECE", 200)  # bytes: a shard is written in pieces
    path = ingest(raw, shard_images=8).path
    found = tree_digests(path)
    assert sum(name.startswith("images-") for name in found) > 2
    assert read_summary(path).outputs == {name: one for name, one in found.items() if name != "summary.json"}


def test_what_was_decoded_is_never_decoded_again(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (raw / "dog" / "broken.png").write_bytes(png(1)[:-20])
    time.sleep(SETTLED)
    first = tree_digests(ingest(raw, source=FOLDERS).path)
    decoded: list[str] = []
    decode = _worker.decode

    def counted(content: Any, name: str, rules: Any) -> Any:
        decoded.append(name)
        return decode(content, name, rules)

    monkeypatch.setattr(_worker, "decode", counted)
    assert tree_digests(ingest(raw, "again", source=FOLDERS).path) == first and not decoded
    shutil.copytree(raw, raw.with_name("copy"))
    shutil.rmtree(raw)
    raw.with_name("copy").rename(raw)  # as after `dvc checkout`: other inodes, other times
    time.sleep(SETTLED)
    assert tree_digests(ingest(raw, "checked out", source=FOLDERS).path) == first and not decoded
    monkeypatch.setattr(_worker, "content_sha256", None)  # nor read
    assert tree_digests(ingest(raw, "once more", source=FOLDERS).path) == first and not decoded
    monkeypatch.undo()
    monkeypatch.setattr(_worker, "decode", counted)
    (raw / "cat" / "05.png").rename(raw / "cat" / "05.jpg")  # another claim, another answer
    (raw / "cat" / "06.png").write_bytes(png(777))
    result = ingest(raw, "changed", source=FOLDERS)
    assert sorted(decoded) == ["05.jpg", "06.png"] and result.refused["cat/05.jpg"].startswith("wrong type")


def test_other_rules_find_nothing_of_the_old_ones(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (raw / "cat" / "wide.png").write_bytes(encoded(noise(16, 40)))
    time.sleep(SETTLED)
    ingest(raw, source=FOLDERS)
    for changes in ({"fit": "stretch"}, {"fit": "pad", "background": (0, 0, 0)}, {"channels": 3}):
        made = tree_digests(ingest(raw, source=FOLDERS, **changes).path)
        assert made == from_scratch(raw, monkeypatch, source=FOLDERS, **changes)


DAMAGE = {
    "cut short": lambda content: content[:-10],
    "empty": lambda content: b"",
    "one bit flipped": lambda content: content[:-10] + bytes([content[-10] ^ 1]) + content[-9:],
    "other JSON": lambda content: b"7\n",
}


@pytest.mark.parametrize(
    ("what", "how"),
    [
        (what, how)
        for what in ("*.records", "*.pixels", "near.npz")
        for how in DAMAGE
        if (what, how) != ("*.pixels", "one bit flipped")  # of pixels the length alone is looked at
    ],
)
def test_a_damaged_state_folder_is_passed_over(raw: Path, what: str, how: str) -> None:
    changes = {"source": FOLDERS, "near_duplicates": NearDuplicates(distance=3, levels=1.0)}
    time.sleep(SETTLED)
    first = tree_digests(ingest(raw, **changes).path)
    state = Path(os.environ["GANOPS_STATE"]) / "ingest"
    damaged = sorted(max(state.iterdir(), key=lambda path: path.stat().st_mtime).glob(what))
    assert damaged
    for path in damaged:
        path.write_bytes(DAMAGE[how](path.read_bytes()))
    assert tree_digests(ingest(raw, "again", **changes).path) == first


def loaded(module: str, known: set[str]) -> set[str]:
    """`module`, a file of stages/ingest, and all of its own that load with it."""
    folder = Path(_read.__file__).parent
    known.add(module)
    for node in ast.parse((folder / module).read_text()).body:
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("stages.ingest"):
            continue
        whole = node.module == "stages.ingest"
        found = [alias.name for alias in node.names] if whole else [(node.module or "").rpartition(".")[2]]
        for name in found:
            if f"{name}.py" not in known and (folder / f"{name}.py").is_file():
                loaded(f"{name}.py", known)
    return known


def test_what_is_remembered_depends_on_all_code_that_made_it() -> None:
    """Decoded samples by the worker and any source, near duplicates by the search among them."""
    known: set[str] = set()
    for start in ("_worker.py", "_copies.py", *(f"sources/{path.name}" for path in sources())):
        loaded(start, known)
    assert {name for name in known if not name.startswith("sources/")} == set(_read._CODE)


def sources() -> list[Path]:
    return sorted((Path(_read.__file__).parent / "sources").glob("*.py"))


def test_one_file_of_several_names_is_what_each_name_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links inside the folder are allowed; whatever the order in which they were met, an answer belongs to a name."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(6):
        (raw / f"{number}.png").write_bytes(png(number))
    (raw / "z.jpg").symlink_to(raw / "0.png")
    os.link(raw / "1.png", raw / "a.jpg")
    time.sleep(SETTLED)
    first = ingest(raw, "first")
    assert set(first.refused) == {"a.jpg", "z.jpg"} and first.counts["kept"] == 6
    decoded: list[str] = []
    monkeypatch.setattr(_worker, "decode", lambda body, name, rules: decoded.append(name))
    again = ingest(raw, "again")
    assert tree_digests(again.path) == tree_digests(first.path) and not decoded


def edit_unseen(path: Path) -> None:
    """Other pixels in as many bytes, the old time set back: only the time of the change of the inode tells."""
    before, old = path.stat(), path.read_bytes()
    new = next(content for seed in range(900, 10**6) if len(content := png(seed)) == len(old))
    path.write_bytes(new)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns


SPOILS = {
    "output edited": lambda home: (home / "store" / "labels-00000.npy").write_bytes(b"edited"),
    "output incomplete": lambda home: (home / "store" / "manifest.parquet").unlink(),
    "output with more": lambda home: (home / "store" / "more").write_text("not ours"),
    "file renamed": lambda home: (home / "raw" / "cat" / "00.png").rename(home / "raw" / "cat" / "zz.png"),
    "file edited": lambda home: edit_unseen(home / "raw" / "cat" / "00.png"),
    "file behind a link": lambda home: edit_unseen(home / "raw" / "cat" / ".hidden.png"),
    "file removed": lambda home: (home / "raw" / "dog" / "07.png").unlink(),
    "file in an archive": lambda home: (home / "raw" / "dog" / "more.zip").write_bytes(zipped({"b.png": png(4)})),
    "folder renamed": lambda home: (home / "raw" / "cat").rename(home / "raw" / "lynx"),
    "datasheet": lambda home: (home / "sheet.yaml").write_text(SHEET + "notes: noise\n"),
}  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILS)
def test_where_nothing_changed_the_output_stays_as_it_is_and_any_change_is_noticed(
    raw: Path, spoil: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (raw / "cat" / ".hidden.png").write_bytes(png(800))
    (raw / "cat" / "link.png").symlink_to(".hidden.png")
    (raw / "cat" / "nowhere.png").symlink_to("gone.png")
    (raw / "dog" / "more.zip").write_bytes(zipped({"a.png": png(3)}))
    monkeypatch.setattr(_again, "_SETTLED_NS", 10**8)
    time.sleep(SETTLED)
    out = ingest(raw, source=FOLDERS).path
    assert "nothing changed" not in capsys.readouterr().err
    before = {path.name: path.stat().st_ino for path in out.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(_work, "ingest", None)  # nothing is listed, let alone decoded
        ingest(raw, source=FOLDERS)
    assert "nothing changed" in capsys.readouterr().err
    assert {path.name: path.stat().st_ino for path in out.iterdir()} == before
    SPOILS[spoil](raw.parent)
    again = tree_digests(ingest(raw, source=FOLDERS).path)
    assert "nothing changed" not in capsys.readouterr().err
    shutil.rmtree(out)
    assert again == from_scratch(raw, monkeypatch, source=FOLDERS)


def test_all_code_that_makes_the_store_is_asked(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(_again, "sha256_file", lambda path: asked.append(path.name) or "")
    _again._key(config(), "", raw.parent / "sheet.yaml", None)
    assert {"_work.py", "_near.py", "folder.py", "attributes.py", "store.py", "yaml_files.py"} <= set(asked)


def test_what_may_still_change_unseen_is_looked_at_again(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "cat" / "00.png").touch()
    for _ in range(2):
        ingest(raw, source=FOLDERS)
        assert "nothing changed" not in capsys.readouterr().err


def failing(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    """Files of that name cannot be opened."""
    opened = Path.open

    def refuses(path: Path, *how: Any, **more: Any) -> Any:
        if path.name == name:
            raise OSError(code, os.strerror(code))
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", refuses)


@pytest.mark.parametrize("name", ["03.png", "more.zip", "more.tar", "more.tgz"])
def test_a_disk_that_fails_once_refuses_nothing(raw: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The good image was refused, and stayed refused, because nothing changed after that."""
    (raw / "dog" / "more.zip").write_bytes(zipped({"a.png": png(3)}))
    (raw / "dog" / "more.tar").write_bytes(tarred({"b.png": png(300)}))
    (raw / "dog" / "more.tgz").write_bytes(tarred({"c.png": png(301)}, "w:gz"))
    time.sleep(SETTLED)
    with monkeypatch.context() as patched, pytest.raises(OSError, match=f"Input/output error.*{name}"):
        failing(patched, name, errno.EIO)
        ingest(raw, source=FOLDERS)
    listed = _tree._archives.members
    with monkeypatch.context() as patched, pytest.raises(OSError, match=f"Input/output error.*{name}"):
        patched.setattr(_tree._archives, "members", lambda path: [listed(path), failing(patched, name, errno.EIO)][0])
        failing(patched, "03.png" if name == "03.png" else "none", errno.EIO)
        ingest(raw, source=FOLDERS)


def test_a_refusal_that_may_be_gone_next_time_is_asked_again(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_again, "_SETTLED_NS", 10**8)
    (raw / "dog" / "more.zip").write_bytes(zipped({"a.png": png(303)}))
    time.sleep(SETTLED)
    for name, source in (("03.png", "cat/03.png"), ("more.zip", "dog/more.zip")):
        with monkeypatch.context() as patched:
            failing(patched, name, errno.EACCES)
            assert ingest(raw, name, source=FOLDERS).refused[source] == "unreadable: Permission denied"
        assert not ingest(raw, name, source=FOLDERS).refused


def test_what_is_no_longer_asked_for_is_forgotten_when_it_was_read(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(SETTLED)
    ingest(raw, source=FOLDERS)
    for path in sorted(raw.rglob("*.png")):
        if int(path.stem) >= 5:
            path.unlink()
    few = tree_digests(ingest(raw, source=FOLDERS).path)
    state = Path(os.environ["GANOPS_STATE"]) / "ingest"
    assert not list(max(state.iterdir(), key=lambda path: path.stat().st_mtime).glob("*-*-*.np*"))
    assert few == tree_digests(ingest(raw, "again", source=FOLDERS).path)
    assert few == from_scratch(raw, monkeypatch, source=FOLDERS)


def test_more_packs_than_a_process_may_open(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_worker, "PACK", 2)
    monkeypatch.setattr(_read, "PACK", 2)
    monkeypatch.setattr(_write, "_PIECE", 200)  # bytes: a shard is written in pieces
    for at in range(100):
        (raw / "cat" / f"more {at}.png").write_bytes(png(500 + at))
    time.sleep(SETTLED)
    open_now, (soft, hard) = len(list(Path("/proc/self/fd").iterdir())), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 20, hard))
    try:
        first = tree_digests(ingest(raw, source=FOLDERS).path)
        again = tree_digests(ingest(raw, "again", source=FOLDERS).path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.undo()
    assert first == again == from_scratch(raw, monkeypatch, source=FOLDERS)


@pytest.mark.parametrize("way", ["folder", "archive", "end"])
def test_what_is_added_leaves_almost_all_shards_alone(tmp_path: Path, way: str) -> None:
    raw = tmp_path / "raw"
    for name in "abcdefgh":
        (raw / name).mkdir(parents=True)
        for at in range(60):
            (raw / name / f"{at:03d}.png").write_bytes(png(1000 * ord(name) + at))
    before = {path.read_bytes() for path in ingest(raw, source=FOLDERS, shard_images=8).path.glob("images-*.npy")}
    assert len(before) > 40
    if way == "folder":
        (raw / "dd").mkdir()
        for at in range(40):
            (raw / "dd" / f"{at}.png").write_bytes(png(at))
    elif way == "archive":
        (raw / "d" / "030 more.zip").write_bytes(zipped({f"{at}.png": png(at) for at in range(40)}))
    else:
        for name in "cf":
            for at in range(20):
                (raw / name / f"later {at}.png").write_bytes(png(2000 + 100 * ord(name) + at))
    after = {path.read_bytes() for path in ingest(raw, source=FOLDERS, shard_images=8).path.glob("images-*.npy")}
    assert len(before - after) <= (6 if way == "end" else 3)


def test_two_runs_at_once_do_not_mix(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_samples = _work.read_samples

    def while_busy(*arguments: Any) -> Any:
        with pytest.raises(ValueError, match="is in use by process"):
            ingest(raw, "second", source=FOLDERS)
        return read_samples(*arguments)

    monkeypatch.setattr(_work, "read_samples", while_busy)
    assert ingest(raw, source=FOLDERS).counts["kept"] == 80
    assert CONFIG.processes == 0


def test_a_file_that_changes_while_it_is_read_is_refused(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = _tree.read

    def writing(root: Path, unit: bytes, *more: Any) -> Any:
        for answer in read(root, unit, *more):
            if unit.endswith((b"cat/07.png", b".zip")):
                with (root / os.fsdecode(unit)).open("ab") as file:
                    file.write(b"more")
            yield answer

    monkeypatch.setattr(_tree, "read", writing)
    result = ingest(raw, source=FOLDERS)
    assert list(result.refused) == ["cat/07.png"] and result.refused["cat/07.png"].startswith("changed")
    (raw / "dog" / "more.zip").write_bytes(zipped({"a.png": png(555), "b.png": png(556)}))
    with pytest.raises(ValueError, match=r"more.zip changed while it was read; run ingest again"):
        ingest(raw, source=FOLDERS)
