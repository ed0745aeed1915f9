# Sourced: an rpm machine. It is Debian's root with dnf and an rpm database of its own, in which one
# package stands for what the root holds: the names by which rpm knows its libraries, read from the very
# files, systemd and the shell.

install='dnf install ./kinetail-*.x86_64.rpm'
remove='dnf remove kinetail'
kept=agent.yaml.rpmsave

prepare() {
    local library stub=$work/stub
    chroot "$root" sh -ec 'apt-get update -qq; apt-get install -qq --no-install-recommends dnf rpm' \
        >"$work/rpm.log" 2>&1 || { tail "$work/rpm.log" >&2; return 1; }
    printf '[main]\nassumeyes=True\ninstallonly_limit=3\n' >"$root/etc/dnf/dnf.conf"
    mkdir -p "$stub"
    {
        echo 'Name: debian-root'
        echo 'Version: 1'
        echo 'Release: 1'
        echo 'Summary: What the root holds'
        echo 'License: none'
        echo 'BuildArch: x86_64'
        echo "Provides: systemd = $(chroot "$root" dpkg-query -f '${Version}' -W systemd | cut -d- -f1)"
        echo 'Provides: /bin/sh, /bin/grep, ca-certificates, rtld(GNU_HASH)'
        for library in ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libgcc_s.so.1; do
            /usr/lib/rpm/elfdeps --provides "$root/lib/x86_64-linux-gnu/$library" | sed 's/^/Provides: /'
        done
        printf '%%description\n-\n%%files\n'
    } >"$stub/debian-root.spec"
    rpmbuild --quiet --define "_topdir $stub" -bb "$stub/debian-root.spec"
    cp "$stub"/RPMS/x86_64/debian-root-1-1.x86_64.rpm "$root/packages/"
    chroot "$root" dnf install --disablerepo='*' /packages/debian-root-1-1.x86_64.rpm >>"$work/rpm.log" 2>&1 ||
        { tail "$work/rpm.log" >&2; return 1; }
}

# rpm puts a changed configuration aside.
reconfigure() {
    mv "$root/etc/kinetail/agent.yaml.rpmsave" "$root/etc/kinetail/agent.yaml"
    readme 'systemctl start kinetail'
}

purge() {
    readme "$remove"
    readme 'rm -r /var/lib/kinetail /etc/kinetail'
}
