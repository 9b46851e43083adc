#!/usr/bin/env bash
# System programs that some tests want: installed here on Debian and Ubuntu as root. Elsewhere, or when the install
# fails, says which tests will skip and goes on; in CI a skip then fails the run (tests/skip_guard.py).
set -euo pipefail

missing() { # "PACKAGE what for" of each program that is not there, one a line
  local program package purpose
  while read -r program package purpose; do
    command -v "$program" >/dev/null || echo "$package $purpose"
  done <<'TABLE' | sort -u
ffmpeg ffmpeg decoding a dataset's videos
prometheus prometheus scraping with a real Prometheus
promtool prometheus scraping with a real Prometheus
curl curl the real S3 server
radosgw radosgw the real S3 server
ceph-mon ceph-mon the real S3 server
ceph-osd ceph-osd the real S3 server
ceph ceph-common the real S3 server
chromium chromium the page in a real browser
TABLE
}

wanted=$(missing)
[[ -n "$wanted" ]] || exit 0

if command -v apt-get >/dev/null && [[ $(id -u) == 0 ]]; then
  packages=$(cut -d ' ' -f 1 <<<"$wanted")
  echo "installing" $packages
  # RUNLEVEL=1 keeps the packages from starting their services.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  { apt-get update -q && apt-get install -q -y --no-install-recommends $packages; } >/dev/null ||
    echo "apt-get could not install them" >&2
  wanted=$(missing)
fi
[[ -z "$wanted" ]] || while read -r package purpose; do
  echo "without the system package $package these tests skip: $purpose"
done <<<"$wanted"
