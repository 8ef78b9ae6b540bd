#!/bin/sh
# anomaly-trainer as its units run it: their user, directory, environment and settings; paths on the command line
# are from that directory. Installed by `make install-systemd-trainer`; without all that: the program below.
set -eu
program=/opt/node-anomaly/bin/anomaly-trainer
settings=/etc/node-anomaly
home=/var/lib/node-anomaly-trainer
user=node-anomaly-trainer

if [ "$(id -u)" != 0 ] && [ "$(id -un)" != "$user" ]; then
    echo "error: on this machine anomaly-trainer works as the user $user" >&2
    echo "try: the same with sudo, or $program for a training of your own" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ] && [ ! -d "$home" ]; then
    install -d -o "$user" -g "$user" -m 0755 "$home"  # as the unit's first start does
fi
# As systemd reads it, and not as a shell would: a value may have spaces.
if [ -e "$settings/trainer.env" ]; then
    while IFS= read -r line || [ -n "$line" ]; do
        name=${line%%=*} value=${line#*=}
        case $name in "$line" | "" | [0-9]* | *[!A-Za-z0-9_]*) continue ;; esac
        case $value in \"*\" | \'*\') value=${value#?} value=${value%?} ;; esac
        export "$name=$value"
    done <"$settings/trainer.env"
fi
export ANOMALY_TRAINER_CONFIG="${ANOMALY_TRAINER_CONFIG:-$settings/trainer.yml}" HOME="$home"
umask 022
cd "$home"
[ "$(id -u)" != 0 ] || exec setpriv --reuid="$user" --regid="$user" --init-groups --no-new-privs -- "$program" "$@"
exec "$program" "$@"
