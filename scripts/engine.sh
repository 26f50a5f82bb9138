# shellcheck shell=bash
# Sourced by the scripts beside it: which container engine answers, and all that differs between the three.
#
#   ENGINE=podman scripts/...    this one, and no other

export BUILDX_NO_DEFAULT_ATTESTATIONS=1 # else docker pushes a list of manifests, and its digest is not the image's
# shellcheck disable=SC2034  # for who sources this
IMAGE_NAME=clip-embedding-worker
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }

note() { printf '%s\n' "$*" >&2; }

fail() { # MESSAGE [STATUS]
  note "✗ $1"
  exit "${2:-1}"
}

usage() { # SCRIPT [MESSAGE]: the comment at its top; as an error where there is a message
  local text
  text=$(sed -n '2,/^[^#]*$/s/^# \{0,1\}//p' "$1")
  [ $# -gt 1 ] || { say "$text" && exit 0; }
  note "✗ $2"
  note "$text"
  exit 2
}

find_engine() { # sets ENGINE, or returns 1
  local tool
  for tool in ${ENGINE:-docker podman buildah}; do
    if command -v "$tool" >/dev/null && "$tool" info >/dev/null 2>&1; then
      ENGINE=$tool
      return
    fi
  done
  return 1
}

need_engine() { # sets ENGINE
  find_engine || fail "no container engine answers (${ENGINE:-docker, podman or buildah}): start or install one"
}

check_tag() { # TAG
  [[ $1 =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] ||
    fail "TAG is 1 to 128 letters, digits, '_', '.' or '-', and no name: '$1'" 2
}

# What enters an image: these alone decide whether it is the commit's.
image_inputs() {
  printf '%s\n' Dockerfile .dockerignore
  sed -n 's/^!//p' "$ROOT/.dockerignore"
}

tree_commit() { # the commit of the working tree, with -dirty where what enters the image differs from it
  local commit inputs changes
  commit=$(git -C "$ROOT" rev-parse --verify --quiet HEAD 2>/dev/null) ||
    fail 'this is no git checkout, and an image must tell its commit: clone the repository'
  mapfile -t inputs < <(image_inputs)
  changes=$(git -C "$ROOT" status --porcelain -- "${inputs[@]}")
  say "$commit${changes:+-dirty}"
}

engine_build() { # IMAGE ARGUMENT...
  local build=(build)
  [ "$ENGINE" != buildah ] || build=(bud --layers)
  "$ENGINE" "${build[@]}" --platform linux/amd64 --tag "$@" "$ROOT"
}

image_exists() { # IMAGE
  image_inspect "$1" '{{"yes"}}' >/dev/null 2>&1
}

image_commit() { # IMAGE
  image_inspect "$1" '{{index .Config.Labels "org.opencontainers.image.revision"}}'
}

image_command() { # IMAGE: a line for each word
  image_inspect "$1" '{{range .Config.Cmd}}{{println .}}{{end}}' | sed '/^$/d'
}

image_id() { # IMAGE
  local format='{{.Id}}'
  [ "$ENGINE" != buildah ] || format='{{.FromImageID}}'
  image_inspect "$1" "$format" | sed 's/^sha256://'
}

image_size() { # IMAGE
  if [ "$ENGINE" = buildah ]; then
    buildah images --format '{{.Size}}' "$1"
  else
    image_inspect "$1" '{{.Size}}' | awk '{printf "%.2f GB\n", $1 / 1e9}'
  fi
}

image_inspect() { # IMAGE FORMAT
  if [ "$ENGINE" = buildah ]; then
    buildah inspect --type image --format "${2//.Config/.OCIv1.Config}" "$1"
  else
    "$ENGINE" image inspect --format "$2" "$1"
  fi
}

engine_push() { # IMAGE REFERENCE DIGEST_FILE: pushes, and writes the digest that the registry now has there
  if [ "$ENGINE" = docker ]; then
    docker tag "$1" "$2" || return
    docker push "$2" | tee "$3.says" >&2 || return
    sed -nE 's/^.*: digest: (sha256:[0-9a-f]{64}) .*$/\1/p' "$3.says" >"$3"
  else
    "$ENGINE" push --digestfile "$3" "${INSECURE[@]}" "$1" "docker://$2" >&2
  fi
}

engine_pull() { # REFERENCE@DIGEST: the engine compares the digest; of layers that are here nothing travels
  case $ENGINE in
    docker) docker pull --quiet "$1" ;;
    podman) podman pull --quiet "${INSECURE[@]}" "docker://$1" ;;
    buildah) buildah pull --quiet --policy always "${INSECURE[@]}" "docker://$1" ;;
  esac
}

allow_plain_http() { # REGISTRY: on this machine alone, as docker does by itself; sets INSECURE
  INSECURE=()
  [[ ! $1 =~ ^(localhost|127\.[0-9.]+)(:|/|$) ]] || INSECURE=(--tls-verify=false)
}
