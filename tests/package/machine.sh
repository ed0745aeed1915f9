# Sourced: a machine is a root directory. Where the host lets it, systemd runs in it as the first process, in
# namespaces of its own but for the network, which is the host's: `machines` is then `systemd`. Elsewhere, as
# in most containers, it is entered by chroot, and tests/package/stand-in.py does for systemd what can be done
# without it: `machines` is then `chroot`, and what was not checked is told. KINETAIL_MACHINES demands one.

servers=()
machines= mounts= name= root= init= nspawn=
not_checked=()

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

# Asserts, or waits for, what only some machines can show: those with `systemd`, with `mounts` of their own, or
# with the capability to give to a service what lets it read everything.
assert_with() { with assert "$@"; }
until_true_with() { with until_true "$@"; }
with() { # assert|until_true what claim command...
    local check=$1 what=$2
    shift 2
    if has "$what"; then
        "$check" "$@"
    else
        echo "NOT CHECKED without $what: $1"
        not_checked+=("$1")
    fi
}

has() {
    case $1 in
        systemd) [ "$machines" = systemd ] ;;
        mounts) [ "$machines" = systemd ] || [ -n "$mounts" ] ;;
        CAP_DAC_READ_SEARCH) [ $((0x$(awk '/^CapBnd/ { print $2 }' /proc/self/status) & 4)) -ne 0 ] ;;
    esac
}

# Finds out how machines are run here, and says it.
choose_machines() {
    if unshare --mount mount -t tmpfs tmpfs /mnt 2>/dev/null; then mounts=yes; fi
    machines=${KINETAIL_MACHINES:-systemd}
    case $machines in
        systemd)
            if can_boot; then
                echo 'systemd is the first process of the machines: everything is checked'
                return
            elif [ -n "${KINETAIL_MACHINES:-}" ]; then
                echo 'systemd cannot be the first process of a machine here' >&2
                return 1
            fi
            ;;
        chroot) ;;
        *) echo "KINETAIL_MACHINES is systemd or chroot, not $machines" >&2; return 1 ;;
    esac
    machines=chroot
    cat <<END
************************************************************************************************
systemd is not the first process of these machines: a stand-in reads the unit and starts the
service as its user, with its groups, capabilities, NoNewPrivileges, umask and limits of files
${mounts:+and with its read-only system, hidden homes and private /tmp }
What cannot be checked in this way is told as NOT CHECKED, and again at the end.
************************************************************************************************
END
}

# Whether systemd comes up in a root here; silent.
can_boot() {
    local end=$((SECONDS + 300)) booted=1
    name=probe root=$work/probe
    rm -rf "$root"
    cp -a "$work/base" "$root"
    # Where commands start.
    mkdir -p "$root/packages/current"
    start_init
    while [ "$booted" -ne 0 ] && kill -0 "$nspawn" 2>/dev/null && [ "$SECONDS" -lt "$end" ]; do
        if find_init && is_up; then booted=0; else sleep 0.2; fi
    done >/dev/null 2>&1
    if kill -0 "$nspawn" 2>/dev/null; then kill -KILL "${init:-$nspawn}"; fi
    wait "$nspawn" 2>/dev/null || true
    init=
    rm -rf "$root"
    return "$booted"
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

# Starts the machine.
boot() {
    if has systemd; then
        start_init
        until_true 'the machine has a first process' find_init
        until_true 'the machine is up' is_up
    else
        # What the scripts of packages ask whether systemd runs.
        mkdir -p "$root/run/systemd/system"
        mv "$root/usr/bin/systemctl" "$root/usr/bin/systemctl.real"
        install -m 755 tests/package/stand-in.py "$root/usr/bin/systemctl"
        install -m 755 tests/package/stand-in.py "$root/usr/bin/journalctl"
    fi
}

start_init() {
    systemd-nspawn --quiet --boot -D "$root" --register=no --keep-unit --machine="kinetail-$name" \
        --link-journal=no --resolv-conf=off --timezone=off --console=pipe \
        </dev/null >"$work/$name.console" 2>&1 &
    nspawn=$!
    servers+=("$nspawn")
}

find_init() {
    init=$(pgrep -P "$nspawn" | head -1)
    [ -n "$init" ] && [ "$(cat "/proc/$init/comm")" = systemd ]
}

is_up() { in_machine 'systemctl is-active multi-user.target'; }

# Runs a shell command as root of the machine.
in_machine() {
    local enter
    if has systemd; then
        enter=(nsenter --target "$init" --mount --uts --ipc --pid --root --wd --)
    elif has mounts; then
        # The root is a mount, too, so that it can be made read-only; /proc is its own, or nothing is.
        enter=(unshare --mount sh -ec 'mount --bind "$0" "$0"; mount -t proc proc "$0/proc"; exec chroot "$0" "$@"' "$root")
    else
        enter=(chroot "$root")
    fi
    "${enter[@]}" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive bash -ec "cd /packages/${packages:-current}; $1"
}

# Runs a command where the processes of the machine have the numbers that it gives them.
beside() {
    if has systemd; then in_machine "$1"; else bash -ec "$1"; fi
}

# The programs of all processes of the machine, of whatever user; by chroot, those of the service's user.
programs() {
    if has systemd; then
        in_machine 'readlink /proc/[0-9]*/exe || true'
    else
        of_service | cut -d' ' -f2 | sed 's|^|/|'
    fi
}

# The processes of the service's user, with their names. In a container root may see no more of them.
of_service() {
    local user
    user=$(awk -F: '$1 == "kinetail" { print $3 }' "$root/etc/passwd")
    [ -z "$user" ] || pgrep -l -U "$user" || true
}

shut_down() {
    if has systemd; then
        in_machine 'systemctl poweroff --no-block' || true
        wait "$nspawn" || true
        init=
    fi
    rm -rf "$root"
    name=
}

# Nothing started here outlives the test; a failure shows what the machine has to say.
ended() {
    local process
    if [ "$1" -ne 0 ] && [ -n "$name" ] && [ -e "$root/run/systemd/system" ] || [ -e "/proc/${init:-none}" ]; then
        in_machine 'systemctl status kinetail --no-pager -l; journalctl -u kinetail -n 60 --no-pager -o cat' >&2 || true
    fi
    for process in "${servers[@]}"; do
        kill -KILL "$process" 2>/dev/null || true
    done
    # Its end is that of every process of the machine.
    if [ -n "$init" ] && [ "$(cat "/proc/$init/comm" 2>/dev/null)" = systemd ]; then
        kill -KILL "$init"
    fi
    if [ "$machines" = chroot ] && [ -n "$name" ]; then
        in_machine '! [ -e /usr/bin/systemctl.real ] || systemctl kill kinetail' || true
    fi
}
