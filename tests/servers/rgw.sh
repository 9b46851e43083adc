#!/usr/bin/env bash
# A real S3 server for the tests: one Ceph monitor, one OSD and one RADOS Gateway, all on 127.0.0.1.
#
#   rgw.sh serve DIR PORT MON_PORT   start, print "ready URL", stay until stdin closes or a signal comes, then stop all.
#                                    DIR is absolute; a cluster found there keeps its data (give it the same ports)
#   rgw.sh crash DIR                 SIGKILL the three daemons of a running `serve`, which then ends too
#
# The access key is `test`, the secret key `testtest`. Debian packages: radosgw ceph-mon ceph-osd ceph-common curl.
set -euo pipefail

readonly command=${1:?serve or crash} dir=${2:?an absolute folder}
readonly conf="$dir/ceph.conf"
readonly ready_tries=600 stop_tries=150 pause=0.1
watch='' # the process that waits for our stdin to close

write_config() { # PORT MON_PORT FSID
  # Without `ms mon client mode = crc` clients and monitor find no common mode when authentication is off; without the
  # short paxos interval every map change waits a second.
  cat >"$conf" <<CONF
[global]
fsid = $3
mon host = [v2:127.0.0.1:$2]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
paxos propose interval = 0.05
paxos min wait = 0.01
run dir = $dir/run
admin socket = $dir/run/\$name.asok
log file = $dir/log/\$name.log
mon data = $dir/mon
mon data avail crit = 1
mon allow pool size one = true
osd data = $dir/osd
osd objectstore = bluestore
bluestore block size = 10737418240
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off

[client.rgw]
rgw data = $dir/rgw
rgw frontends = beast endpoint=127.0.0.1:$1
rgw run sync thread = false
rgw thread pool size = 32
CONF
}

quietly() { # NAME COMMAND...: output to a log that is shown when the command fails
  local log="$dir/log/$1.out"
  shift
  "$@" >"$log" 2>&1 </dev/null || { cat "$log" >&2; return 1; }
}

daemon() { # NAME COMMAND...: in the foreground of a background job, so that it is our child and cannot be orphaned
  local name=$1
  shift
  "$@" -f >"$dir/log/$name.out" 2>&1 </dev/null &
  echo $! >"$dir/run/$name.pid"
}

alive() { # NAME
  [[ -s "$dir/run/$1.pid" ]] && kill -0 "$(<"$dir/run/$1.pid")" 2>/dev/null
}

stop() { # newest first, each given time to end by itself
  local name try
  [[ -z "$watch" ]] || kill "$watch" 2>/dev/null || true
  for name in rgw osd mon; do
    alive "$name" || continue
    kill -TERM "$(cat "$dir/run/$name.pid")"
    for ((try = 0; try < stop_tries; try++)); do alive "$name" || break; sleep "$pause"; done
    if alive "$name"; then kill -KILL "$(cat "$dir/run/$name.pid")"; fi
  done
  wait
  rm -f "$dir"/run/*
}

serve() { # PORT MON_PORT
  local port=$1 mon_port=$2 osd_uuid='' try
  mkdir -p "$dir"/{mon,osd,rgw,run,log}
  trap stop EXIT
  trap 'exit 143' TERM INT HUP
  if [[ ! -f "$conf" ]]; then
    local fsid
    fsid=$(</proc/sys/kernel/random/uuid)
    osd_uuid=$(</proc/sys/kernel/random/uuid)
    write_config "$port" "$mon_port" "$fsid"
    : >"$dir/keyring"
    quietly monmap monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$mon_port]" "$dir/monmap"
    quietly mon-mkfs ceph-mon -c "$conf" --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/keyring"
  fi
  daemon mon ceph-mon -c "$conf" -i a
  if [[ -n "$osd_uuid" ]]; then
    quietly osd-mkfs ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$osd_uuid"
    quietly osd-new ceph -c "$conf" --connect-timeout 30 osd new "$osd_uuid"
  fi
  daemon osd ceph-osd -c "$conf" -i 0
  daemon rgw radosgw -c "$conf" -n client.rgw
  if [[ -n "$osd_uuid" ]]; then
    quietly user radosgw-admin -c "$conf" -n client.rgw user create --uid=test --display-name=test \
      --access-key=test --secret-key=testtest
  fi
  for ((try = 0; try < ready_tries; try++)); do
    if curl -sf -o /dev/null "http://127.0.0.1:$port"; then
      echo "ready http://127.0.0.1:$port"
      exec 3<&0
      cat <&3 >/dev/null & # ends with stdin, that is with whoever started us
      watch=$!
      wait -n
      return 0
    fi
    alive rgw || { tail -n 20 "$dir"/log/{mon,osd,rgw}.out >&2; return 1; }
    sleep "$pause"
  done
  echo "radosgw is not ready; see $dir/log" >&2
  return 1
}

case $command in
  serve) serve "${3:?port of the gateway}" "${4:?port of the monitor}" ;;
  crash) kill -KILL $(cat "$dir"/run/{rgw,osd,mon}.pid) ;;
  *) echo "unknown command: $command" >&2; exit 2 ;;
esac
