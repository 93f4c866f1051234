"""Creates 5,000 images with tiny layers, and one with a layer of 2 GiB, in the storage layout of docker-registry.

    many.py DIRECTORY    creates the storage below DIRECTORY if it does not exist

There are 1,000 repositories with five tags each. An image has eight layers: three of one of 40 bases, three of its repository
and two of its own. Only the number of layers matters here; with real layers this would be a terabyte.
"""

import hashlib
import json
import os
import random
import shutil
import sys

REPOSITORIES, TAGS, BASES = 1000, 5, 40
GIANT = "team/giant:1"
GIANT_BYTES = 2 << 30
OCI = "application/vnd.oci.image."


def storage(root):
    return os.path.join(root, "many")


def names():
    return [f"team{n % 10}/app{n}:{tag}" for n in range(REPOSITORIES) for tag in range(TAGS)]


def make(root):
    complete = os.path.join(storage(root), "complete")
    if os.path.exists(complete):
        return
    shutil.rmtree(storage(root), ignore_errors=True)
    tree = Tree(os.path.join(storage(root), "docker", "registry", "v2"))
    bases = [[tree.blob(b"base %d, layer %d" % (base, n)) for n in range(3)] for base in range(BASES)]
    for number in range(REPOSITORIES):
        repository = f"team{number % 10}/app{number}"
        shared = bases[number % BASES] + [tree.blob(b"%s, layer %d" % (repository.encode(), n)) for n in range(3)]
        for tag in range(TAGS):
            own = [tree.blob(b"%s, tag %d, layer %d" % (repository.encode(), tag, n)) for n in range(2)]
            tree.image(repository, str(tag), shared + own)
    repository, tag = GIANT.split(":")
    tree.image(repository, tag, [tree.giant()])
    open(complete, "w").close()


class Tree:
    def __init__(self, top):
        self.top = top

    def blob(self, content):
        digest = hashlib.sha256(content).hexdigest()
        path = self.data(digest)
        if not os.path.exists(path):
            os.makedirs(os.path.dirname(path))
            with open(path, "wb") as file:
                file.write(content)
        return digest, len(content)

    def data(self, digest):
        return os.path.join(self.top, "blobs", "sha256", digest[:2], digest, "data")

    def giant(self):
        """Returns bytes that do not repeat within any compression window."""
        unfinished = os.path.join(self.top, "giant")
        piece, sum = bytearray(random.Random(1).randbytes(1 << 20)), hashlib.sha256()
        with open(unfinished, "wb") as file:
            for number in range(GIANT_BYTES >> 20):
                piece[:8] = number.to_bytes(8, "big")
                sum.update(piece)
                file.write(piece)
        path = self.data(sum.hexdigest())
        os.makedirs(os.path.dirname(path))
        os.rename(unfinished, path)
        return sum.hexdigest(), GIANT_BYTES

    def image(self, repository, tag, layers):
        diff_ids = [f"sha256:{digest}" for digest, _ in layers]
        config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"name": f"{repository}:{tag}"}}}
        config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        config = self.blob(json.dumps(config).encode())
        manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json"}
        manifest["config"] = descriptor("config.v1+json", *config)
        manifest["layers"] = [descriptor("layer.v1.tar", *layer) for layer in layers]
        digest, _ = self.blob(json.dumps(manifest).encode())
        for content, _ in [config, *layers]:
            self.link(repository, content, "_layers", "sha256", content)
        self.link(repository, digest, "_manifests", "revisions", "sha256", digest)
        self.link(repository, digest, "_manifests", "tags", tag, "current")
        self.link(repository, digest, "_manifests", "tags", tag, "index", "sha256", digest)

    def link(self, repository, digest, *path):
        directory = os.path.join(self.top, "repositories", repository, *path)
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "link"), "w") as file:
            file.write(f"sha256:{digest}")


def descriptor(media_type, digest, size):
    return {"mediaType": OCI + media_type, "digest": f"sha256:{digest}", "size": size}


if __name__ == "__main__":
    make(sys.argv[1])
