#!/usr/bin/env bash
# Builds the image and proves that it works with the network off: with the demo model the smoke test, a dry run,
# the refusals and what the worker may do inside; with weights prepared while building, random ones that need no
# download, another dry run.
#
# With docker or podman it uses that engine and the Dockerfile's own base image. Without either it needs root on
# Debian or Ubuntu: buildah builds, and the base is a Debian made by debootstrap. Whatever that way makes lies in
# ${XDG_CACHE_HOME:-~/.cache}/clip-image-base; the next run is quicker for it, and it may be deleted at any time.
#
#   BASE=IMAGE scripts/image_test.sh    another base image

set -euo pipefail
shopt -s inherit_errexit

readonly DEBIAN=localhost/clip-image-base:bookworm
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/clip-image-base
readonly QUEUE='RUNPOD_WEBHOOK_GET_JOB=http://127.0.0.1:9/v2/endpoint/job-take/worker?gpu=none'
readonly SECRET=EMBEDDING_HMAC_SECRET=of-the-32-characters-that-it-needs
readonly TOKEN=of-the-32-characters-that-it-needs
# Inside: starts the command, waits until it is ready, embeds a text by the token, and stops it.
readonly ASK='
import json, os, subprocess, sys, time, urllib.error, urllib.request
def ask(path, body=None):
    headers = {"Authorization": "Bearer " + os.environ["WORKER_TOKEN"]}
    return urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8000" + path, body, headers))
def is_ready():
    try:
        return ask("/ping").status == 200
    except urllib.error.URLError:
        return False
worker = subprocess.Popen(sys.argv[1:])
while not is_ready():
    assert worker.poll() is None
    time.sleep(0.1)
assert json.load(ask("/v1/embed/text", b"{\"text\": \"a red circle\"}"))["dim"] == 512
worker.terminate()
sys.exit(worker.wait())'
# A network namespace of its own has no network, and a loopback that has to be switched on (SIOCSIFFLAGS, IFF_UP).
readonly LOOPBACK='import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))'
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=$(mktemp -d)
CONTAINERS=()

main() {
  trap clean_up EXIT
  ENGINE=$(find_engine)
  say "engine: $ENGINE"
  test_demo_image
  test_prepared_image
  say '✓ image test passed'
}

test_demo_image() {
  build demo CLIP_MODEL_NAME=
  passes 'started with nothing, it runs the smoke test' start -- "${WORKER[@]}"
  all_ticked
  passes 'RUNPOD_SERVERLESS=0 runs the smoke test' start RUNPOD_SERVERLESS=0 -- "${WORKER[@]}"
  all_ticked
  passes 'a dry run embeds a text' start -- "${WORKER[@]}" --test_input '{"input": {"text": "a red circle"}}'
  fails 'a dry run that fails says so' start -- "${WORKER[@]}" --test_input '{"input": {"text": 7}}'
  fails 'it takes no jobs without a secret' start "$QUEUE" -- "${WORKER[@]}"
  in_one_line '✗ cannot start: EMBEDDING_HMAC_SECRET is not set'
  fails 'it takes no jobs with the demo model' start "$QUEUE" "$SECRET" -- "${WORKER[@]}"
  in_one_line '✗ cannot start: no model is chosen'
  fails 'it serves no HTTP without secret and token' start WORKER_MODE=http -- "${WORKER[@]}"
  in_one_line '✗ cannot start: EMBEDDING_HMAC_SECRET and WORKER_TOKEN are not set'
  passes 'it serves HTTP until it is stopped' start WORKER_MODE=http ALLOW_DEMO_MODEL=1 "WORKER_TOKEN=$TOKEN" \
    -- python -c "$ASK" "${WORKER[@]}"
  says 'listening on http://0.0.0.0:8000'
  passes 'it is not root' start -- python -c 'import os; assert os.getuid() > 0'
  passes 'it cannot change its code' start -- sh -c '! [ -w . ] && ! [ -w handler.py ] && ! [ -w /opt/venv ]'
  passes 'no package lacks another, but for triton' start -- sh -c '! pip check | grep -v "requires triton"'
  passes 'it brings no test_input.json' start -- sh -c '[ -e handler.py ] && ! [ -e test_input.json ]'
}

test_prepared_image() {
  build prepared CLIP_MODEL_NAME=ViT-S-32 CLIP_PRETRAINED=random
  passes 'it serves prepared weights' start -- "${WORKER[@]}" --test_input '{"input": {"text": "a red circle"}}'
  says 'ViT-S-32 / random'
}

# --- checks -----------------------------------------------------------------------------------------------------

passes() { # CLAIM COMMAND...
  exits_with 0 "$@"
}

fails() { # CLAIM COMMAND...
  exits_with 1 "$@"
}

exits_with() { # STATUS CLAIM COMMAND...
  local started=$SECONDS status=0
  say "--- $2"
  "${@:3}" >"$WORK/everything" 2>&1 || status=$?
  grep -vE "$BUILDAH_SAYS" "$WORK/everything" >"$WORK/output" || true
  cat "$WORK/output"
  [ "$status" -eq "$1" ] || fail "$2: exit status $status, not $1"
  say "✓ $2 (exit status $status, $((SECONDS - started)) s)"
}

all_ticked() {
  grep -q '^✓' "$WORK/output" || fail 'the smoke test ticked nothing'
  ! grep -q '^✗' "$WORK/output" || fail 'the smoke test passed with a cross'
}

in_one_line() { # START
  [ "$(wc -l <"$WORK/output")" -eq 1 ] || fail 'a refusal must be one line'
  says "$1"
}

says() { # TEXT
  grep -qF -- "$1" "$WORK/output" || fail "it should have said: $1"
}

# --- the image --------------------------------------------------------------------------------------------------

find_engine() {
  local engine
  for engine in docker podman; do
    if command -v "$engine" >/dev/null && "$engine" info >/dev/null 2>&1; then
      echo "$engine"
      return
    fi
  done
  echo buildah
}

build() { # NAME VARIABLE=VALUE...: builds the image that the checks after it use
  local arguments=() started=$SECONDS variable
  IMAGE=localhost/clip-embedding-worker:image-test-$1
  for variable in "${@:2}" "GIT_COMMIT=$(git -C "$ROOT" rev-parse HEAD 2>/dev/null || true)"; do
    arguments+=(--build-arg "$variable")
  done
  say "building $IMAGE"
  if [ "$ENGINE" = buildah ]; then
    build_without_engine "${arguments[@]}"
  else
    "$ENGINE" build --tag "$IMAGE" "${arguments[@]}" ${BASE:+--build-arg "BASE=$BASE"} "$ROOT"
  fi
  mapfile -t WORKER < <(image_command)
  say "built in $((SECONDS - started)) s, $(image_size)"
}

start() { # [VARIABLE=VALUE]... -- COMMAND...: in the image, with no network
  local variables=()
  while [ "$1" != -- ]; do
    variables+=(--env "$1")
    shift
  done
  shift
  if [ "$ENGINE" = buildah ]; then
    # Its chroot isolation shares the host's network, so it gets a namespace of its own.
    # shellcheck disable=SC2016  # the inner shell expands them
    unshare --net bash -c 'python3 -c "$0" && exec "$@"' "$LOOPBACK" \
      "${STORE[@]}" run --isolation chroot "${variables[@]}" "$CONTAINER" -- "$@"
  else
    "$ENGINE" run --rm --network none "${variables[@]}" "$IMAGE" "$@"
  fi
}

image_command() {
  local format='{{range .Config.Cmd}}{{println .}}{{end}}'
  if [ "$ENGINE" = buildah ]; then
    "${STORE[@]}" inspect --type image --format "${format/.Config/.OCIv1.Config}" "$IMAGE"
  else
    "$ENGINE" image inspect --format "$format" "$IMAGE"
  fi | sed '/^$/d'
}

image_size() {
  if [ "$ENGINE" = buildah ]; then
    "${STORE[@]}" images --format '{{.Size}}' "$IMAGE"
  else
    "$ENGINE" image inspect --format '{{.Size}} bytes' "$IMAGE"
  fi
}

# --- without an engine ------------------------------------------------------------------------------------------

readonly STORE=(buildah --root "$CACHE/storage" --runroot "$CACHE/run")
readonly BUILDAH_SAYS='^(subprocess exited with status|Error: exit status) [0-9]+$' # after what it ran

build_without_engine() { # ARGUMENT...
  install_missing buildah debootstrap
  mkdir -p "$CACHE"
  [ -n "${BASE:-}" ] || "${STORE[@]}" inspect --type image "$DEBIAN" >/dev/null 2>&1 || make_debian
  write_pip_config
  "${STORE[@]}" bud --isolation chroot --network host --layers --tag "$IMAGE" "$@" \
    --build-arg "BASE=${BASE:-$DEBIAN}" --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --volume "$WORK/pip.conf:/etc/pip.conf:ro" "$ROOT"
  CONTAINER=$("${STORE[@]}" from "$IMAGE")
  CONTAINERS+=("$CONTAINER")
}

install_missing() { # PACKAGE...
  local missing=() package
  for package in "$@"; do
    command -v "$package" >/dev/null || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" -eq 0 ] || fail "neither docker nor podman answers, and only root can do without: ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

make_debian() {
  local container
  say "making a Debian base in $CACHE"
  debootstrap --variant=minbase --include=python3-venv,ca-certificates bookworm "$WORK/debian"
  container=$("${STORE[@]}" from scratch)
  "${STORE[@]}" add --quiet "$container" "$WORK/debian" /
  "${STORE[@]}" config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  "${STORE[@]}" commit --quiet --rm "$container" "$DEBIAN"
}

# The build reaches package indexes the way this machine does. Its certificates, index and proxy are mounted while
# building and leave nothing in the image.
write_pip_config() {
  local key value
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$WORK/pip.conf"
  for key in index-url trusted-host proxy; do
    value=$(python3 -m pip config get "global.$key" 2>/dev/null) || continue
    echo "$key = $value" >>"$WORK/pip.conf"
  done
}

# --- helpers ----------------------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }

fail() {
  say "✗ $*" >&2
  exit 1
}

clean_up() {
  [ ${#CONTAINERS[@]} -eq 0 ] || "${STORE[@]}" rm "${CONTAINERS[@]}" >/dev/null
  rm -rf "$WORK"
}

main "$@"
