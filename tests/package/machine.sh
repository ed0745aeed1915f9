# Sourced: a machine is a root directory in which systemd runs as the first process, in namespaces of
# its own but for the network, which is the host's.

servers=()
name= root= init=

# Waits for a condition, with a deadline that a busy host does not reach.
until_true() { # claim command...
    local claim=$1 end=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$end" ]; then
            echo "not within 120 s: $claim" >&2
            return 1
        fi
        sleep 0.2
    done
    echo "ok: $claim"
}

assert() { # claim command...
    local claim=$1
    shift
    if ! "$@"; then
        echo "does not hold: $claim" >&2
        return 1
    fi
    echo "ok: $claim"
}

# Makes a root of its own from the base, and prepares it with a function that may use the network.
make_machine() { # name prepare
    name=$1
    root=$work/$1
    rm -rf "$root"
    cp -a "$work/base" "$root"
    # What each asks its user is answered here.
    echo 'APT::Get::Assume-Yes "true";' >"$root/etc/apt/apt.conf.d/yes"
    mkdir -p "$root/packages"
    cp -r "$previous" "$root/packages/previous"
    cp -r "$current" "$root/packages/current"
    "$2"
}

# Starts the machine: systemd as process 1 of it.
boot() {
    systemd-nspawn --quiet --boot -D "$root" --register=no --keep-unit --machine="kinetail-$name" \
        --link-journal=no --resolv-conf=off --timezone=off --console=pipe \
        </dev/null >"$work/$name.console" 2>&1 &
    servers+=($!)
    nspawn=$!
    until_true 'the machine has a first process' find_init
    until_true 'the machine is up' in_machine 'systemctl is-active multi-user.target'
}

find_init() {
    init=$(pgrep -P "$nspawn" | head -1)
    [ -n "$init" ] && [ "$(cat "/proc/$init/comm")" = systemd ]
}

# Runs a shell command as root of the machine.
in_machine() {
    nsenter --target "$init" --mount --uts --ipc --pid --root --wd -- \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive bash -ec "cd /packages/${packages:-current}; $1"
}

shut_down() {
    in_machine 'systemctl poweroff --no-block' || true
    wait "$nspawn" || true
    init=
    rm -rf "$root"
}

# Nothing started here outlives the test; a failure shows what the machine has to say.
ended() {
    local server
    if [ "$1" -ne 0 ] && [ -n "$init" ] && [ -e "/proc/$init" ]; then
        in_machine 'systemctl status kinetail --no-pager -l; journalctl -u kinetail -n 60 --no-pager -o cat' >&2 || true
    fi
    for server in "${servers[@]}"; do
        kill -KILL "$server" 2>/dev/null || true
    done
    # Its end is that of every process of the machine.
    if [ -n "$init" ] && [ "$(cat "/proc/$init/comm" 2>/dev/null)" = systemd ]; then
        kill -KILL "$init"
    fi
}
