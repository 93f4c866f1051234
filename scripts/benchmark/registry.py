"""Starts Debian's docker-registry on loopback, and fills one in the simplest way: POST and PUT of each blob, once.

    registry.py ADDRESS CORPUS    only these uploads, over six connections: the lower bound for an import
"""

import http.client
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time

from corpus import Corpus

CONNECTIONS = 6


class Registry:
    """A docker-registry process with its storage; `log` is its access log."""

    def __init__(self, storage, log):
        self.storage, self.log = storage, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % free.getsockname()[1]
        config = log + ".yml"
        with open(config, "w") as file:
            file.write(
                "version: 0.1\nlog: {level: error}\n"
                "storage: {cache: {blobdescriptor: inmemory}, delete: {enabled: true},\n"
                f"  filesystem: {{rootdirectory: {storage}}}}}\n"
                f"http: {{addr: '{self.address}', secret: benchmark}}\n"
            )
        with open(log, "wb") as output:
            command = ["docker-registry", "serve", config]
            self.process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        self.wait()

    def wait(self):
        for _ in range(600):
            try:
                connection = http.client.HTTPConnection(self.address, timeout=5)
                connection.request("GET", "/v2/")
                connection.getresponse().read()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.02)
        raise RuntimeError(f"docker-registry did not start, see {self.log}")

    def answered(self):
        """Returns method, path and status of each request so far."""
        with open(self.log, errors="replace") as file:
            for line in file:
                parts = line.split('"')
                if len(parts) >= 3 and " /v2/" in parts[1]:
                    method, path = parts[1].split()[:2]
                    yield method, path, parts[2].split()[0]

    def requests(self):
        """Counts the requests so far by kind and status."""
        counts = {}
        for method, path, status in self.answered():
            key = f"{method} {kind(path)} {status}"
            counts[key] = counts.get(key, 0) + 1
        return counts

    def asked(self):
        """Returns method and path of each request so far."""
        return [(method, path) for method, path, _ in self.answered()]

    def stop(self, remove=False):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if remove:
            shutil.rmtree(self.storage, ignore_errors=True)


def kind(path):
    if "/blobs/uploads/" in path:
        return "mount" if "mount=" in path else "upload"
    for name in ("blobs", "manifests", "referrers", "tags"):
        if f"/{name}/" in path:
            return name
    return path


def upload(connection, repository, digest, path):
    """Uploads one blob by POST and PUT."""
    connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
    answer = connection.getresponse()
    answer.read()
    location = answer.headers["Location"].split("/", 3)[3]
    with open(path, "rb") as body:
        size = os.fstat(body.fileno()).st_size
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        connection.request("PUT", f"/{location}&digest={digest}", body=body, headers=headers)
        answer = connection.getresponse()
        answer.read()
    if answer.status != 201:
        raise RuntimeError(f"PUT of {digest}: {answer.status}")


def upload_all(address, corpus):
    work = queue.SimpleQueue()
    for blob in sorted(corpus.distinct(), key=lambda blob: -blob[1]):
        work.put(blob)
    failed = []

    def worker():
        connection = http.client.HTTPConnection(address, blocksize=1 << 18)
        try:
            while True:
                digest, _, repository = work.get_nowait()
                upload(connection, repository, digest, corpus.blob(digest))
        except queue.Empty:
            pass
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=worker) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def publish(address, corpus):
    """Mounts uploaded blobs into every other repository, then uploads manifests and tags."""
    connection = http.client.HTTPConnection(address)
    home = {digest: repository for digest, _, repository in corpus.distinct()}
    there = {(repository, digest) for digest, repository in home.items()}

    def send(method, path, body=b"", headers=None):
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 201:
            raise RuntimeError(f"{method} {path}: {answer.status}")

    for tag in corpus.tags:
        repository, _, name = tag["name"].partition(":")
        for digest in {blob["digest"] for blob in corpus.blobs_of(tag["digest"])}:
            if (repository, digest) not in there:
                send("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={home[digest]}")
                there.add((repository, digest))
        for digest, content, document in corpus.tree(tag["digest"]):
            reference = name if digest == tag["digest"] else digest
            headers = {"Content-Type": document["mediaType"]}
            send("PUT", f"/v2/{repository}/manifests/{reference}", content, headers)


if __name__ == "__main__":
    upload_all(sys.argv[1], Corpus(sys.argv[2]))
