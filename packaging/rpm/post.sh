# $1: how many versions are installed after this: 1 at first, 2 at an upgrade.
systemd-sysusers kinetail.conf
systemd-tmpfiles --create kinetail.conf
if [ "$1" -eq 1 ]; then
    systemctl enable kinetail.service || :
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    if [ "$1" -eq 1 ]; then
        # Passed over by the unit's condition unless a configuration stood there before.
        systemctl start kinetail.service || :
    else
        systemctl try-restart kinetail.service || :
    fi
fi
