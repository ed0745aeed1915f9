# $1: how many versions stay installed: 0 at a removal, 1 at an upgrade.
if [ "$1" -eq 0 ]; then
    systemctl disable kinetail.service || :
    if [ -d /run/systemd/system ]; then
        systemctl stop kinetail.service || :
    fi
fi
