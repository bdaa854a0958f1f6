#!/usr/bin/env python3
"""Fetches Jane Austen's six novels (public domain, 4 MB) as text files: data/text/*.txt.

They come from the distribution's package r-cran-janeaustenr, which is downloaded and unpacked but never installed.
Needs Debian 12 or 13, or Ubuntu 24.04 (there in `universe`) with apt and dpkg; on other systems put text files of
your own into the folder. A second run finds the files and does nothing.

Each novel is one record of the package's Rdata.rdb: the 4-byte big-endian length of the inflated data, then a zlib
stream that holds an R character vector in XDR form, one element a line.
"""

import argparse
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

PACKAGE = "r-cran-janeaustenr"
NOVELS = (
    "emma",
    "mansfield_park",
    "northanger_abbey",
    "persuasion",
    "pride_and_prejudice",
    "sense_and_sensibility",
)

# R's serialization: types in the low byte of an element's flags, encodings in bits 12 and up.
STRING_VECTOR, STRING = 16, 9
LATIN1 = 1 << (12 + 2)


class Failure(Exception):
    """What went wrong and what to do, in one line."""


def run(command, folder):
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise Failure(f"{command[0]} not found; this needs Debian's or Ubuntu's apt and dpkg") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("E:")] or error.stderr.splitlines()
        raise Failure(f"`{' '.join(command)}` failed: {lines[0] if lines else error.returncode}") from None


def package_is_known():
    return bool(run(["apt-cache", "madison", PACKAGE], None).stdout.strip())


def download(folder):
    """Downloads the package into `folder` and gives the path of its Rdata.rdb."""
    if not package_is_known() and os.geteuid() == 0:
        run(["apt-get", "update"], folder)
    if not package_is_known():
        raise Failure(f"apt does not know {PACKAGE}; run `apt-get update` as root (on Ubuntu enable `universe` first)")
    # Run as root, apt would otherwise download as a user who cannot write into this folder, and warn about it.
    run(["apt-get", "-o", "APT::Sandbox::User=root", "download", PACKAGE], folder)
    packages = list(folder.glob("*.deb"))
    if len(packages) != 1:
        raise Failure(f"apt-get download left {len(packages)} packages in {folder}, not 1")
    run(["dpkg-deb", "-x", str(packages[0]), "unpacked"], folder)
    found = list(folder.glob("unpacked/**/data/Rdata.rdb"))
    if len(found) != 1:
        raise Failure(f"{packages[0].name} has {len(found)} files data/Rdata.rdb, not 1; has its layout changed?")
    return found[0]


def records(data):
    """The inflated records of an .rdb file."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        stream = zlib.decompressobj()
        record = stream.decompress(data[at + 4 :])
        if len(record) != length or not stream.eof:
            raise Failure(f"record at byte {at} of Rdata.rdb has {len(record)} bytes, not {length}")
        yield record
        at = len(data) - len(stream.unused_data)


def lines_of(record):
    """The elements of an R character vector in XDR form."""
    if record[:2] != b"X\n":
        raise Failure("a record of Rdata.rdb is not in XDR form")
    at = 2

    def integer():
        nonlocal at
        at += 4
        return struct.unpack_from(">i", record, at - 4)[0]

    version, _writer, _reader = integer(), integer(), integer()
    if version == 3:  # names the native encoding
        name_length = integer()
        at += name_length
    if integer() & 0xFF != STRING_VECTOR:
        raise Failure("a record of Rdata.rdb is not a character vector")
    lines = []
    for _ in range(integer()):
        flags, length = integer(), integer()
        if flags & 0xFF != STRING or length < 0:
            raise Failure(f"line {len(lines) + 1} of a record of Rdata.rdb is not a string")
        lines.append(record[at : at + length].decode("latin-1" if flags & LATIN1 else "utf-8"))
        at += length
    return lines


def write(path, text):
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = pathlib.Path(__file__).parent / "text"
    parser.add_argument("--output", type=pathlib.Path, default=default, help="folder of the texts (%(default)s)")
    output = parser.parse_args().output

    if all((output / f"{name}.txt").is_file() for name in NOVELS):
        print(f"{output}: the six novels are there")
        return
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        novels = [lines_of(record) for record in records(download(pathlib.Path(work)).read_bytes())]
    # A novel's first line is its title.
    texts = {"_".join(lines[0].lower().split()): "\n".join(lines) + "\n" for lines in novels if lines}
    if sorted(texts) != sorted(NOVELS):
        raise Failure(f"{PACKAGE} holds {', '.join(sorted(texts))}; expected {', '.join(NOVELS)}")
    for name, text in texts.items():
        write(output / f"{name}.txt", text)
        print(f"{output / name}.txt: {len(text.encode())} bytes")


if __name__ == "__main__":
    try:
        main()
    except (Failure, OSError, UnicodeDecodeError, struct.error, zlib.error) as error:
        sys.exit(f"data/janeausten.py: {error}")
