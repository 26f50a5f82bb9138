#!/usr/bin/env bash
# Sends a signed job to a worker that is deployed, and says whether its answer is right.
#
#   scripts/smoke_remote_worker.sh --endpoint-id ID [OPTION...]    a queue endpoint
#   scripts/smoke_remote_worker.sh --url URL [OPTION...]           an HTTP service
#
#   EMBEDDING_HMAC_SECRET=... RUNPOD_API_KEY=... scripts/smoke_remote_worker.sh --endpoint-id abc123
#
# It is `python -m deploy smoke` with a Python that can run it: that of .venv-deploy or .venv, else python3.
# `python -m deploy smoke --help` tells the OPTIONs, and which keys and secrets it reads from the environment.

set -euo pipefail
shopt -s inherit_errexit
# shellcheck source=scripts/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/engine.sh"

main() {
  local python
  [[ " $* " != *' --help '* && " $* " != *' -h '* ]] || usage "${BASH_SOURCE[0]}"
  [[ " $*" =~ \ --(endpoint-id|url)[\ =] ]] || usage "${BASH_SOURCE[0]}" '--endpoint-id ID or --url URL is missing'
  export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
  for python in "$ROOT/.venv-deploy/bin/python" "$ROOT/.venv/bin/python" python3; do
    if "$python" -P -m deploy smoke --help >/dev/null 2>&1; then
      exec "$python" -P -m deploy smoke "$@"
    fi
  done
  fail "no Python here can run deploy: 'make deploy ARGS=--help' sets one up, without torch"
}

main "$@"
