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

mount -t proc proc /proc
mounts
echo "@kernel|$(uname -v | sed -n 's/.*Debian \([^ ]*\).*/\1/p')"
step boot uptime_seconds
step modules load_modules
step version thalweg --version
echo "@end"
reboot -f
