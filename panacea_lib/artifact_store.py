"""Files of the stages (models, adapters) by content key, on a local disk or any fsspec URL.

An artifact is a folder `KEY/` with its files, `manifest.json` (size and SHA-256 of each) and, last,
`COMPLETE` (the manifest's own hash). What has no COMPLETE is not there.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from panacea_lib.disk import fsync
from panacea_lib.errors import MissingUpstreamError

MANIFEST = "manifest.json"
COMPLETE = "COMPLETE"
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
_KEY = re.compile(r"[0-9a-f]{1,128}")


class DamagedArtifactError(RuntimeError):
    """A stored file is not what was stored; the message names it and the remedy."""


class ArtifactStore:
    """Folders that are stored whole or not at all, and checked by hash when they are fetched.

    `url` is a path or an fsspec URL. `cache` is where files of a remote store and unfinished work
    lie on this machine (default: the user's cache folder); a local store keeps both in itself.
    Methods raise ValueError for a key that is not hexadecimal: names never become paths.
    """

    def __init__(self, url: str, cache: Path | None = None) -> None:
        self.url = re.sub(r"(?<=://)[^/@]*@", "", url)  # as messages name it: no credentials
        self._fs, root = url_to_fs(str(Path(url).expanduser()) if "://" not in url else url)
        self._is_local = isinstance(self._fs, LocalFileSystem)
        self._root = root.rstrip("/")
        if self._is_local:
            self._home = Path(self._root)
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "panacea"
            self._home = (cache or base) / hashlib.sha256(url.encode()).hexdigest()[:16]
        self._staging = self._home / ".staging"
        self._work = self._home / ".work"

    def is_complete(self, key: str) -> bool:
        """Whether COMPLETE is there and every file of the manifest with its size."""
        path = self._path(key)
        if not self._has(f"{path}/{COMPLETE}") or not self._has(f"{path}/{MANIFEST}"):
            return False
        raw = self._fs.cat_file(f"{path}/{MANIFEST}")
        if self._fs.cat_file(f"{path}/{COMPLETE}") != _seal_of(raw):
            return False
        stored = {str(name): info["size"] for name, info in self._find(path).items()}
        files = json.loads(raw)["files"]
        return all(stored.get(f"{path}/{name}") == file["size"] for name, file in files.items())

    @contextmanager
    def writer(self, key: str, replace: bool = False) -> Iterator[Path]:
        """A new local folder; what stands in it at the end becomes the artifact of `key`.

        An exception inside leaves nothing behind. An incomplete artifact is replaced; a complete
        one stays (the same key is the same content, and others may be reading it) unless told.
        Raises ValueError for an empty folder, a pickle, a link, or a reserved name.
        """
        with self._attempt(key) as folder:
            yield folder
            _seal(key, folder)
            self._store(key, folder, replace)
        _remove(self._work / key)

    def commit(self, key: str, folder: Path) -> None:
        """Store a copy of `folder` as the artifact of `key`, then remove `working_dir(key)`.

        `folder` may lie in the working folder, beside checkpoints that are not stored.
        Raises what `writer` raises; then `folder` and the working folder are left as they are.
        """
        with self.writer(key) as staged:
            shutil.copytree(folder, staged, symlinks=True, dirs_exist_ok=True)

    def working_dir(self, key: str) -> Path:
        """A local folder for resumable work on `key`: the same after a crash, gone once stored."""
        self._path(key)
        folder = self._work / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard_work(self, key: str) -> None:
        """Remove `working_dir(key)` of work whose product is kept elsewhere; absent is fine."""
        self._path(key)
        _remove(self._work / key)

    def fetch(self, key: str) -> Path:
        """A local folder with the artifact, every file checked against its hash; only read it.

        Raises MissingUpstreamError where it is not complete, DamagedArtifactError where a file
        was changed, added or removed since it was stored.
        """
        path = self._path(key)
        if not self._has(f"{path}/{COMPLETE}"):
            raise MissingUpstreamError(
                f"artifact {key} is not in {self.url}: materialize the asset that makes it"
            )
        folder = self._home / key
        if not self._is_local:
            self._staging.mkdir(parents=True, exist_ok=True)
            with FileLock(self._staging / "cache.lock"):  # two processes may fetch together
                if not self._is_cached(key):
                    self._download(key)
        if damage := _find_damage(folder):
            raise DamagedArtifactError(
                f"artifact {key} in {self.url}: {damage}. Delete the artifact (the folder {path}) "
                "and materialize its asset again"
            )
        return folder

    def delete(self, key: str) -> None:
        """Remove the artifact, its cached copy and its unfinished work; absent is fine."""
        path = self._path(key)
        if self._has(f"{path}/{COMPLETE}"):
            self._fs.rm_file(f"{path}/{COMPLETE}")  # first: half deleted is incomplete
        if self._has(path):
            self._fs.rm(path, recursive=True)
        _remove(self._home / key)
        _remove(self._work / key)
        self._sweep(key)

    def stored_keys(self) -> list[str]:
        """Of all that is stored, whole or not."""
        if not self._has(self._root):
            return []
        names = [
            str(name).rstrip("/").rsplit("/", 1)[-1] for name in self._fs.ls(self._root, False)
        ]
        return sorted(name for name in names if _KEY.fullmatch(name))

    def size(self, key: str) -> int:
        """Bytes of all its files; 0 where there are none."""
        path = self._path(key)
        return (
            sum(info["size"] or 0 for info in self._find(path).values()) if self._has(path) else 0
        )

    def unfinished(self) -> dict[str, float]:
        """Key → when its working folder was last written to, in seconds since 1970."""
        folders = self._work.iterdir() if self._work.exists() else []
        return {
            folder.name: max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
            for folder in folders
            if _KEY.fullmatch(folder.name)
        }

    def sweep(self) -> None:
        """Remove what killed writers left on this machine; of any key."""
        self._sweep("*")

    def _path(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise ValueError(f"an artifact's key is a hexadecimal number, got {key!r}")
        return f"{self._root}/{key}"

    @contextmanager
    def _attempt(self, key: str) -> Iterator[Path]:
        """A folder of our own to fill; whatever is left of it at the end is removed."""
        self._path(key)
        self._sweep(key)
        self._staging.mkdir(parents=True, exist_ok=True)
        folder = self._staging / f"{key}.{uuid4().hex}"
        lock = folder.with_name(f"{folder.name}.lock")
        with FileLock(lock):  # tells the next writer of this key that the attempt is alive
            folder.mkdir()
            try:
                yield folder
            finally:
                _remove(folder)
                lock.unlink()

    def _sweep(self, key: str) -> None:
        """Remove what killed writers of this key left; a living one holds its lock."""
        for lock in self._staging.glob(f"{key}.*.lock"):
            try:
                with FileLock(lock, timeout=0):
                    _remove(lock.with_suffix(""))
                    lock.unlink()
            except Timeout:
                continue

    def _has(self, path: str) -> bool:
        self._fs.invalidate_cache()  # object stores remember listings
        return self._fs.exists(path)

    def _find(self, path: str) -> dict[str, Any]:
        found = self._fs.find(path, detail=True)
        return found if isinstance(found, dict) else {}

    def _store(self, key: str, folder: Path, replace: bool) -> None:
        path = self._path(key)
        with FileLock(self._staging / "store.lock"):  # two attempts may finish together
            if not replace and self.is_complete(key):
                return
            if self._has(path):
                self._fs.rm(path, recursive=True)
            if self._is_local:
                folder.rename(path)
                fsync(Path(self._root))
                return
            names = [file.relative_to(folder).as_posix() for file in _files(folder)]
            for name in sorted(names, key=lambda name: (name == COMPLETE, name)):
                self._fs.put_file(str(folder / name), f"{path}/{name}")

    def _is_cached(self, key: str) -> bool:
        """Whether the cached copy is whole and of the artifact that is stored now."""
        folder = self._home / key
        if not folder.exists():
            return False
        stored = self._fs.cat_file(f"{self._path(key)}/{COMPLETE}")
        return (folder / COMPLETE).read_bytes() == stored and not _find_damage(folder)

    def _download(self, key: str) -> None:
        path = self._path(key)
        with self._attempt(key) as folder:
            for name in self._find(path):
                target = folder / PurePosixPath(name).relative_to(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(name, str(target))
            _remove(self._home / key)
            folder.rename(self._home / key)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _seal(key: str, folder: Path) -> None:
    """Check the files, and add the manifest and COMPLETE; everything reaches the disk."""
    files = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    if not files:
        raise ValueError(f"artifact {key}: nothing was written")
    for name, path in files.items():
        if path.suffix.lower() in PICKLES:
            raise ValueError(f"artifact {key}: {name} may be a pickle; store safetensors or JSON")
        if path.is_symlink():
            raise ValueError(f"artifact {key}: {name} is a link; store the file itself")
        if name in (MANIFEST, COMPLETE):
            raise ValueError(f"artifact {key}: the store writes {name} itself")
    entries = {name: {"size": p.stat().st_size, "sha256": _hash(p)} for name, p in files.items()}
    manifest = json.dumps({"key": key, "files": entries}, indent=1, sort_keys=True).encode()
    (folder / MANIFEST).write_bytes(manifest)
    (folder / COMPLETE).write_bytes(_seal_of(manifest))
    for path in [folder, *folder.rglob("*")]:
        fsync(path)


def _find_damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, in words; None where all is as it was stored."""
    manifest = (folder / MANIFEST).read_bytes() if (folder / MANIFEST).exists() else b""
    if not (folder / COMPLETE).exists() or (folder / COMPLETE).read_bytes() != _seal_of(manifest):
        return f"{MANIFEST} was changed or lost"
    expected = json.loads(manifest)["files"]
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    if missing := sorted(set(expected) - set(found)):
        return f"{missing[0]} is missing"
    if extra := sorted(set(found) - set(expected) - {MANIFEST, COMPLETE}):
        return f"{extra[0]} was added after it was stored"
    for name, entry in expected.items():
        if _hash(found[name]) != entry["sha256"]:
            return f"{name} was changed after it was stored"
    return None


def _seal_of(manifest: bytes) -> bytes:
    return hashlib.sha256(manifest).hexdigest().encode()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
