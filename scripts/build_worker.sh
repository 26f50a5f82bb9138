#!/usr/bin/env bash
# Builds the worker's image, clip-embedding-worker:TAG, for linux/amd64.
#
#   scripts/build_worker.sh TAG [ARGUMENT...]
#
#   scripts/build_worker.sh v1                                         with ViT-B-32, openai
#   scripts/build_worker.sh v1 --build-arg CLIP_MODEL_NAME=ViT-L-14    with another model
#   scripts/build_worker.sh v1 --build-arg CLIP_MODEL_NAME=            with the demo model, without any download
#
# ARGUMENTs go to the engine's build as they are; the Dockerfile's first lines name its build arguments.
# The image tells its commit and the time of its build. Where a file that enters it differs from the commit, the
# commit ends in -dirty, and a warning says so.
# docker, podman or buildah is used, the first that answers; ENGINE=podman chooses.

set -euo pipefail
shopt -s inherit_errexit
# shellcheck source=scripts/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/engine.sh"

main() {
  local commit image
  [[ " $* " != *' --help '* && " $* " != *' -h '* ]] || usage "${BASH_SOURCE[0]}"
  [ $# -ge 1 ] || usage "${BASH_SOURCE[0]}" 'TAG is missing'
  check_tag "$1"
  need_engine
  commit=$(tree_commit)
  [[ $commit != *-dirty ]] || note "warning: what is built differs from its commit, so that is marked: $commit"
  image=$IMAGE_NAME:$1
  engine_build "$image" --build-arg "GIT_COMMIT=$commit" --build-arg "BUILD_TIME=$(date -u +%FT%TZ)" "${@:2}" ||
    fail "$ENGINE could not build $image: its last lines say why"
  [[ $* == *GIT_COMMIT=* || $(image_commit "$image") == "$commit" ]] ||
    fail "$image tells another commit, so $ENGINE took an old layer: build again with --no-cache"
  say "built  $image"
  say "id     $(image_id "$image")"
  say "size   $(image_size "$image")"
  say "commit $(image_commit "$image")"
  say "next   scripts/push_worker.sh $1 REGISTRY/NAMESPACE"
}

main "$@"
