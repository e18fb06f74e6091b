#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The first process of an emulated machine. Says on the serial line how each step went, then switches off.
# Lines for the caller begin with @: kernel|VERSION, programs|COUNT, step|NAME|ok or FAILED|SECONDS, end.
export PATH=/bin HOME=/

uptime_seconds() { cut -d ' ' -f 1 /proc/uptime; }

# step NAME COMMAND...: what it prints is shown only if it fails, and then the scenario is over.
step() {
    name=$1
    shift
    start=$(uptime_seconds)
    "$@" >/tmp/step.log 2>&1
    status=$?
    seconds=$(echo "$start $(uptime_seconds)" | awk '{ printf "%.2f", $2 - $1 }')
    if [ $status = 0 ]; then
        echo "@step|$name|ok|$seconds"
        return
    fi
    echo "@step|$name|FAILED|$seconds"
    echo "--- $name: exit code $status"
    cat /tmp/step.log
    dmesg | tail -n 20
    echo "@end"
    reboot -f
}

mounts() {
    mount -t devtmpfs devtmpfs /dev
    mount -t sysfs sysfs /sys
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t bpf bpf /sys/fs/bpf
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /tmp
    mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
    ip link set lo up
}

load_modules() {
    for module in /modules/*.ko; do
        insmod "$module" || return 1
    done
}

# address FAMILY POD: its address of that family, 4 or 6.
address() {
    thalweg lab exec "$2" -- ip -o "-$1" addr show dev eth0 scope global | awk '{ sub("/.*", "", $4); print $4; exit }'
}

# reaches POD OTHER [FAMILY]: one pings the other, over both families or the one, with full-sized packets too.
reaches() {
    for family in ${3:-4 6}; do
        to=$(address $family "$2")
        echo "$1 -> $2 ($to)"
        thalweg lab exec "$1" -- ping "-$family" -n -c 3 -i 0.2 -W 2 "$to" || return 1
        thalweg lab exec "$1" -- ping "-$family" -n -c 1 -W 2 -s 1400 "$to" || return 1
    done
}

# transfers POD OTHER: some megabytes over TCP.
transfers() {
    to=$(address 4 "$2")
    thalweg lab exec "$2" -- iperf3 --server --one-off --daemon --idle-timeout 60 || return 1
    tries=0
    until thalweg lab exec "$1" -- iperf3 --client "$to" --bytes 16M --connect-timeout 2000; do
        tries=$((tries + 1))
        [ $tries -lt 10 ] || return 1
    done
}

# Traffic goes on while both agents end, one asked to and one not, and come back.
survives_restarts() {
    to=$(address 4 pod-2-1)
    thalweg lab exec pod-1-1 -- ping -n -q -i 0.1 -c 50 -W 2 "$to" >/tmp/ping.log 2>&1 &
    pinger=$!
    thalweg lab restart-agent node-1 --signal KILL || return 1
    thalweg lab restart-agent node-2 || return 1
    wait $pinger
    cat /tmp/ping.log
    grep -q ' 0% packet loss' /tmp/ping.log
}

mount -t proc proc /proc
mounts
echo "@kernel|$(uname -v | sed -n 's/.*Debian \([^ ]*\).*/\1/p')"
step boot uptime_seconds
step modules load_modules
# With masquerading, so that its programs are loaded too.
step lab-up thalweg lab up --nodes 2 --set enableIPv4Masquerade=true --set enableIPv6Masquerade=true
echo "@programs|$(bpftool prog | grep -c sched_cls)"
step ping-same-node reaches pod-1-1 pod-1-2
step ping-across reaches pod-1-1 pod-2-1
step tcp-same-node transfers pod-1-1 pod-1-2
step tcp-across transfers pod-1-1 pod-2-1
step agent-restarts survives_restarts
# Of the connectivity test only what the programs refuse: emulated on a busy machine, a pod's datagrams to itself, which no program
# sees, were late and counted as lost.
step spoofed-sources thalweg connectivity test --filter spoofed
step lab-down thalweg lab down
# Other constants lead the verifier by other ways: the programs wrap packets themselves, with masquerading, which is the default of
# tunnels. IPv6 inside IPv4 needs Linux 6.3 there.
step tunnel-up thalweg lab up --nodes 2 --pods 1 --routing vxlan --set tunnelEncapsulation=ebpf
step tunnel-ping reaches pod-1-1 pod-2-1 4
step tunnel-tcp transfers pod-1-1 pod-2-1
step tunnel-down thalweg lab down
echo "@end"
reboot -f
