#!/usr/bin/env python3
"""Reads gapferry bundles of format 1. Written from docs/format.md alone; needs Python 3 and, for .tar.zst, `zstd`.

    bundle.py list    BUNDLE...           verifies every file by digest, then lists the images
    bundle.py verify  BUNDLE...           verifies every file by digest
    bundle.py extract NAME OUT BUNDLE...  verifies, and writes one image as an OCI layout into the new directory OUT

BUNDLE is a directory, a tar, a .tar.zst, `-` for a tar on standard input, or all volumes of a set. This reader checks the
first lines and the length of chunks.b3 (Python has no BLAKE3), only parses signatures, and copies a pipe first. A strict
reader also checks the keys of every object in bundle.json; this one relies on the sums.
"""
import base64, hashlib, json, os, re, shutil, subprocess, sys, tarfile, tempfile

MIB, META = 1 << 20, {"oci-layout": 30, "bundle.json": 160 << 20, "index.json": 64 << 20, "manifest.json": 64 << 20,
                      "SHA512SUMS": 80 << 20, "SHA256SUMS": 80 << 20}  # with their limits, in the order of the tar
BLOB = re.compile(r"blobs/(sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})")
TOOL = re.compile(r'tools/(?!.*(\.|\.partial| )$)[^\x00-\x1f\x7f-\x9f/\\:*?"<>|]+')
SIGNATURE = re.compile(r"(SHA256SUMS|chunks\.b3)(\.[0-9a-f]{16})?\.sig")
CACHED = re.compile(r"\.layer\.|\.rootfs\.|^application/vnd\.buildkit\.cacheconfig\.")  # blobs in an index
KEYS = ["gapferryBundle", "parents", "assumed", "removed", "lock", "files"]

def need(fits, what):
    if not fits:
        raise SystemExit(f"refused: {what}")

def parse(data, name):
    """Returns the value of a JSON file, and the canonical bytes of that value."""
    try:
        value = json.loads(data.decode())
        return value, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    except (ValueError, RecursionError) as error:
        need(False, f"reading {name}: {error}")

def located(path):
    """Locates each file of a directory or tar. Returns its parts: a file, the first byte and the number of bytes."""
    if os.path.isdir(path):
        paths = [os.path.join(top, name) for top, folders, files in os.walk(path) for name in folders + files]
        odd = [one for one in paths if os.path.islink(one) or not os.path.isdir(one) and not os.path.isfile(one)]
        need(not odd, f"these are links, or no plain files: {odd}")
        return {os.path.relpath(one, path): [(one, 0, os.path.getsize(one))] for one in paths if os.path.isfile(one)}
    file, found = tempfile.TemporaryFile() if path == "-" else open(path, "rb"), {}
    if path == "-":
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.seek(0)
    if file.read(4) == b"\x28\xb5\x2f\xfd":
        file = tempfile.TemporaryFile()
        need(subprocess.run(["zstd", "-dcq", path], stdout=file).returncode == 0, "zstd cannot read it")
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as members:
            for member in members:
                name = member.name.removeprefix("./")
                need(member.isdir() or member.isreg() and not member.issparse(), f"{name} is not a plain file")
                need(name not in found, f"{name} comes twice")
                found |= {name: [(file, member.offset_data, member.size)]} if member.isreg() else {}
            file.seek(members.offset)
    except tarfile.TarError as error:
        need(False, f"reading the tar: {error}")
    end = file.read(16 * MIB)
    need(len(end) >= 1024 and not any(end) and not file.read(1), "the tar is cut short, or goes on behind its end")
    return found

def read(parts):
    """Yields the bytes, in pieces."""
    for path, first, size in parts:
        with open(path if isinstance(path, str) else os.dup(path.fileno()), "rb") as file:
            file.seek(first)
            while size:
                data = file.read(min(size, MIB))
                need(data, "a file is cut short")
                size -= len(data)
                yield data

def whole(parts, limit=160 << 20):
    need(sum(size for *_, size in parts) <= limit, "a file is longer than any such file")
    return b"".join(read(parts))

def digest(pieces, algorithm="sha256", write=len):
    hasher = hashlib.new(algorithm)
    for data in pieces:
        hasher.update(data)
        write(data)
    return f"{algorithm}:{hasher.hexdigest()}"

def joined(volumes):
    """Returns the identity of a set of volumes, and its files. Recovery volumes are skipped."""
    found, store, held = [], {}, {}
    for files in volumes:
        label = next((name[8:-5] for name in files if re.fullmatch(r"volumes/r?\d+\.json", name)), "")
        if not label.startswith("r"):
            found.append((parse(whole(files.get(f"volumes/{label}.json", [])), "volume")[0], label, files))
    sets = {(one["gapferryVolume"], one["identity"], one["of"], one["recovery"], one["limit"]) for one, *_ in found}
    numbers = sorted(one["number"] for one, *_ in found)
    need(len(sets) == 1 and numbers == list(range(1, found[0][0]["of"] + 1)), "these are not all volumes of one set")
    for one, label, files in found:
        own = {f"volumes/{label}.{kind}" for kind in ("json", "b3", "sha256")}
        sums = "".join(f"{digest(read(parts))[7:]}  {name}\n" for name, parts in files.items()
                       if not SIGNATURE.fullmatch(name) and name != f"volumes/{label}.sha256")
        need(sums.encode() == whole(files.get(f"volumes/{label}.sha256", [])), f"volume {label} has wrong sums")
        for part in one["files"]:
            path, digits = part["path"], max(3, len(str(part.get("segments", ""))))
            cut = f"segments/{path.removeprefix('blobs/')}.{part.get('segment', 0):0{digits}}"
            stored = cut if "segment" in part else path
            need((BLOB.fullmatch(path) or TOOL.fullmatch(path)) and stored in files, f"volume {label} has no {stored}")
            held.setdefault(path, []).append((part.get("first", 0), files[stored]))
            own.add(stored)
        for name in files.keys() - own:
            need(name in META or SIGNATURE.fullmatch(name) or BLOB.fullmatch(name), f"{name} is not declared")
            same = digest(read(store.setdefault(name, files[name]))) == digest(read(files[name]))
            need(same or SIGNATURE.fullmatch(name), f"{name} differs between volumes")
    for path, cuts in held.items():
        store[path] = [part for _, parts in sorted(cuts, key=lambda one: one[0]) for part in parts]
    return sets.pop()[1], store

def is_signature(data):
    """Whether it is a signature, raw or in base64: 64 bytes, or a DER sequence of two integers."""
    is_text = re.fullmatch(rb"[A-Za-z0-9+/]+={0,2}", text := b"".join(data.split())) and len(text) % 4 == 0
    return any(len(raw) == 64 or 8 <= len(raw) <= 72 and raw[:3] == bytes([48, len(raw) - 2, 2])
               and list(raw[4 + raw[3]:6 + raw[3]]) == [2, len(raw) - 6 - raw[3]]
               for raw in ([data, base64.b64decode(text)] if is_text else [data]))

def verified(store):
    """Returns the value of `bundle.json` and the identity, once every file is verified."""
    meta = {name: whole(store[name], limit) for name, limit in META.items() if name in store}
    need(not META.keys() - meta.keys() - {"SHA512SUMS"}, f"of {list(META)} there is only {list(meta)}")
    bundle, canonical = parse(meta["bundle.json"], "bundle")
    need(list(bundle) == KEYS, f"bundle.json has other keys than {KEYS}")
    need(bundle["gapferryBundle"] == bundle["lock"]["version"] == 1, "it has another version")
    need(canonical == meta["bundle.json"], "bundle.json is not canonical")
    files, identity = {file["path"]: file["digest"] for file in bundle["files"]}, digest([canonical])
    need(len(files) == len(bundle["files"]), "a file is declared twice")
    tools = sorted((path for path in files if TOOL.fullmatch(path) and len(path.encode()) <= 100), key=str.encode)
    own = ["oci-layout", "index.json", "manifest.json"] + ["SHA512SUMS"] * ("SHA512SUMS" in files) + tools
    need(list(files)[:len(own)] == own, "files are missing in bundle.json, or in another order")
    for path, found in list(files.items())[len(own):]:
        need(BLOB.fullmatch(path) and path == "blobs/" + found.replace(":", "/"), f"{path} cannot be in a bundle")
    need(not any(files[path].startswith("sha512") for path in own), "a file beside blobs/ is declared by sha512")
    lines = [(identity, "bundle.json")] + [(found, path) for path, found in files.items()]
    for name, start in ("SHA256SUMS", "sha256:"), ("SHA512SUMS", "sha512:"):
        sums = "".join(f"{found[7:]}  {path}\n" for found, path in lines if found.startswith(start))
        need(meta.get(name, b"") == sums.encode(), f"{name} is not what bundle.json gives")
    for path, size, found in (file.values() for file in bundle["files"]):
        need(sum(part[2] for part in store.get(path, [(0, 0, -1)])) == size, f"{path} is missing, or has another size")
        need(digest(read(store[path]), found[:6]) == found, f"{path} is damaged")
    signatures = store.keys() - files.keys() - {"bundle.json", "SHA256SUMS", "chunks.b3"}
    for path in signatures:
        need(SIGNATURE.fullmatch(path), f"{path} is not declared")
        need(is_signature(whole(store[path], 512)), f"{path} is malformed")
    need(all(sum(path.startswith(of) for path in signatures) <= 16 for of in ("SHA", "chunks")), "too many signatures")
    if "chunks.b3" in store:
        sizes = [file["size"] for file in bundle["files"] if file["path"].startswith("blobs/")]
        length = 93 + 32 * sum(1 + (-(-size // MIB) if size > MIB else 0) for size in sizes)
        fits = length == store["chunks.b3"][0][2] and next(read(store["chunks.b3"]))[:93]
        need(fits == f"gapferry chunks.b3 1\n{identity}\n".encode(), "chunks.b3 is not that of this bundle")
    return bundle, identity

def extract(bundle, store, name, out):
    """Writes the image and everything that its manifests lead to as an OCI layout."""
    images = [image for image in bundle["lock"]["images"] if image["reference"] == name]
    need(images, f"there is no image {name}")
    ahead, passed = [(images[0]["digest"], True)], {one["digest"] for one in images[0].get("absent", [])}
    [os.makedirs(f"{out}/blobs/{algorithm}") for algorithm in ("sha256", "sha512")]
    while ahead:
        wanted, is_manifest = ahead.pop()
        path = "blobs/" + wanted.replace(":", "/")
        if wanted not in passed:
            passed.add(wanted)
            need(path in store, f"{wanted} is not here")
            with open(f"{out}/{path}", "wb") as copy:
                need(digest(read(store[path]), wanted[:6], copy.write) == wanted, f"{path} has changed")
            if is_manifest:
                value = json.loads(whole(store[path], 4 * MIB))
                blobs = [value.get("config")] + (value.get("layers") or value.get("blobs") or [])
                listed = value.get("manifests") or []
                ahead += [(one["digest"], not CACHED.search(one.get("mediaType") or "")) for one in listed]
                ahead += [(one["digest"], False) for one in blobs if one]
    root = {key: images[0][key] for key in ("mediaType", "digest", "size")}
    root["annotations"] = {"org.opencontainers.image.ref.name": name}
    index = {"schemaVersion": 2, "manifests": [root]}
    for path, value in ("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", index):
        with open(f"{out}/{path}", "w") as file:
            json.dump(value, file)

def main(command, *arguments):
    paths = arguments[2:] if command == "extract" else arguments
    store, identity = located(paths[0]), None
    if any(path.startswith("volumes/") for path in store):
        identity, store = joined([store] + [located(path) for path in paths[1:]])
    bundle, found = verified(store)
    need(identity in (None, found), "the volumes are of another bundle")
    if command == "extract":
        extract(bundle, store, *arguments[:2])
    for image in bundle["lock"]["images"] if command == "list" else []:
        platforms = [f"{one['os']}/{one['architecture']}" for one in image["platforms"]]
        print(image["reference"], image["digest"], *platforms)
    print(found, file=sys.stderr)

if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 and sys.argv[1] in ("list", "verify", "extract") else sys.exit(__doc__)
