"""Artifacts are stored whole or not at all, and a changed byte never passes for the original."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from fsspec.core import url_to_fs

from panacea_lib.artifact_store import ArtifactStore, DamagedArtifactError
from panacea_lib.errors import MissingUpstreamError

KEY = "0123456789abcdef"


@pytest.fixture(params=["local", "file url", "remote"])
def store(request, tmp_path) -> ArtifactStore:
    """A local folder, the same by URL, and an object store (in memory) with a cache."""
    url = {
        "local": str(tmp_path / "artifacts"),
        "file url": f"file://{tmp_path}/artifacts",
        "remote": f"memory://{uuid4().hex}/artifacts",
    }[request.param]
    return ArtifactStore(url, cache=tmp_path / "cache")


@pytest.fixture
def local(tmp_path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


def save(store: ArtifactStore, key: str = KEY, text: str = "{}") -> None:
    with store.writer(key) as folder:
        (folder / "config.json").write_text(text)
        (folder / "adapter").mkdir()
        (folder / "adapter" / "weights.safetensors").write_bytes(b"\x00" * 1000)


def stored_files(store: ArtifactStore) -> list[str]:
    """Every file that stands in the store itself; not its locks."""
    fs, root = url_to_fs(store.url)
    names = [str(name).removeprefix(f"{root}/") for name in fs.find(root)]
    return sorted(name for name in names if not name.startswith(".staging"))


def change(store: ArtifactStore, name: str, content: bytes) -> None:
    fs, root = url_to_fs(store.url)
    fs.makedirs(str(Path(f"{root}/{name}").parent), exist_ok=True)
    fs.pipe_file(f"{root}/{name}", content)


def test_what_was_written_is_fetched(store):
    assert not store.is_complete(KEY)
    save(store)
    assert store.is_complete(KEY)
    folder = store.fetch(KEY)
    assert (folder / "config.json").read_text() == "{}"
    assert (folder / "adapter" / "weights.safetensors").stat().st_size == 1000
    assert store.fetch(KEY) == folder
    assert stored_files(store) == [
        f"{KEY}/COMPLETE", f"{KEY}/adapter/weights.safetensors", f"{KEY}/config.json",
        f"{KEY}/manifest.json",
    ]  # fmt: skip


def test_an_exception_leaves_nothing_behind(store):
    with pytest.raises(RuntimeError, match="boom"), store.writer(KEY) as folder:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("boom")
    assert not store.is_complete(KEY) and stored_files(store) == []
    assert not folder.exists()
    with pytest.raises(MissingUpstreamError, match="materialize the asset that makes it"):
        store.fetch(KEY)


def test_an_incomplete_artifact_is_replaced(store):
    change(store, f"{KEY}/half.json", b"{}")
    assert not store.is_complete(KEY)
    save(store)
    assert store.is_complete(KEY) and f"{KEY}/half.json" not in stored_files(store)
    store.fetch(KEY)


def test_a_complete_artifact_stays(store):
    save(store, text="first")
    save(store, text="second")
    assert (store.fetch(KEY) / "config.json").read_text() == "first"


def test_a_deleted_artifact_is_gone_and_can_be_made_again(store):
    save(store, text="old")
    store.fetch(KEY)
    (store.working_dir(KEY) / "checkpoint.json").write_text("{}")
    store.delete(KEY)
    store.delete(KEY)
    assert not store.is_complete(KEY) and stored_files(store) == []
    assert list(store.working_dir(KEY).iterdir()) == []
    save(store, text="new")
    assert (store.fetch(KEY) / "config.json").read_text() == "new"


def test_a_flipped_byte_is_named_with_the_remedy(store):
    save(store)
    change(store, f"{KEY}/adapter/weights.safetensors", b"\x00" * 999 + b"\x01")
    assert store.is_complete(KEY), "sizes agree"
    with pytest.raises(DamagedArtifactError) as caught:
        store.fetch(KEY)
    message = str(caught.value)
    assert "adapter/weights.safetensors was changed" in message
    assert "Delete the artifact" in message and "materialize its asset again" in message


@pytest.mark.parametrize("name", ["manifest.json", "COMPLETE"])
def test_a_changed_seal_is_damage(store, name):
    save(store)
    change(store, f"{KEY}/{name}", b"\xff")
    assert not store.is_complete(KEY)
    with pytest.raises(DamagedArtifactError, match="manifest"):
        store.fetch(KEY)
    save(store)
    store.fetch(KEY)


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "COMPLETE"])
def test_a_lost_file_makes_it_incomplete(store, name):
    save(store)
    fs, root = url_to_fs(store.url)
    fs.rm_file(f"{root}/{KEY}/{name}")
    assert not store.is_complete(KEY)
    with pytest.raises((DamagedArtifactError, MissingUpstreamError)):
        store.fetch(KEY)


def test_a_file_of_another_size_makes_it_incomplete(store):
    save(store)
    change(store, f"{KEY}/config.json", b"{ }")
    assert not store.is_complete(KEY)


def test_an_added_file_is_not_trusted(store):
    save(store)
    change(store, f"{KEY}/adapter/pytorch_model.bin", b"a pickle, perhaps")
    with pytest.raises(DamagedArtifactError, match=r"adapter/pytorch_model\.bin was added"):
        store.fetch(KEY)


@pytest.mark.parametrize("name", ["a.bin", "deep/optimizer.pt", "a.pkl", "a.PTH", "x.pickle"])
def test_pickles_are_refused(store, name):
    with pytest.raises(ValueError, match="safetensors or JSON"), store.writer(KEY) as folder:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    assert not store.is_complete(KEY) and stored_files(store) == []


@pytest.mark.parametrize("key", ["", "..", "a/b", "../abc", "ABC", "demo", "abc ", "abc\n", "/abc"])
def test_names_never_become_paths(store, key):
    for call in (store.is_complete, store.fetch, store.delete, store.working_dir):
        with pytest.raises(ValueError, match="hexadecimal"):
            call(key)
    with pytest.raises(ValueError, match="hexadecimal"), store.writer(key):
        pass


def test_links_and_reserved_names_and_nothing_are_refused(local, tmp_path):
    (tmp_path / "outside").mkdir()
    with pytest.raises(ValueError, match="nothing was written"), local.writer(KEY):
        pass
    with pytest.raises(ValueError, match="link is a link"), local.writer(KEY) as folder:
        (folder / "link").symlink_to(tmp_path / "outside")
    with (
        pytest.raises(ValueError, match="store writes COMPLETE itself"),
        local.writer(KEY) as folder,
    ):
        (folder / "COMPLETE").write_text("yes")


def test_work_survives_a_crash_and_goes_when_it_is_committed(store):
    work = store.working_dir(KEY)
    (work / "checkpoint-200").mkdir()
    (work / "checkpoint-200" / "optimizer.pt").write_bytes(b"never stored")
    assert store.working_dir(KEY) == work, "the next run finds it"
    assert (work / "checkpoint-200" / "optimizer.pt").exists() and not store.is_complete(KEY)
    (work / "final").mkdir()
    (work / "final" / "adapter.safetensors").write_bytes(b"weights")
    store.commit(KEY, work / "final")
    assert store.is_complete(KEY) and not work.exists()
    assert (store.fetch(KEY) / "adapter.safetensors").read_bytes() == b"weights"


def test_a_refused_commit_keeps_the_work(store):
    work = store.working_dir(KEY)
    (work / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"optimizer\.pt"):
        store.commit(KEY, work)
    assert (work / "optimizer.pt").exists() and not store.is_complete(KEY)


def test_what_a_killed_writer_left_is_swept_by_the_next(local):
    code = """
import sys, time
from panacea_lib.artifact_store import ArtifactStore
with ArtifactStore(sys.argv[1]).writer(sys.argv[2]) as folder:
    (folder / "half.json").write_text("{}")
    print(folder, flush=True)
    time.sleep(60)
"""
    arguments = [sys.executable, "-c", code, local.url, KEY]
    doomed = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    left = Path(doomed.stdout.readline().strip())
    save(local, key="abcd")
    with local.writer(KEY) as mine:  # the other writer lives, and so does its folder
        (mine / "config.json").write_text("{}")
        assert left.exists() and mine != left
    local.delete(KEY)
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait()
    assert not local.is_complete(KEY) and left.exists()
    save(local)
    assert local.is_complete(KEY) and not left.exists()
    assert sorted(path.name for path in left.parent.iterdir()) == ["store.lock"]


def test_two_attempts_at_one_key_both_succeed(local):
    with local.writer(KEY) as first:
        (first / "config.json").write_text("first")
        save(local, text="second, but done earlier")
    assert (local.fetch(KEY) / "config.json").read_text() == "second, but done earlier"


def test_a_damaged_or_outdated_cached_copy_is_downloaded_again(tmp_path):
    store = ArtifactStore(f"memory://{uuid4().hex}", cache=tmp_path)
    save(store, text="old")
    folder = store.fetch(KEY)
    (folder / "config.json").write_text("rot")
    assert (store.fetch(KEY) / "config.json").read_text() == "old"
    elsewhere = ArtifactStore(store.url, cache=tmp_path / "another machine")
    elsewhere.delete(KEY)
    save(elsewhere, text="new")
    assert (store.fetch(KEY) / "config.json").read_text() == "new"
    shutil.rmtree(tmp_path)
    assert (store.fetch(KEY) / "config.json").read_text() == "new"
