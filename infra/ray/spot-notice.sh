#!/usr/bin/env bash
# Waits until AWS calls this spot node back, which it says two minutes before, and tells Ray: nothing new is placed here
# then, lanes end what they hold, others start elsewhere. What is not empty in time is lost with the node and healed.
set -euo pipefail

METADATA=${METADATA:-http://169.254.169.254}/latest
PERIOD_S=${PERIOD_S:-5}

ask() { wget -q -T 2 -t 1 -O - "$@"; }

noticed() {
  local token
  token=$(ask --method=PUT --header='X-aws-ec2-metadata-token-ttl-seconds: 60' "$METADATA/api/token") &&
    ask --header="X-aws-ec2-metadata-token: $token" "$METADATA/meta-data/spot/instance-action" >/dev/null
}

until noticed; do sleep "$PERIOD_S"; done
exec ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'spot notice' \
  --deadline-remaining-seconds 110
