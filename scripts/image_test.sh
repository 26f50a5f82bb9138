#!/usr/bin/env bash
# Builds the image and proves that it works with the network off: with the demo model the smoke test, a dry run,
# HTTP, and a queue worker against a loopback RunPod, each with the vectors that open_clip gives; the refusals, and
# what the worker may do inside; with weights prepared while building, random ones that need no download, another
# dry run. It is pushed to a registry on this machine, where there is one, and its layers are listed.
#
# With docker or podman it uses that engine and the Dockerfile's own base image. Without either it needs root on
# Debian or Ubuntu: buildah builds, and the base is a Debian made by debootstrap. Whatever that way makes lies in
# ${XDG_CACHE_HOME:-~/.cache}/clip-image-base; the next run is quicker for it, and it may be deleted at any time.
#
#   scripts/image_test.sh               a minute and a half, and the first time three more
#   BASE=IMAGE scripts/image_test.sh    another base image

set -euo pipefail
shopt -s inherit_errexit
# shellcheck source=scripts/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/engine.sh"

readonly DEBIAN=localhost/clip-image-base:bookworm
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/clip-image-base
readonly QUEUE='RUNPOD_WEBHOOK_GET_JOB=http://127.0.0.1:9/v2/endpoint/job-take/worker?gpu=none'
readonly SECRET=EMBEDDING_HMAC_SECRET=of-the-32-characters-that-it-needs
# A network namespace of its own has no network, and a loopback that has to be switched on (SIOCSIFFLAGS, IFF_UP).
readonly LOOPBACK='import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))'
# What torch is linked to, and what cuDNN opens, must be there; libcuda comes with the driver.
readonly LINKS='cd /opt/venv/lib/python3*/site-packages &&
  ! ldd torch/lib/*.so nvidia/cudnn/lib/*.so* | grep "not found" | grep -v libcuda.so.1'
readonly CUDA='import sys, torch; sys.exit(torch.version.cuda != sys.argv[1])'
WORK=$(mktemp -d)
BUILD=()
CONTAINERS=()
REGISTRY_PID=

main() {
  trap clean_up EXIT
  case $* in
    '') ;;
    -h | --help) usage "${BASH_SOURCE[0]}" ;;
    *) usage "${BASH_SOURCE[0]}" 'it takes no arguments' ;;
  esac
  cd "$ROOT"
  find_engine || ENGINE=buildah
  export ENGINE
  say "engine: $ENGINE"
  if [ "$ENGINE" = buildah ]; then
    prepare_to_do_without
  elif [ -n "${BASE:-}" ]; then
    BUILD=(--build-arg "BASE=$BASE")
  fi
  lay_out_proof
  test_demo_image
  test_push
  test_prepared_image
  say "✓ image test passed in $SECONDS s"
}

test_demo_image() {
  build demo --build-arg CLIP_MODEL_NAME=
  passes 'started with nothing, it runs the smoke test' start -- "${WORKER[@]}"
  all_ticked
  passes 'RUNPOD_SERVERLESS=0 runs the smoke test' start RUNPOD_SERVERLESS=0 -- "${WORKER[@]}"
  all_ticked
  passes 'a dry run gives the right vectors' prove dry-run
  passes 'it serves HTTP with the right vectors, and tells its commit' prove http
  passes 'it serves the queue with the right vectors, signed, and tells its commit' prove queue
  fails 'a dry run that fails says so' start -- "${WORKER[@]}" --test_input '{"input": {"text": 7}}'
  fails 'it takes no jobs without a secret' start "$QUEUE" -- "${WORKER[@]}"
  in_one_line '✗ cannot start: EMBEDDING_HMAC_SECRET is not set'
  fails 'it takes no jobs with the demo model' start "$QUEUE" "$SECRET" -- "${WORKER[@]}"
  in_one_line '✗ cannot start: no model is chosen'
  fails 'it serves no HTTP without secret and token' start WORKER_MODE=http -- "${WORKER[@]}"
  in_one_line '✗ cannot start: EMBEDDING_HMAC_SECRET and WORKER_TOKEN are not set'
  passes 'it is not root' start -- python -c 'import os; assert os.getuid() > 0'
  passes 'it cannot change its code' start -- sh -c '! [ -w . ] && ! [ -w handler.py ] && ! [ -w /opt/venv ]'
  passes 'no package lacks another, but for triton' start -- sh -c '! pip check | grep -v "requires triton"'
  passes 'no library lacks another' start -- bash -c "$LINKS"
  passes 'its CUDA is what deployments ask of a driver' start -- python -c "$CUDA" "$(deployed_cuda)"
  passes 'it brings no test_input.json' start -- sh -c '[ -e handler.py ] && ! [ -e test_input.json ]'
}

test_push() {
  local port reference
  port=$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
  if ! start_registry "$port"; then
    say 'not pushed: there is no docker-registry here'
    image_layers | python3 -m tests.in_image.layers
    return
  fi
  passes 'it is pushed, and pulled by its digest' "$ROOT/scripts/push_worker.sh" "$TAG" "127.0.0.1:$port/team"
  says "EXPECTED_WORKER_GIT_COMMIT=$COMMIT"
  reference=$(grep "^127.0.0.1:$port/team/$IMAGE_NAME@sha256:" "$WORK/output")
  says "IMAGE_DIGEST=${reference#*@}"
  image_layers | python3 -m tests.in_image.layers "$port/v2/team/$IMAGE_NAME" "${reference#*@}" "$TAG" "$COMMIT"
  fails 'a push to nobody says so' "$ROOT/scripts/push_worker.sh" "$TAG" 127.0.0.1:9/team
  says '✗ 127.0.0.1:9 does not answer as a registry does'
  "$ENGINE" rmi "$reference" "${reference%@*}:$TAG" "${reference%@*}:$COMMIT" >/dev/null 2>&1 || true # its names only
}

test_prepared_image() {
  build prepared --build-arg CLIP_MODEL_NAME=ViT-S-32 --build-arg CLIP_PRETRAINED=random
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
  grep -q '^✓ golden vectors' "$WORK/output" || fail 'the smoke test did not compare the vectors'
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

build() { # NAME ARGUMENT...: builds the image that the checks after it use
  local started=$SECONDS
  TAG=image-test-$1
  IMAGE=$IMAGE_NAME:$TAG
  "$ROOT/scripts/build_worker.sh" "$TAG" "${BUILD[@]}" "${@:2}"
  say "built in $((SECONDS - started)) s"
  COMMIT=$(image_commit "$IMAGE")
  mapfile -t WORKER < <(image_command "$IMAGE")
  if [ "$ENGINE" = buildah ]; then
    CONTAINER=$(buildah from "$IMAGE")
    CONTAINERS+=("$CONTAINER")
  fi
}

start() { # [VARIABLE=VALUE | --volume=...]... -- COMMAND...: in the image, with no network
  local options=()
  while [ "$1" != -- ]; do
    case $1 in
      --volume=*) options+=("$1") ;;
      *) options+=(--env "$1") ;;
    esac
    shift
  done
  shift
  if [ "$ENGINE" = buildah ]; then
    # Its chroot isolation shares the host's network, so it gets a namespace of its own.
    # shellcheck disable=SC2016  # the inner shell expands them
    unshare --net bash -c 'python3 -c "$0" && exec "$@"' "$LOOPBACK" \
      buildah run "${options[@]}" "$CONTAINER" -- "$@"
  else
    "$ENGINE" run --rm --network none "${options[@]}" "$IMAGE" "$@"
  fi
}

prove() { # WHAT
  start PYTHONPATH=/proof "--volume=$WORK/proof:/proof:ro" -- \
    python -m tests.in_image "$1" "$COMMIT" "${WORKER[@]}"
}

lay_out_proof() { # what the image is held against is the repository's, and mounted
  mkdir -p "$WORK/proof/tests"
  cp -r "$ROOT/tests/__init__.py" "$ROOT/tests/loopback" "$ROOT/tests/in_image" "$WORK/proof/tests"
  cp "$ROOT/embedding/model/demo/golden.json" "$WORK/proof/tests/in_image"
  chmod -R a+rX "$WORK/proof"
}

deployed_cuda() {
  sed -nE 's/^IMAGE_CUDA_VERSION\b.*"([0-9.]+)".*/\1/p' "$ROOT/deploy/config.py"
}

image_layers() { # BYTES, a tab, and the step that made it, for each layer, the first one first
  if [ "$ENGINE" = buildah ]; then
    buildah inspect --type image "$IMAGE" | python3 -m tests.in_image.layers --of-buildah "$CACHE"
  else
    "$ENGINE" history --no-trunc --human=false --format '{{.Size}}{{"\t"}}{{.CreatedBy}}' "$IMAGE" | tac
  fi
}

start_registry() { # PORT
  local attempt
  command -v docker-registry >/dev/null || return 1
  printf '%s\n' 'version: 0.1' "storage: {filesystem: {rootdirectory: $WORK/registry}}" \
    "http: {addr: '127.0.0.1:$1'}" >"$WORK/registry.yml"
  docker-registry serve "$WORK/registry.yml" >"$WORK/registry.log" 2>&1 &
  REGISTRY_PID=$!
  for attempt in {1..50}; do
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || return 0
    sleep 0.1
  done
  fail "the registry did not start within $((attempt / 10)) s: $(tail -n 1 "$WORK/registry.log")"
}

# --- without an engine ------------------------------------------------------------------------------------------

readonly BUILDAH_SAYS='^(subprocess exited with status|Error: exit status) [0-9]+$' # after what it ran

prepare_to_do_without() {
  local driver
  install_missing buildah debootstrap
  mkdir -p "$CACHE"
  driver=$(buildah --root "$CACHE/storage" --runroot "$CACHE/run" info --format '{{.store.GraphDriverName}}')
  printf '%s\n' '[storage]' "driver = \"$driver\"" "graphroot = \"$CACHE/storage\"" "runroot = \"$CACHE/run\"" \
    >"$WORK/storage.conf"
  export CONTAINERS_STORAGE_CONF=$WORK/storage.conf BUILDAH_ISOLATION=chroot
  PATH=$PATH:$CACHE/registry/usr/bin
  command -v docker-registry >/dev/null || fetch_registry
  [ -n "${BASE:-}" ] || image_exists "$DEBIAN" || make_debian
  write_pip_config
  BUILD=(--network host --build-arg "BASE=${BASE:-$DEBIAN}" --volume /etc/ssl/certs:/etc/ssl/certs:ro
    --volume "$WORK/pip.conf:/etc/pip.conf:ro")
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

fetch_registry() { # unpacked, not installed: the package would start a service
  say 'fetching docker-registry'
  (cd "$WORK" && apt-get update -qq && apt-get download -qq docker-registry &&
    dpkg-deb --extract docker-registry_*.deb "$CACHE/registry") || say 'docker-registry cannot be had'
}

make_debian() {
  local container
  say "making a Debian base in $CACHE"
  debootstrap --variant=minbase --include=python3-venv,ca-certificates bookworm "$WORK/debian"
  rm -rf "$WORK"/debian/var/cache/apt/* "$WORK"/debian/var/lib/apt/lists/*
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$WORK/debian" /
  buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  buildah commit --quiet --rm "$container" "$DEBIAN"
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

clean_up() {
  [ -z "$REGISTRY_PID" ] || kill "$REGISTRY_PID"
  [ ${#CONTAINERS[@]} -eq 0 ] || buildah rm "${CONTAINERS[@]}" >/dev/null
  rm -rf "$WORK"
}

main "$@"
