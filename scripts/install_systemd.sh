#!/bin/sh
# Install or remove the agent or the trainer as systemd units, from this checkout. Doing it again is an upgrade.
set -eu
cd "$(dirname "$0")/.."

usage() {
    cat <<'TEXT'
usage: scripts/install_systemd.sh install|uninstall agent|trainer [--files-only] [--purge]

  --files-only  units, settings and users only: PREFIX/bin comes from elsewhere (a package, an image)
  --purge       uninstall: settings, state and published bundles too; without it they stay

environment:
  DESTDIR   stage below this directory, touch nothing else and start nothing (for packages)
  PREFIX    where the programs live (default: /opt/node-anomaly, an environment of its own)
  UNITDIR   where units go (default: /etc/systemd/system)
  BINDIR    where the commands go that people type (default: /usr/local/bin; empty: nowhere)
  WHEEL     a built wheel to install instead of this checkout
  PYTHON    the Python to run it with, 3.11 to 3.13 (default: python3)
TEXT
    exit "${1:-2}"
}

fail() {
    echo "error: $1" >&2
    [ -z "${2:-}" ] || echo "try: $2" >&2
    exit 1
}

verb=${1:-}
component=${2:-}
[ "$verb" != --help ] || usage 0
[ $# -ge 2 ] || usage
shift 2
files_only=false
purge=false
for option in "$@"; do
    case $option in
        --files-only) files_only=true ;;
        --purge) purge=true ;;
        *) usage ;;
    esac
done

DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/opt/node-anomaly}
UNITDIR=${UNITDIR:-/etc/systemd/system}
BINDIR=${BINDIR-/usr/local/bin}
PYTHON=${PYTHON:-python3}
settings=/etc/node-anomaly
sysusers=/etc/sysusers.d
documents=$PREFIX/share/doc/node-anomaly
mark=.installed-by-node-anomaly

case $PREFIX in
    / | /usr | /usr/local | /opt) fail "PREFIX=$PREFIX holds other programs too" "a directory of its own, such as /opt/node-anomaly" ;;
    *[!A-Za-z0-9._/-]*) fail "PREFIX=$PREFIX has characters that a unit file would need quoted" "letters, digits and . _ - /" ;;
    /*) ;;
    *) fail "PREFIX=$PREFIX is not absolute" ;;
esac
case $component in
    agent) units="node-anomaly-agent.socket node-anomaly-agent.service" state=/var/lib/node-anomaly ;;
    trainer) units="node-anomaly-trainer.timer node-anomaly-trainer.service node-anomaly-drift.timer node-anomaly-drift.service" state=/var/lib/node-anomaly-trainer ;;
    *) usage ;;
esac

live() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

# Write stdin to $1 under its name whole or not at all, readable by all.
put() {
    mkdir -p "$(dirname "$DESTDIR$1")"
    cat >"$DESTDIR$1.new"
    chmod 0644 "$DESTDIR$1.new"
    mv -f "$DESTDIR$1.new" "$DESTDIR$1"
}

# Settings are the administrator's: never overwritten.
put_once() {
    if [ -e "$DESTDIR$2" ]; then
        echo "kept      $2"
    else
        put "$2" <"$1"
        echo "installed $2"
    fi
}

# Whether the command in BINDIR is one that this script made.
ours() {
    case $component in
        agent) [ "$(readlink "$1")" = "$PREFIX/bin/anomaly-agent" ] ;;
        trainer) grep -q 'Installed by .make install-systemd-trainer.' "$1" 2>/dev/null ;;
    esac
}

# What people type finds the settings and, for the trainer, its user and directory, as the units do.
install_command() {
    [ -n "$BINDIR" ] || return 0
    command=$DESTDIR$BINDIR/anomaly-$component
    if { [ -e "$command" ] || [ -L "$command" ]; } && ! ours "$command"; then
        echo "kept      $BINDIR/anomaly-$component, which is not of this installation: type $PREFIX/bin/anomaly-$component"
        return 0
    fi
    mkdir -p "$DESTDIR$BINDIR"
    case $component in
        agent) ln -sfn "$PREFIX/bin/anomaly-agent" "$command" ;;
        trainer)
            sed "s|/opt/node-anomaly|$PREFIX|g" systemd/anomaly-trainer.sh >"$command.new"
            chmod 0755 "$command.new"
            mv -f "$command.new" "$command"
            ;;
    esac
    echo "installed $BINDIR/anomaly-$component"
}

remove_command() {
    command=$DESTDIR$BINDIR/anomaly-$component
    if [ -n "$BINDIR" ] && ours "$command"; then
        rm -f "$command"
    fi
}

install_programs() {
    environment=$DESTDIR$PREFIX
    if [ -d "$environment" ] && [ ! -e "$environment/$mark" ] && [ -n "$(ls -A "$environment")" ]; then
        fail "$environment exists and was not made by this script" "another PREFIX, or --files-only if its programs are yours"
    fi
    command -v "$PYTHON" >/dev/null || fail "$PYTHON is not there" "PYTHON=/path/to/python3.11"
    "$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
        fail "$PYTHON is not Python 3.11 to 3.13" "PYTHON=/path/to/python3.11"
    case $("$PYTHON" -c 'import sys; print(sys.base_prefix)') in
        /root/* | /home/*) fail "$PYTHON lives in a home directory, where the service's user may not read it" "PYTHON=/usr/bin/python3" ;;
    esac
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    wheel=${WHEEL:-}
    if [ -z "$wheel" ]; then
        echo "building  the wheel of this checkout"
        "$PYTHON" -m venv "$work/build"
        pip_install "$work/build" --require-hashes -r requirements/build.txt
        "$work/build/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work" .
        wheel=$(ls "$work"/node_anomaly-*.whl)
    fi
    mkdir -p "$environment"
    clear=
    version='import sys; print(sys.version_info[:2])'
    if [ -e "$environment/pyvenv.cfg" ] &&
        [ "$("$environment/bin/python" -c "$version" 2>/dev/null)" != "$("$PYTHON" -c "$version")" ]; then
        clear=--clear  # another Python: what is there was made for the one before, which may be gone
    fi
    "$PYTHON" -m venv $clear "$environment" ||
        fail "no environment could be made in $environment" "apt install python3-venv"
    : >"$environment/$mark"
    # An agent beside a trainer shares its environment, which holds all that it needs.
    locked=requirements/$component.txt
    if [ "$component" = agent ] && [ -e "$DESTDIR$UNITDIR/node-anomaly-trainer.service" ]; then
        locked=requirements/trainer.txt
    fi
    echo "installing into $PREFIX"
    pip_install "$environment" --require-hashes --only-binary=:all: -r "$locked"
    pip_install "$environment" --no-deps --force-reinstall "$wheel"
    if [ -n "$DESTDIR" ]; then  # staged programs must name the Python of their final place
        grep -rIl "$DESTDIR" "$environment/bin" "$environment/pyvenv.cfg" | while read -r file; do
            sed -i "s|$DESTDIR||g" "$file"
        done
    fi
}

pip_install() {
    into=$1
    shift
    "$into/bin/python" -m pip --disable-pip-version-check install --quiet "$@"
}

do_install() {
    [ -n "$DESTDIR" ] || [ "$(id -u)" = 0 ] || fail "only root may install units" "sudo, or DESTDIR=/some/directory to stage"
    $files_only || install_programs
    for unit in $units; do
        sed "s|/opt/node-anomaly|$PREFIX|g" "systemd/$unit" | put "$UNITDIR/$unit"
        echo "installed $UNITDIR/$unit"
    done
    install_command
    put "$sysusers/node-anomaly-$component.conf" <"systemd/node-anomaly-$component.sysusers.conf"
    put_once "$component/anomaly-$component.example.yml" "$settings/$component.yml"
    put_once "systemd/$component.env" "$settings/$component.env"
    put "$documents/install-systemd.md" <docs/install-systemd.md
    [ "$component" != agent ] || put "$documents/network.conf" <systemd/drop-ins/network.conf
    if live; then
        systemd-sysusers "$sysusers/node-anomaly-$component.conf"
        if [ "$component" = trainer ]; then  # it may hold MLflow's password
            chgrp node-anomaly-trainer "$settings/trainer.env"
            chmod 0640 "$settings/trainer.env"
        fi
        systemctl daemon-reload
        case $component in
            agent)  # by its socket: restarted alone, it would lose an address that was changed meanwhile
                if systemctl is-active --quiet node-anomaly-agent.service; then
                    systemctl restart node-anomaly-agent.socket
                    systemctl start node-anomaly-agent.service
                fi
                ;;
            trainer) systemctl try-restart node-anomaly-trainer.timer node-anomaly-drift.timer ;;
        esac
    fi
    [ -z "$DESTDIR" ] || return 0
    case $component in
        agent) echo "next: systemctl enable --now node-anomaly-agent, then http://localhost:9917/" ;;
        trainer) echo "next: set PROMETHEUS_URL in $settings/trainer.env, then systemctl enable --now node-anomaly-trainer.timer node-anomaly-drift.timer" ;;
    esac
}

do_uninstall() {
    [ -n "$DESTDIR" ] || [ "$(id -u)" = 0 ] || fail "only root may remove units" "sudo"
    if live; then
        for unit in $units; do
            systemctl disable --now "$unit" 2>/dev/null || true  # not installed, or not running
        done
    fi
    for unit in $units; do
        rm -f "$DESTDIR$UNITDIR/$unit"
    done
    remove_command
    rm -f "$DESTDIR$sysusers/node-anomaly-$component.conf"
    ! live || systemctl daemon-reload
    others=$(find "$DESTDIR$UNITDIR" -maxdepth 1 -name 'node-anomaly-*.service' 2>/dev/null || true)
    if [ -z "$others" ]; then
        rm -f "$DESTDIR$documents/install-systemd.md" "$DESTDIR$documents/network.conf"
        if [ -e "$DESTDIR$PREFIX/$mark" ]; then
            rm -rf "$DESTDIR$PREFIX"
        else
            rmdir -p "$DESTDIR$documents" 2>/dev/null || true
        fi
    fi
    if $purge; then
        rm -f "$DESTDIR$settings/$component.yml" "$DESTDIR$settings/$component.env"
        for unit in $units; do  # what `systemctl edit` made, and when a timer last ran
            rm -rf "$DESTDIR$UNITDIR/$unit.d" "$DESTDIR/var/lib/systemd/timers/stamp-$unit"
        done
        rm -rf "$DESTDIR$state"
        rmdir "$DESTDIR$settings" 2>/dev/null || true
        echo "removed the $component with its settings and $state"
    else
        echo "removed the $component; $settings and $state stay (--purge removes them), and so does its user"
    fi
}

case $verb in
    install) do_install ;;
    uninstall) do_uninstall ;;
    *) usage ;;
esac
