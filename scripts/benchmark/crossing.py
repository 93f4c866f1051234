"""Measures what happens between the two sides: volumes, recovery, streams, increments and verification."""

import glob
import os
import shutil
import threading

import many

LIMIT = "100MB"
RECOVERY = 2

NAMED = [
    ("volumes, split: gapferry", "volumes, split: split", "split(1)"),
    ("volumes, join: gapferry", "volumes, join: cat", "cat(1)"),
    ("volumes, import: gapferry", "import: gapferry, tar", "the tar"),
    ("stream, export: gapferry", "export: gapferry, tar", "the tar"),
    ("stream, import: gapferry", "import: gapferry, tar", "the tar"),
    ("increment, export: gapferry", "increment, export in full", "the full export"),
    ("a layer of 2 GiB, verify: gapferry", "a layer of 2 GiB, verify: sha256sum", "sha256sum"),
]


class Room:
    """The maximum disk space used while something ran, in bytes."""

    def __init__(self, path):
        self.path, self.most, self.ended = path, 0, threading.Event()

    def free(self):
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def __enter__(self):
        os.sync()
        self.before = self.free()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.ended.wait(0.02):
            self.most = max(self.most, self.before - self.free())

    def __exit__(self, *_):
        os.sync()
        self.most = max(self.most, self.before - self.free())
        self.ended.set()
        self.thread.join()


def volumes(bench, gapferry, target):
    """Measures split, join, recovery, and the import of the volumes."""
    tar, out = bench.bundle(".tar"), bench.fresh("set")
    os.mkdir(out)
    split = [gapferry, "split", "-q", tar, "--volume-size", LIMIT, "-o"]
    with Room(out) as room:
        bench.time("volumes, split: gapferry", split + [f"{out}/v.tar"])
    paths = sorted(glob.glob(f"{out}/v.*.tar"))
    bench.note("split: bytes taken from the disk by bytes written", room.most / sum(map(os.path.getsize, paths)))
    bench.time("volumes, split: split -b", ["split", "-b", LIMIT, tar, f"{out}/plain."])
    bench.time("volumes, verify: gapferry", [gapferry, "verify", "-q", *paths])
    bench.time("volumes, join: gapferry", [gapferry, "join", "-q", *paths, "-o", f"{out}/joined.tar"])
    bench.time("volumes, join: cat", ["sh", "-c", f"cat {out}/plain.* > {out}/cat"])
    with target() as registry:
        bench.time("volumes, import: gapferry", [gapferry, "import", "-q", *paths, "--to", registry.address])
    recovery = split + [f"{out}/r.tar", "--recovery", str(RECOVERY)]
    bench.time(f"volumes, split with {RECOVERY} for recovery: gapferry", recovery)
    for number in range(1, RECOVERY + 1):
        os.remove(f"{out}/r.{number:03}.tar")
    rest = sorted(glob.glob(f"{out}/r.*.tar"))
    bench.time(f"volumes, repair of {RECOVERY} lost: gapferry", [gapferry, "repair", "-q", *rest])
    shutil.rmtree(out)


def streams(bench, gapferry, target):
    """Measures export to a pipe and import from it."""
    out = bench.fresh("stream") + ".tar"
    export = f"{gapferry} export -q -f {bench.list} -o - > {out}"
    bench.time("stream, export: gapferry", ["sh", "-c", export], counted=bench.source)
    with target() as registry:
        command = f"cat {out} | {gapferry} import -q - --to {registry.address}"
        bench.time("stream, import: gapferry", ["sh", "-c", command], counted=registry)
    os.remove(out)


def increment(bench, gapferry, registry, target):
    """Measures an increment: one new small image, based on the receipt of an import of all others."""
    receipt, bundle = bench.fresh("receipt") + ".json", bench.bundle(".tar")
    with target() as arrived:
        bench.run_quietly([gapferry, "import", "-q", bundle, "--to", arrived.address, "--receipt", receipt])
    tree = many.Tree(os.path.join(bench.fresh("more"), "docker", "registry", "v2"))
    tree.image("team/more", "1", [tree.blob(b"a layer of its own " * 1000)])
    more = registry(tree.top.removesuffix("/docker/registry/v2"), bench.fresh("more") + ".log")
    listed = bench.listed("more.txt", more, ["team/more:1"])
    full, out = bench.fresh("full") + ".tar", bench.fresh("increment") + ".tar"
    export = [gapferry, "export", "-q", "-f", bench.list, "-f", listed]
    bench.time("increment, export in full: gapferry", export + ["-o", full], counted=bench.source)
    command = export + ["--since", receipt, "-o", out]
    bench.time("increment, export: gapferry", command, counted=bench.source)
    bench.note("increment: bytes by bytes of the full bundle", os.path.getsize(out) / os.path.getsize(full))
    more.stop(remove=True)
    for path in (full, out):
        os.remove(path)
