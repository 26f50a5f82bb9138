#!/usr/bin/env bash
# Stands for docker, podman or buildah, by the name it is called by: notes its arguments in $SAID and does what
# $DOES says, so that the scripts' words and choices can be tested where no engine is.
set -euo pipefail
name=$(basename "$0")
printf '%s\n' "$name $*" >>"$SAID"
digest=sha256:$(printf '%064d' 7)
case $* in
  info*) [[ " $ANSWERS " == *" $name "* ]] ;;
  build\ * | bud\ *) [ "$DOES" != fail-build ] ;;
  *inspect*:absent) echo "no such image" >&2 && exit 1 ;;
  *inspect*revision*:bare) echo ;;
  *inspect*revision*) cat "$COMMIT_FILE" ;;
  *inspect*Id* | *inspect*ImageID*) echo sha256:0123 ;;
  *inspect*Size*) echo 4420000000 ;;
  images*) echo '4.42 GB' ;;
  push*)
    case $DOES in
      push | no-pull) ;;
      no-digest) exit 0 ;;
      two-digests) digest=sha256:$(printf '%064d' "$(wc -l <"$SAID")") ;;
      *) printf '%s\n' 'Copying blob 1' "$DOES" >&2 && exit 1 ;;
    esac
    if [ "$name" = docker ]; then
      echo "v1: digest: $digest size: 1234"
    else
      while [ "$1" != --digestfile ]; do shift; done
      printf %s "$digest" >"$2"
    fi
    ;;
  pull*) [ "$DOES" != no-pull ] || { echo 'manifest unknown' >&2 && exit 1; } ;;
esac
