# Sourced: a Debian machine.

install='apt install ./kinetail_*_amd64.deb'
remove='apt remove kinetail'
kept=agent.yaml

prepare() { :; }

# Started by its package: its configuration is still there.
reconfigure() { :; }

purge() { readme 'apt purge kinetail'; }
