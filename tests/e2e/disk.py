"""Disks that fail: a small file system that can be filled, and system calls that fail or take their time."""

import os
import subprocess
from pathlib import Path

# Stands before the C library's calls. What happens is read from a file at each call, so that a test can change it while
# the server runs: `write ERRNO` and `sync ERRNO` fail, `slow MS` makes each sync take so long.
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int told(const char *what) {
  char text[64], word[16];
  int number = 0;
  int saved = errno;
  int file = open(getenv("DISK_FAULT"), O_RDONLY);
  if (file < 0) return 0;
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  errno = saved;
  if (length <= 0) return 0;
  text[length] = 0;
  if (sscanf(text, "%15s %d", word, &number) != 2 || strcmp(word, what)) return 0;
  return number;
}

static int sync_fault(void) {
  int slow = told("slow"), fault = told("sync");
  if (!fault) fault = told("write");
  if (slow) usleep(slow * 1000);
  if (fault) errno = fault;
  return fault;
}

int fsync(int file) {
  int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
  return sync_fault() ? -1 : real(file);
}

int fdatasync(int file) {
  int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
  return sync_fault() ? -1 : real(file);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
  ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
  int fault = told("write");
  if (fault) { errno = fault; return -1; }
  return real(file, bytes, length, offset);
}
"""


class Faults:
    """Lets a server's disk fail: start it with `env`, then `faults.set("write", errno.EROFS)`."""

    def __init__(self, home):
        self.control = Path(home) / "disk-fault"
        self.control.write_text("")
        source, library = Path(home) / "disk-fault.c", Path(home) / "disk-fault.so"
        source.write_text(SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self.env = {"LD_PRELOAD": str(library), "DISK_FAULT": str(self.control)}

    def set(self, what="", number=0):
        # As a whole, or not: it is read at any moment.
        new = self.control.with_suffix(".new")
        new.write_text(f"{what} {number}" if what else "")
        new.rename(self.control)


class SmallDisk:
    """A file system of so many bytes at `path`, for who may mount; a context manager."""

    def __init__(self, path, size):
        self.path, self.size = Path(path), size
        self.filler = self.path / "filler"

    @staticmethod
    def possible():
        return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0

    def __enter__(self):
        self.path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.path], check=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.path], check=True)

    def fill(self):
        """Not a byte is left."""
        with open(self.filler, "wb", buffering=0) as filler:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    pass

    def leave(self, size):
        """No more than so many bytes are left."""
        with open(self.filler, "wb", buffering=0) as filler:
            while (free := os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize) > size:
                filler.write(bytes(min(1 << 20, free - size)))

    def free(self):
        self.filler.unlink()

    def read_only(self, yes):
        subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", self.path], check=True)
