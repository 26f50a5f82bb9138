#!/usr/bin/env bash
# Pushes clip-embedding-worker:TAG to a registry, under TAG and under its commit.
#
#   scripts/push_worker.sh TAG REGISTRY/NAMESPACE [--github-output]
#
#   scripts/push_worker.sh v1 registry.example.com/team
#
# Prints what a deployment needs: the reference that can mean no other image, by the digest that the registry has,
# and the variables that let a worker and its callers tell whether it is this one:
#
#   registry.example.com/team/clip-embedding-worker@sha256:...
#   EXPECTED_WORKER_GIT_COMMIT=...
#   EXPECTED_WORKER_IMAGE_DIGEST=sha256:...
#   IMAGE_DIGEST=sha256:...
#
# All else goes to stderr. In a GitHub workflow, or with --github-output, image, digest and commit are written to
# the file $GITHUB_OUTPUT as well. Log in before: docker login registry.example.com.

set -euo pipefail
shopt -s inherit_errexit
# shellcheck source=scripts/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/engine.sh"

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

main() {
  local arguments=() argument commit digest image repository
  for argument in "$@"; do
    case $argument in
      -h | --help) usage "${BASH_SOURCE[0]}" ;;
      --github-output) [ -n "${GITHUB_OUTPUT:-}" ] || fail '--github-output needs GITHUB_OUTPUT to name a file' 2 ;;
      -*) usage "${BASH_SOURCE[0]}" "there is no option $argument" ;;
      *) arguments+=("$argument") ;;
    esac
  done
  [ ${#arguments[@]} -eq 2 ] || usage "${BASH_SOURCE[0]}" 'TAG and REGISTRY/NAMESPACE are needed, and nothing more'
  check_tag "${arguments[0]}"
  repository=$(repository_of "${arguments[1]}")
  need_engine
  image=$IMAGE_NAME:${arguments[0]}
  image_exists "$image" || fail "there is no image $image: scripts/build_worker.sh ${arguments[0]} builds it"
  commit=$(image_commit "$image")
  [[ $commit =~ ^[0-9a-f]{40}(-dirty)?$ ]] ||
    fail "$image does not tell its commit: build it with scripts/build_worker.sh ${arguments[0]}"
  [[ $commit != *-dirty ]] || note "warning: $image was built of files that differ from its commit"
  allow_plain_http "$repository"
  push "$image" "$repository:${arguments[0]}"
  push "$image" "$repository:$commit"
  digest=$(<"$WORK/digest")
  read_back "$repository@$digest"
  report "$repository@$digest" "$digest" "$commit"
  note "next: python -m deploy apply ENVIRONMENT --image $repository@$digest"
}

repository_of() { # REGISTRY/NAMESPACE
  local place=${1,,} # registries know no capitals; names of organisations may have them
  [[ $place =~ ^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$ ]] ||
    fail "REGISTRY/NAMESPACE is a host and a path, such as registry.example.com/team: '$1'" 2
  [[ ${place%%/*} == *[.:]* || ${place%%/*} == localhost ]] ||
    fail "REGISTRY is the registry's host, such as registry.example.com: '${place%%/*}'" 2
  say "$place/$IMAGE_NAME"
}

push() { # IMAGE REFERENCE
  note "pushing $2"
  engine_push "$1" "$2" "$WORK/digest" 2>&1 | tee "$WORK/errors" >&2 || explain "$2"
  [[ $(<"$WORK/digest") =~ ^sha256:[0-9a-f]{64}$ ]] || fail "$ENGINE did not say which digest $2 has now"
  [ ! -e "$WORK/first" ] || cmp -s "$WORK/first" "$WORK/digest" || fail 'the two tags have different digests: push again'
  cp "$WORK/digest" "$WORK/first"
}

explain() { # REFERENCE: ends with why the push of it failed
  local host=${1%%/*}
  if grep -qiE 'unauthorized|denied|authentication required|no basic auth|forbidden' "$WORK/errors"; then
    fail "$host refuses the push: log in ($ENGINE login $host) as somebody who may write to ${1%:*}"
  elif grep -qiE 'connection refused|no such host|i/o timeout|timed out|no route|unreachable|EOF|server gave HTTP' \
    "$WORK/errors"; then
    fail "$host does not answer as a registry does: check its name, its port, and the network"
  fi
  fail "the push of $1 failed: $(tail -n 1 "$WORK/errors")"
}

read_back() { # REFERENCE@DIGEST
  engine_pull "$1" >/dev/null 2>"$WORK/errors" || fail "the registry does not give $1 back: $(tail -n 1 "$WORK/errors")"
}

report() { # REFERENCE@DIGEST DIGEST COMMIT
  say "$1"
  say "EXPECTED_WORKER_GIT_COMMIT=$3"
  say "EXPECTED_WORKER_IMAGE_DIGEST=$2"
  say "IMAGE_DIGEST=$2"
  [ -z "${GITHUB_OUTPUT:-}" ] || printf '%s\n' "image=$1" "digest=$2" "commit=$3" >>"$GITHUB_OUTPUT"
}

main "$@"
