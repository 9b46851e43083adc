#!/usr/bin/env bash
# Runs a command (`ray start --block ...`) until it ends, or AWS calls this spot node back, which it says two minutes
# ahead: then the command gets SIGTERM. Ray takes that for a drain notice: nothing new is placed here, lanes end what
# they hold, others start elsewhere. What is not empty in time is lost with the node and healed.
set -euo pipefail

METADATA=${METADATA:-http://169.254.169.254}/latest
PERIOD_S=${PERIOD_S:-5}

ask() { wget -q -T 2 -t 1 -O - "$@"; }

noticed() {
  local token
  token=$(ask --method=PUT --header='X-aws-ec2-metadata-token-ttl-seconds: 60' "$METADATA/api/token") &&
    ask --header="X-aws-ec2-metadata-token: $token" "$METADATA/meta-data/spot/instance-action" >/dev/null
}

"$@" &
command=$!
while kill -0 "$command" 2>/dev/null && ! noticed; do sleep "$PERIOD_S"; done
kill -TERM "$command" 2>/dev/null || true
wait "$command"
