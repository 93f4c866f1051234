"""A realistic corpus: 80 images under 100 tags, a third of them for two platforms, on a few large shared layers.

Each layer contains one Debian package (packages.txt) in a gzip-compressed tar. A package that cannot be downloaded is replaced
by generated data of the same size. The corpus is created once and kept: blobs/HEX, manifests/HEX and tags.json (a list of
{name, digest}).
"""

import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
OCI = "application/vnd.oci.image."
IMAGES, SECOND_TAGS = 80, 20


def make(root):
    """Creates the corpus below `root` if it does not exist, and returns its directory."""
    corpus = os.path.join(root, "corpus")
    if os.path.exists(os.path.join(corpus, "tags.json")):
        return corpus
    for part in ("blobs", "manifests"):
        os.makedirs(os.path.join(corpus, part), exist_ok=True)
    kinds = {"base": [], "runtime": [], "own": []}
    for kind, package, size in packages(os.path.join(root, "debs")):
        kinds[kind].append(layer(corpus, package, size))
    tags = images(corpus, **kinds)
    # Written last: an incomplete corpus is created again.
    with open(os.path.join(corpus, "tags.json"), "w") as file:
        json.dump(tags, file, indent=1)
    return corpus


def packages(directory):
    """Returns (kind, path, size) of each package. Without a network, the path does not exist."""
    with open(os.path.join(HERE, "packages.txt")) as file:
        lines = [line.split() for line in file if not line.startswith("#")]
    os.makedirs(directory, exist_ok=True)
    have = {name.split("_")[0]: name for name in os.listdir(directory)}
    wanted = [name for _, name, _ in lines if name not in have]
    for start in range(0, len(wanted), 20):
        some = wanted[start : start + 20]
        apt = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download"]
        if subprocess.run(apt + some, cwd=directory, stderr=subprocess.DEVNULL).returncode != 0:
            for name in some:
                subprocess.run(apt + [name], cwd=directory, stderr=subprocess.DEVNULL)
    have = {name.split("_")[0]: name for name in os.listdir(directory)}
    return [(kind, os.path.join(directory, have.get(name, name)), int(kb) * 1000) for kind, name, kb in lines]


def layer(corpus, package, size):
    """Writes one package as a layer. Returns its descriptor and the digest of the uncompressed tar."""
    if os.path.exists(package):
        with open(package, "rb") as file:
            content = file.read()
    else:
        content = random.Random(package).randbytes(size)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("srv/" + os.path.basename(package)[:90])
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    packed = gzip.compress(plain.getvalue(), compresslevel=1, mtime=0)
    return store(corpus, "blobs", packed, OCI + "layer.v1.tar+gzip"), "sha256:" + sha256(plain.getvalue())


def images(corpus, base, runtime, own):
    """Composes images from two bases, ten runtimes and their own layers. Returns the tags."""
    pick = random.Random(290)
    pick.shuffle(own)
    # The first six runtimes and the first base belong to one platform, the others to the second.
    stacks = {"amd64": (base[:2], runtime[:6]), "arm64": (base[2:], runtime[6:])}
    tags = []
    for number in range(IMAGES):
        platforms = ["amd64", "arm64"] if number % 3 == 1 else ["amd64"]
        children = []
        for platform in platforms:
            bottom, runtimes = stacks[platform]
            mine = [own.pop() for _ in range(2 if pick.random() < 0.6 else 1) if own]
            layers = bottom + [runtimes[number % len(runtimes)]] + mine
            children.append(image(corpus, number, platform, layers))
        top = children[0] if len(children) == 1 else index(corpus, children)
        repository = f"team{number // 2 % 5}/app{number // 2:02}"
        tags.append({"name": f"{repository}:1.{number % 2}", "digest": top["digest"]})
        if number < 2 * SECOND_TAGS and number % 2:
            tags.append({"name": f"{repository}:latest", "digest": top["digest"]})
    return tags


def image(corpus, number, architecture, layers):
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/app", str(number)]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI + "manifest.v1+json",
        "config": store(corpus, "blobs", json.dumps(config).encode(), OCI + "config.v1+json"),
        "layers": [descriptor for descriptor, _ in layers],
    }
    descriptor = store(corpus, "manifests", json.dumps(manifest).encode(), manifest["mediaType"])
    return descriptor | {"platform": {"architecture": architecture, "os": "linux"}}


def index(corpus, children):
    document = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": children}
    return store(corpus, "manifests", json.dumps(document).encode(), document["mediaType"])


def store(corpus, part, content, media_type):
    digest = sha256(content)
    with open(os.path.join(corpus, part, digest), "wb") as file:
        file.write(content)
    return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(content)}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Corpus:
    """The contents of the corpus, by tag."""

    def __init__(self, directory):
        self.directory = directory
        with open(os.path.join(directory, "tags.json")) as file:
            self.tags = json.load(file)

    def blob(self, digest):
        return os.path.join(self.directory, "blobs", digest.partition(":")[2])

    def manifest(self, digest):
        """Returns the bytes of a manifest and the parsed document."""
        with open(os.path.join(self.directory, "manifests", digest.partition(":")[2]), "rb") as file:
            content = file.read()
        return content, json.loads(content)

    def tree(self, digest):
        """Returns every manifest of an image, children first, as (digest, bytes, document)."""
        content, document = self.manifest(digest)
        below = [self.tree(child["digest"]) for child in document.get("manifests", [])]
        return [node for nodes in below for node in nodes] + [(digest, content, document)]

    def blobs_of(self, digest):
        """Returns the descriptors of an image's configs and layers."""
        found = []
        for _, _, document in self.tree(digest):
            found += [document["config"]] + document["layers"] if "config" in document else []
        return found

    def distinct(self):
        """Returns each blob once, as (digest, size, a repository that has it)."""
        found = {}
        for tag in self.tags:
            for blob in self.blobs_of(tag["digest"]):
                found.setdefault(blob["digest"], (blob["size"], tag["name"].partition(":")[0]))
        return [(digest, size, repository) for digest, (size, repository) in found.items()]

    def describe(self):
        distinct = self.distinct()
        images = {tag["digest"] for tag in self.tags}
        two = sum(len(self.tree(digest)) > 1 for digest in images)
        # Own copies: as many as there are images in each repository's tags.
        unshared = sum(blob["size"] for tag in self.tags for blob in self.blobs_of(tag["digest"]))
        return (
            f"{len(self.tags)} tags, {len(images)} images ({two} of two platforms), {len(distinct)} blobs, "
            f"{sum(size for _, size, _ in distinct) / 1e9:.2f} GB distinct, {unshared / 1e9:.1f} GB unshared"
        )


def directory_tree(corpus, target):
    """Writes the corpus as `skopeo sync --dest dir` writes it. Equal blobs are links to one file."""
    for tag in corpus.tags:
        directory = os.path.join(target, tag["name"])
        os.makedirs(directory)
        for digest, content, _ in corpus.tree(tag["digest"]):
            top = digest == tag["digest"]
            name = "manifest.json" if top else digest.partition(":")[2] + ".manifest.json"
            with open(os.path.join(directory, name), "wb") as file:
                file.write(content)
        for digest in {blob["digest"] for blob in corpus.blobs_of(tag["digest"])}:
            os.link(corpus.blob(digest), os.path.join(directory, digest.partition(":")[2]))
        with open(os.path.join(directory, "version"), "w") as file:
            file.write("Directory Transport Version: 1.1\n")


if __name__ == "__main__":
    make(sys.argv[1])
