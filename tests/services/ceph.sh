#!/usr/bin/env bash
# Starts a Ceph of one node with an S3 gateway, on 127.0.0.1, without systemd and without rights of its own.
#
#   FOLDER    everything lies here; short, because sockets do too
#   MON, RGW  free ports; LOW to HIGH a span of them for the storage daemon
#   ACCESS_KEY, SECRET_KEY
#
# Returns when the gateway answers. Each daemon leaves its pid in FOLDER/run/*.pid and is stopped by it.
# There is no manager daemon: it only counts and advises, and takes a third of the memory.
set -euo pipefail
cd "$FOLDER"
mkdir -p mon osd/0 run log
cluster=$(cat /proc/sys/kernel/random/uuid)
disk=$(cat /proc/sys/kernel/random/uuid)

cat > ceph.conf <<CONF
[global]
fsid = $cluster
mon host = [v2:127.0.0.1:$MON]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind port min = $LOW
ms bind port max = $HIGH
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $FOLDER/keyring
run dir = $FOLDER/run
admin socket = $FOLDER/run/\$name.asok
log file = $FOLDER/log/\$name.log
pid file = $FOLDER/run/\$name.pid
mon data = $FOLDER/mon/a
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
# Each of the gateway's pools is a change to vote on; with one voter there is nothing to wait for.
paxos propose interval = 0.05
paxos min wait = 0.01
osd data = $FOLDER/osd/0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd memory target = 939524096
osd objectstore = bluestore
bluestore block create = true
bluestore block size = 10737418240
rgw dns name = s3.test
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$RGW tcp_nodelay=1
rgw thread pool size = 32
CONF
export CEPH_CONF=$FOLDER/ceph.conf

key() { ceph-authtool keyring --gen-key -n "$@"; }
ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *'
key client.admin --cap mon 'allow *' --cap osd 'allow *'
key osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
key client.rgw --cap mon 'allow rw' --cap osd 'allow rwx'

monmaptool --create --addv a "[v2:127.0.0.1:$MON]" --fsid "$cluster" monmap
ceph-mon --mkfs -i a --monmap monmap --keyring keyring
ceph-mon -i a
ceph --connect-timeout 20 osd new "$disk"
ceph-osd -i 0 --mkfs --osd-uuid "$disk"
ceph osd crush add osd.0 1.0 root=default host=here
ceph-osd -i 0
radosgw -n client.rgw
radosgw-admin user create --uid=test --display-name=test --access-key="$ACCESS_KEY" --secret="$SECRET_KEY"

for _ in $(seq 300); do
  if curl --silent --output /dev/null "http://127.0.0.1:$RGW/"; then exit 0; fi
  sleep 0.2
done
echo "the gateway does not answer" >&2
exit 1
