"""Compares `gapferry migrate` with the well-known script, on a registry's storage of 5,000 images with tiny layers.

All output stays until the end: for half a minute ext4 does not reuse the inodes of deleted files and keeps searching, which
would slow down the next program that creates files.
"""

import os

import many

HERE = os.path.dirname(os.path.abspath(__file__))
# 500 of them: skopeo pushes about ten a second.
SOME = ["--include", "^team3/"]
ALL = ["--exclude", f"^{many.GIANT}$"]

NAMED = [
    ("storage to dir: gapferry", "storage to dir: find", "the script"),
    ("storage, list: gapferry", "storage to dir: find", "the script"),
    ("storage to registry, 500: gapferry", "storage to registry, 500: skopeo", "skopeo"),
]


def links(bench, gapferry, storage):
    """Writes every image as a `dir:` image of hard links, and then runs again."""
    out = bench.fresh("links")
    for again in ("", " again"):
        bench.time(f"storage to dir{again}: gapferry", [gapferry, "migrate", "-q", storage, "--to-dir", out])


def script(bench, storage):
    out = bench.fresh("script")
    bench.time("storage to dir: find, mkdir, grep, ln", [os.path.join(HERE, "links.sh"), storage, out])


def listing(bench, gapferry, storage):
    bench.time("storage, list: gapferry", [gapferry, "migrate", "-q", storage, "--list"])


def push(bench, gapferry, storage, target):
    """Pushes from the storage into an empty registry."""
    for name, which in (("500", SOME), ("5,000", ALL)):
        with target() as registry:
            command = [gapferry, "migrate", "-q", storage, "--to", registry.address, *which]
            bench.time(f"storage to registry, {name}: gapferry", command, counted=registry)


def sync(bench, gapferry, storage, target):
    """Pushes the same 500 images from `dir:` images."""
    tree = bench.fresh("tree")
    bench.run_quietly([gapferry, "migrate", "-q", storage, "--to-dir", tree, *SOME])
    command = ["skopeo", "--insecure-policy", "sync", "--all", "--scoped", "--dest-tls-verify=false"]
    with target() as registry:
        command += ["--src", "dir", "--dest", "docker", ".", registry.address]
        bench.time("storage to registry, 500: skopeo sync --src dir", command, counted=registry, cwd=tree)
