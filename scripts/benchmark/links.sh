#!/usr/bin/env bash
# The well-known way out of a registry's storage: for every tag a `dir:` image of links, found by find, made by ln.
#
#   links.sh STORAGE OUT
#
# It is here to be measured. Repositories have two components, nothing is checked, and of an index it links the manifests
# that it names under names that no tool looks for.
set -euo pipefail
cd "$1/docker/registry/v2"
find repositories -type d -path '*/_manifests/tags/*' -name current | while read -r current; do
  link=$(<"$current/link")
  hex=${link#sha256:}
  tag=${current%/current}
  repository=${current#repositories/}
  image=$2/${repository%%/_manifests/*}:${tag##*/}
  manifest=blobs/sha256/${hex:0:2}/$hex/data
  mkdir -p "$image"
  ln "$manifest" "$image/manifest.json"
  grep -oE '[0-9a-f]{64}' "$manifest" | while read -r hex; do
    ln "blobs/sha256/${hex:0:2}/$hex/data" "$image/$hex"
  done
  echo 'Directory Transport Version: 1.1' > "$image/version"
done
