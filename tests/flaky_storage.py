"""A filesystem that fails every so many reads and writes, each time once; or whose shards never fit."""

from __future__ import annotations

import errno
import itertools

import pyarrow.fs as pafs

_CALLS = itertools.count(1)  # of this process


class FlakyFileSystem(pafs.FileSystemHandler):
    """Everything goes to `fs`; opening a file raises every `every`th time.

    Args:
        full: only shards fail to be written, with 'No space left on device'.
    """

    def __init__(self, fs: pafs.FileSystem, every: int, full: bool = False):
        self.fs, self.every, self.full = fs, every, full

    @classmethod
    def wrap(cls, fs: pafs.FileSystem, every: int, full: bool = False) -> pafs.PyFileSystem:
        return pafs.PyFileSystem(cls(fs, every, full))

    def _err(self, path: str, writes: bool) -> None:
        if self.full:
            if writes and "/shards/" in path:
                raise OSError(errno.ENOSPC, "No space left on device")
        elif next(_CALLS) % self.every == 0:
            raise OSError(f"AWS Error SLOW_DOWN at {path}: please reduce your request rate")

    def open_input_stream(self, path):
        self._err(path, writes=False)
        return self.fs.open_input_stream(path)

    def open_input_file(self, path):
        self._err(path, writes=False)
        return self.fs.open_input_file(path)

    def open_output_stream(self, path, metadata):
        self._err(path, writes=True)
        return self.fs.open_output_stream(path)

    def open_append_stream(self, path, metadata):
        return self.fs.open_append_stream(path)

    def get_type_name(self):
        return "flaky"

    def normalize_path(self, path):
        return self.fs.normalize_path(path)

    def get_file_info(self, paths):
        return self.fs.get_file_info(paths)

    def get_file_info_selector(self, selector):
        return self.fs.get_file_info(selector)

    def create_dir(self, path, recursive):
        self.fs.create_dir(path, recursive=recursive)

    def delete_dir(self, path):
        self.fs.delete_dir(path)

    def delete_dir_contents(self, path, missing_dir_ok=False):
        self.fs.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self):
        raise NotImplementedError

    def delete_file(self, path):
        self.fs.delete_file(path)

    def move(self, src, dest):
        self.fs.move(src, dest)

    def copy_file(self, src, dest):
        self.fs.copy_file(src, dest)

    def __eq__(self, other):
        return isinstance(other, FlakyFileSystem) and (self.every, self.full) == (other.every, other.full)

    def __ne__(self, other):
        return not self == other

    __hash__ = None
