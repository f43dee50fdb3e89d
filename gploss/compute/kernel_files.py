"""Kernels on disk: code that will be run, so that it lies where its owner alone can write, and is checked before.

numba keeps what it compiled in pickled files, and trusts them. Here their names hold a hash of their content: a
file that is empty, cut off or damaged is not looked into, and what it held is compiled anew.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.registry import CPUDispatcher

_OTHERS_WRITE = 0o022


class KernelError(RuntimeError):
    """Compiled kernels cannot be stored; the message names the folder and what to do."""


def private_folder(path: Path) -> Path:
    """Return a folder that its owner alone can write to; it is made where there is none.

    Raises:
        KernelError: it cannot be made, belongs to somebody else, or others can write to it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise KernelError(
            f"compiled kernels cannot be stored in {path} ({error}); "
            "set the environment variable GPLOSS_CACHE to a folder that can be written"
        ) from error
    advice = "what is in it would be run: delete it, or set the environment variable GPLOSS_CACHE to another folder"
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise KernelError(f"{path} belongs to another user; {advice}")
    if os.name == "posix" and found.st_mode & _OTHERS_WRITE:
        raise KernelError(f"others can write to {path}; {advice}")
    return path


class FromSource(SourceFileLoader):
    """Imports a file from its source alone: Python's own compiled files are not checked."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the compiled source."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def check_kernels(module: ModuleType, folder: Path) -> None:
    """Have the compiled functions of a module keep their kernels in a folder, under checked names."""
    for kernel in vars(module).values():
        kept = getattr(kernel, "_cache", None) if isinstance(kernel, CPUDispatcher) else None
        if isinstance(kept, FunctionCache):
            kept._cache_file = _CheckedFile(kept._cache_file, folder)


_CacheFile: Any = IndexDataCacheFile


class _CheckedFile(_CacheFile):  # type: ignore[misc]
    """One function's kernels: an index of signatures, and a file for each."""

    def __init__(self, file: Any, folder: Path) -> None:
        self._base = file._index_name.removesuffix(".nbi")
        self._folder = folder
        super().__init__(str(folder), self._base, file._source_stamp)

    def save(self, key: Any, data: Any) -> None:
        kernel = self._write(self._dump(data), "nbc")
        kernels = {**self._load_index(), key: kernel.name}
        self._index_path = str(self._folder / f"{self._base}.new.{os.getpid()}.nbi")
        self._save_index(kernels)
        fresh = Path(self._index_path)
        index = self._write(fresh.read_bytes(), "nbi")
        fresh.unlink()
        for other in self._folder.glob(f"{self._base}.*.nbi"):
            if other != index:
                other.unlink(missing_ok=True)

    def load(self, key: Any) -> Any:
        name = self._load_index().get(key)
        return self._load_data(name) if name is not None and _is_whole(self._folder / name) else None

    def _load_index(self) -> dict[Any, str]:
        for path in self._folder.glob(f"{self._base}.*.nbi"):
            if _is_whole(path):
                self._index_path = str(path)
                found: dict[Any, str] = super()._load_index()
                return found
        return {}

    def _write(self, content: bytes, ending: str) -> Path:
        path = self._folder / f"{self._base}.{_hash(content)}.{ending}"
        with self._open_for_write(str(path)) as file:
            file.write(content)
        return path


def _hash(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether a file holds what its name says."""
    try:
        return path.suffixes[-2:-1] == [f".{_hash(path.read_bytes())}"]
    except OSError:  # it is gone
        return False
