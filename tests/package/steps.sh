# Sourced: what a package lives through on a machine, step by step. deb.sh and rpm.sh say with which
# commands, and what differs.
#
# `app.log` is the log of record: whatever happens, the stream must hold its lines, each once, in order.

commands=$work/commands
: >"$commands"

# Runs a command of the README in the machine, exactly as it stands there.
readme() {
    grep -Eq "^$(sed 's/[][\.*^$+?(){}|/]/\\&/g' <<<"$1")( +#.*)?\$" README.md ||
        { echo "README.md does not say: $1" >&2; return 1; }
    echo "$1" >>"$commands"
    in_machine "$1"
}

# What the README's sections on packages tell to type was typed here.
all_commands_of_the_readme_ran() {
    [ "$*" = 'deb rpm' ] || return 0
    awk '/^## /{ on = /^## Install/ } on && /^```/{ code = !code; next } on && code' README.md |
        sed 's/ \+#.*//' | while read -r line; do
            assert "run: $line" grep -Fxq -- "$line" "$commands"
        done
}

property() { in_machine "systemctl show --property=$1 --value kinetail"; }
is() { [ "$(property "$1")" = "$2" ] || { echo "$1 is $(property "$1")" >&2; return 1; }; }
nothing_runs() { ! programs | grep -Eq '/kinetail( \(deleted\))?$'; }
gone() { [ ! -e "$root/$1" ]; }
there() { [ -e "$root/$1" ]; }
silent() { local said; said=$("$@" 2>&1) && [ -z "$said" ] || { echo "$said" >&2; return 1; }; }

write() { # how many lines
    local i
    for ((i = 0; i < $1; i++)); do
        echo "app line $((++written)) $RANDOM"
    done >>"$root/srv/app/log/app.log"
}

# Puts the lines of the stream with that beginning into $work/sent.
sent() { # beginning
    python3 tests/package/read_stream.py "http://127.0.0.1:$port" "$kind" >"$work/$kind.stream" &&
        { grep -a "^$1 " "$work/$kind.stream" || true; } >"$work/sent"
}
holds() { # beginning file
    sent "$1" && cmp -s "$work/sent" "$root/$2"
}
# What came before a kill may have come twice, and was looked at then.
holds_app() {
    sent app && cmp -s <(tail -n "+$((seen_sent + 1))" "$work/sent") \
        <(tail -n "+$((seen_written + 1))" "$root/srv/app/log/app.log")
}
none_is_missing() { sent app && cmp -s <(awk '!seen[$0]++' "$work/sent") "$root/srv/app/log/app.log"; }
all_arrived() { until_true "every line arrived, once and in order: $1" holds_app; }

whole_life() {
    written=0 seen_sent=0 seen_written=0
    step "$kind: a clean machine"
    make_machine "$kind" prepare
    boot
    step "$kind: install"
    installs
    step "$kind: first configuration"
    configures
    step "$kind: restrictions"
    is_restricted
    step "$kind: permissions"
    reads_what_it_may
    step "$kind: upgrade under load"
    upgrades
    step "$kind: consume"
    consumes
    step "$kind: watchdog, crash, mistake"
    heals
    step "$kind: remove, and install again"
    removes
    step "$kind: purge"
    purges
    shut_down
}

installs() {
    packages=previous readme "$install"
    assert 'it is enabled' in_machine 'systemctl is-enabled kinetail'
    assert 'nobody configured it: it is passed over' is ActiveState inactive
    assert 'it is passed over without a failure' in_machine 'systemctl start kinetail && ! systemctl is-active kinetail && ! systemctl is-failed kinetail'
    assert 'its user is not root' in_machine '[ "$(id -u kinetail)" -gt 0 ]'
    assert 'its user cannot log in' in_machine 'getent passwd kinetail | grep -q nologin$'
    # systemd-tmpfiles makes it, and needs /proc.
    assert_with mounts 'its state is its own' in_machine '[ "$(stat -c "%a %U %G" /var/lib/kinetail)" = "700 kinetail kinetail" ]'
    assert 'the unit is right' silent in_machine 'systemd-analyze verify --man=no kinetail.service'
    assert_with systemd 'the exposure is at most 1.5' in_machine 'systemd-analyze security --threshold=15 --no-pager kinetail.service | tail -1'
    assert 'the manual pages are there' in_machine 'gzip -t /usr/share/man/man8/kinetail.8.gz /usr/share/man/man5/agent.yaml.5.gz'
    assert 'the completions are there' in_machine '. /usr/share/bash-completion/completions/kinetail && complete -p kinetail'
}

configures() {
    mkdir -p "$root/srv/app/log" "$root/srv/secret"
    chmod 750 "$root/srv/app/log"
    write 100
    (umask 077; echo 'secret line' >"$root/srv/secret/secret.log")
    echo 'adm line' >"$root/var/log/group.log"
    in_machine 'chown root:adm /var/log/group.log; chmod 640 /var/log/group.log'
    cat >"$root/etc/kinetail/agent.yaml" <<YAML
aws: { region: eu-west-1, endpoint_url: "http://127.0.0.1:$port" }
produce:
  - name: app
    files: ["/srv/app/log/*.log", "/srv/secret/*.log", "/var/log/group.log"]
    stream: $kind
    merge: { max_age: 100 ms }
    tail: { scan_interval: 1 s }
YAML
    readme 'runuser -u kinetail -- kinetail check --connect' | tee "$work/check"
    assert 'the stream answers' grep -q "$kind answers" "$work/check"
    readme 'systemctl start kinetail'
    assert 'it runs, and says that it is ready' is ActiveState active
    assert 'its process is seen' eval '! nothing_runs'
    readme 'kinetail status' | tee "$work/status"
    assert 'what it may not read is told' grep -qi 'permission denied' "$work/status"
}

is_restricted() {
    local pid uid field
    pid=$(property MainPID)
    uid=$(in_machine 'id -u kinetail')
    beside "cat /proc/$pid/status" >"$work/proc"
    grep -E '^(Uid|Cap.*|NoNewPrivs|Seccomp):' "$work/proc"
    assert 'it is the user kinetail' grep -Eq "^Uid:(\s+$uid){4}\$" "$work/proc"
    assert 'it can gain no privileges' grep -Eq '^NoNewPrivs:\s+1$' "$work/proc"
    assert_with systemd 'its system calls are filtered' grep -Eq '^Seccomp:\s+2$' "$work/proc"
    for field in CapInh CapPrm CapEff CapBnd CapAmb; do
        assert "$field is empty" grep -Eq "^$field:\s+0+\$" "$work/proc"
    done
    touch "$root/root/seen"
    assert_with mounts 'it sees the system' as_it_sees test -e /srv/app/log
    assert_with mounts 'it sees the system read-only, even as root' sees_read_only /usr /srv/app/log
    assert_with mounts 'it may write its state' eval 'as_it_sees touch /var/lib/kinetail/written && as_it_sees rm /var/lib/kinetail/written'
    assert_with mounts 'it sees no home' eval '! as_it_sees test -e /root/seen'
    assert_with systemd 'its memory and tasks are bounded' in_machine '[ "$(systemctl show -P MemoryMax kinetail)" = 536870912 ] && [ "$(systemctl show -P TasksMax kinetail)" = 64 ]'
}

as_it_sees() { beside "nsenter --target $(property MainPID) --mount --root -- $*"; }
sees_read_only() {
    local place
    for place in "$@"; do
        ! as_it_sees touch "$place/written" 2>/dev/null || return 1
    done
}

drop_in() { # name
    readme "install -D -m 644 -t /etc/systemd/system/kinetail.service.d/ /usr/share/doc/kinetail/drop-ins/$1.conf"
    readme 'systemctl daemon-reload'
    readme 'systemctl restart kinetail'
}

reads_what_it_may() {
    readme 'setfacl -R -m u:kinetail:rX,d:u:kinetail:rX /srv/app/log'
    all_arrived 'by an access list'
    assert 'what it may not read did not arrive' no_stranger
    drop_in group-adm
    until_true 'by the group adm' holds adm var/log/group.log
    assert 'what is of root alone did not arrive' no_secret
    drop_in read-everything
    until_true_with CAP_DAC_READ_SEARCH 'by the capability to read everything' holds secret srv/secret/secret.log
    assert_with CAP_DAC_READ_SEARCH 'one capability, and no other' beside "grep -Eq '^CapEff:\s+0000000000000004\$' /proc/$(property MainPID)/status"
    in_machine 'rm /etc/systemd/system/kinetail.service.d/read-everything.conf; systemctl daemon-reload; systemctl restart kinetail'
    readme 'journalctl -u kinetail' | tail -2
}
no_stranger() { ! grep -Eaq '^(adm|secret) ' "$work/$kind.stream"; }
no_secret() { ! grep -aq '^secret ' "$work/$kind.stream"; }

upgrades() {
    local before sum
    before=$(property MainPID)
    sum=$(sha256sum <"$root/etc/kinetail/agent.yaml")
    (while [ ! -e "$work/enough" ]; do write 1; sleep 0.01; done) &
    servers+=($!)
    local writer=$!
    readme "$install"
    touch "$work/enough"
    wait "$writer"
    rm "$work/enough"
    written=$(wc -l <"$root/srv/app/log/app.log")
    assert 'it runs' in_machine 'systemctl is-active kinetail'
    assert 'it is another process' [ "$(property MainPID)" != "$before" ]
    # In a container root may not look at it.
    assert_with mounts 'it runs what is installed now' runs_what_is_installed
    assert 'the configuration is as it was' [ "$(sha256sum <"$root/etc/kinetail/agent.yaml")" = "$sum" ]
    all_arrived "$written lines, over the upgrade"
}

runs_what_is_installed() {
    [ "$(beside "sha256sum <'/proc/$(property MainPID)/exe'")" = "$(sha256sum <"$root/usr/bin/kinetail")" ]
}

consumes() {
    cat >>"$root/etc/kinetail/agent.yaml" <<YAML
consume:
  - { name: back, stream: $kind, directory: /srv/mirror }
YAML
    readme 'install -d -o kinetail -g kinetail /srv/mirror'
    drop_in consume
    until_true 'every line is written back' wrote_back
    assert 'as the files of its user' in_machine '[ "$(find /srv/mirror -type f ! -user kinetail)" = "" ]'
}
wrote_back() { cmp -s <(grep -rah '^app ' "$root/srv/mirror") "$root/srv/app/log/app.log"; }

restarts() { [ "$(property NRestarts)" -ge "$1" ] && is ActiveState active; }
pings() { [ "$(property WatchdogTimestampMonotonic)" -gt "$1" ]; }

heals() {
    # The unit's own 30 s are long to wait for.
    mkdir -p "$root/etc/systemd/system/kinetail.service.d"
    printf '[Service]\nWatchdogSec=10s\nTimeoutAbortSec=1s\nRestartSec=1s\n' \
        >"$root/etc/systemd/system/kinetail.service.d/fast.conf"
    in_machine 'systemctl daemon-reload; systemctl restart kinetail'
    until_true 'it says that it is alive' pings "$(property WatchdogTimestampMonotonic)"
    beside "kill -STOP $(property MainPID)"
    until_true 'what hangs is started again' restarts 1
    write 50
    all_arrived 'over a hang'
    beside "kill -KILL $(property MainPID)"
    until_true 'what was killed is started again' restarts 2
    write 50
    # What was accepted and not committed yet is sent again.
    until_true 'no line is missing over a kill' none_is_missing
    seen_sent=$(wc -l <"$work/sent")
    seen_written=$(wc -l <"$root/srv/app/log/app.log")
    rm "$root/etc/systemd/system/kinetail.service.d/fast.conf"
    cp "$root/etc/kinetail/agent.yaml" "$work/agent.yaml"
    echo 'produced: []' >>"$root/etc/kinetail/agent.yaml"
    in_machine 'systemctl daemon-reload; ! systemctl restart kinetail 2>/dev/null'
    assert 'a mistake ends it with 78' is ExecMainStatus 78
    assert 'and is not tried again' is ActiveState failed
    cp "$work/agent.yaml" "$root/etc/kinetail/agent.yaml"
    readme 'systemctl start kinetail'
    all_arrived 'after the mistake was mended'
}

removes() {
    readme "$remove"
    assert 'the program is gone' gone usr/bin/kinetail
    assert 'the unit is gone' gone usr/lib/systemd/system/kinetail.service
    assert 'nothing of it runs' nothing_runs
    assert 'its state is kept' there var/lib/kinetail/kinetail.db
    assert 'its configuration is kept' there "etc/kinetail/$kept"
    write 50
    readme "$install"
    reconfigure
    assert 'it runs' in_machine 'systemctl is-active kinetail'
    all_arrived 'from where it had ended'
}

purges() {
    purge
    assert 'the program is gone' gone usr/bin/kinetail
    assert 'its state is gone' gone var/lib/kinetail
    assert 'its configuration is gone' gone etc/kinetail
    assert 'nothing of it runs' nothing_runs
}
