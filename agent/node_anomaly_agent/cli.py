"""The command line: an exporter's flags, and a few commands for people."""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from node_anomaly_agent.assembly import (
    choose_bundle_directory,
    choose_state_directory,
    collector_switches,
    require_procfs,
    uses_exporter,
)
from node_anomaly_agent.config import KEYS, USUAL_FILE, AgentConfig, file_of, format_duration, load_config
from node_anomaly_agent.config_budget import describe_budget
from node_anomaly_agent.config_distribution import describe_distribution
from node_anomaly_agent.config_episodes import describe_episodes
from node_anomaly_agent.config_logs import describe_logs, maybe
from node_anomaly_agent.config_suppressors import describe_suppressors
from node_anomaly_agent.config_web import describe_web
from node_anomaly_agent.standard_output import (
    STANDARD_OUTPUT,
    discard_output,
    flush_output,
    named_output,
)
from node_anomaly_core.errors import AnomalyError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

FAILED = 1
MAX_SHOWN_LINES = 100
_EXPLAIN = "ask the agent that runs why its score is what it is"
_OVERRIDE = "override:"  # namespace keys of settings, apart from everything else argparse stores


class _Parser(argparse.ArgumentParser):
    """argparse exits with 2 for a wrong flag, which `--once` gives for an anomalous node."""

    def refuse_unknown_flags(self, arguments: Sequence[str]) -> None:
        """Argparse names no flag that is near, and takes the value of an unknown one for a command."""
        known = _flags_of(self)
        for argument in arguments:
            name = argument.partition("=")[0]
            if name == "--":
                return
            if name.startswith("--") and name not in known:
                near = difflib.get_close_matches(name, known, 1)
                self.error(f"unknown flag {name}" + (f" (did you mean {near[0]}?)" if near else ""))

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"error: {message}\ntry: {self.prog.split()[0]} --help\n")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Argparse does not mind that --help and --version could not be written."""
        if file is None or file is sys.stderr:
            super()._print_message(message, file)
        else:
            file.write(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    _show_whatever_is_printed()
    with named_output():
        return _carry_out(arguments)


def _carry_out(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    parser.refuse_unknown_flags(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            parsed = vars(parser.parse_args(arguments))
        finally:
            flush_output()  # --help and --version leave by an exception
        code = _run(parsed)
        flush_output()
        return code
    except AnomalyError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"try: {error.hint}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone
        discard_output()
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        hint = "another path, or ask as root or as the agent's user"
        if error.filename == STANDARD_OUTPUT:
            discard_output()
            hint = "free space where it is sent to, or send it elsewhere"
        print(f"try: {hint}", file=sys.stderr)
        return FAILED


def _show_whatever_is_printed() -> None:
    """What this terminal has no letters for is shown as an escape, as on stderr, and is no traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """Of the parser and of all its commands."""
    found: set[str] = set()
    for action in parser._actions:  # noqa: SLF001 -- argparse has no other way to ask
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            found.update(*(_flags_of(one) for one in action.choices.values()))
    return found


def build_parser() -> _Parser:
    """The parser; settings are the table in config.py, so that flags and file cannot differ."""
    settings = _Parser(add_help=False, allow_abbrev=False)
    _add_settings(settings)
    parser = _Parser(
        prog="anomaly-agent",
        description="Scores this node with a published bundle and exposes the result to Prometheus.",
        epilog="Without a command it runs as a daemon. Exit codes of --once: 0 normal, 1 error, 2 anomalous, "
        "3 not warm.",
        allow_abbrev=False,
        parents=[settings],
    )
    parser.add_argument("--version", action="version", version=f"anomaly-agent {agent_version()}")
    parser.add_argument("--once", action="store_true", help="evaluate once, print why, and exit")
    parser.add_argument(
        "--output", choices=("table", "json", "prom"), default="table", help="form of --once (default: table)"
    )
    parser.add_argument(
        "--show-lines",
        type=int,
        default=0,
        metavar="N",
        help="with --once: also print up to N log lines of new patterns, secrets masked",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    commands.add_parser(
        "check-config", parents=[settings], allow_abbrev=False, help="check the settings, print them and exit"
    )
    features = commands.add_parser(
        "features",
        parents=[settings],
        allow_abbrev=False,
        help="list the features and what this host has of them",
    )
    features.add_argument("--output", choices=("table", "json"), default="table")
    features.add_argument(
        "--promql.matchers", dest="matchers", default="", metavar="MATCHERS", help='such as job="node"'
    )
    episodes = commands.add_parser(
        "episodes", parents=[settings], allow_abbrev=False, help="list recorded alarms, or show one"
    )
    episodes.add_argument("episode", nargs="?", default="", metavar="ID", help="one of the list, or `latest`")
    episodes.add_argument("--json", action="store_true", dest="as_json", help="as JSON")
    _add_explain(commands.add_parser("explain", parents=[settings], allow_abbrev=False, help=_EXPLAIN))
    bundle = commands.add_parser("bundle", allow_abbrev=False, help="verify, show or activate a bundle")
    actions = bundle.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text, what, meaning in (
        ("verify", "say whether this agent accepts it", "PATH", "a bundle, or a directory of bundles"),
        ("show", "print its manifest", "PATH", "a bundle, or a directory of bundles"),
        (
            "activate",
            "switch to a version, also to an older one",
            "VERSION",
            "one of the watched directory's",
        ),
    ):
        action = actions.add_parser(name, parents=[settings], allow_abbrev=False, help=text)
        action.add_argument("path", type=Path, metavar=what, help=meaning)
    return parser


def _add_explain(explain: argparse.ArgumentParser) -> None:
    explain.epilog = "Exit codes: 0 normal, 1 error, 2 anomalous, 3 not warm."
    explain.add_argument("--url", default="", help="of the agent (default: web.listen-address on this node)")
    explain.add_argument("--user", default="", metavar="NAME", help="where the agent asks for one")
    explain.add_argument("--password-file", type=Path, metavar="FILE", help="holds the user's password")
    explain.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM certificates that an https url is held to"
    )
    explain.add_argument("--top", type=int, default=8, metavar="N", help="features to show (default: 8)")
    explain.add_argument("--output", choices=("table", "json"), default="table")


def agent_version() -> str:
    """The installed distribution's version."""
    try:
        return version("node-anomaly")
    except PackageNotFoundError:
        return "unknown"


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings (each also a key of the config file)")
    group.add_argument(
        "--config.file",
        dest="config_file",
        default=argparse.SUPPRESS,
        metavar="FILE",
        help=f"YAML file of settings (default: {USUAL_FILE} where it exists; empty: none)",
    )
    for setting in KEYS:
        default = "" if setting.default in (None, "", ()) else f" (default: {_show(setting.default)})"
        if setting.parse is maybe or not setting.metavar:
            _add_switch(group, setting.path, setting.help)
            continue
        group.add_argument(
            f"--{setting.path}",
            dest=_OVERRIDE + setting.path,
            default=argparse.SUPPRESS,
            metavar=setting.metavar,
            action="append" if setting.repeat else "store",
            help=(setting.help + default).replace("%", "%%"),
        )
    for name, enabled in collector_switches().items():
        _add_switch(group, f"collector.{name}", f"collect {name} (default: {'on' if enabled else 'off'})")


def _add_switch(group: argparse._ArgumentGroup, path: str, text: str) -> None:
    """`--PATH` and `--no-PATH`."""
    for prefix, action, shown in (("", "store_true", text), ("no-", "store_false", argparse.SUPPRESS)):
        group.add_argument(
            f"--{prefix}{path}",
            dest=_OVERRIDE + path,
            action=action,
            default=argparse.SUPPRESS,
            help=shown,
        )


def _show(value: object) -> str:
    return format_duration(value) if isinstance(value, float) else str(value)


def _run(parsed: Mapping[str, object]) -> int:
    command = parsed["command"]
    named = parsed.get("config_file")
    overrides = {key.removeprefix(_OVERRIDE): v for key, v in parsed.items() if key.startswith(_OVERRIDE)}
    file = file_of(None if named is None else str(named))
    config = load_config(file, overrides, collector_switches(), os.environ)
    if command == "bundle":
        return _bundle(config, str(parsed["action"]), Path(str(parsed["path"])))
    if command == "check-config":
        require_procfs(config)
        print(_describe(config), end="")
        return 0
    if command == "features":
        return _features(config, str(parsed["output"]), str(parsed["matchers"]))
    if command == "episodes":
        return _episodes(config, str(parsed["episode"]), as_json=bool(parsed["as_json"]))
    if command == "explain":
        return _explain(config, parsed)
    if parsed["once"]:
        require_procfs(config)
        from node_anomaly_agent.clock import SystemClock
        from node_anomaly_agent.once import run_once

        output, lines = str(parsed["output"]), _lines(parsed)
        return run_once(config, output, agent_version(), SystemClock(), os.environ, lines)
    from node_anomaly_agent.assembly import run_daemon

    return run_daemon(config, agent_version())


def _lines(parsed: Mapping[str, object]) -> int:
    return max(0, min(int(str(parsed["show_lines"])), MAX_SHOWN_LINES))


def _describe(config: AgentConfig) -> str:
    state = choose_state_directory(config, os.environ)
    off = [name for name, enabled in config.collectors.items() if not enabled]
    own = [one.feature.name for one in config.own_features]
    rows = [
        ("interval", format_duration(config.interval_s)),
        ("web.listen-address", config.listen_address),
        ("web.telemetry-path", config.telemetry_path),
        ("path.procfs", config.procfs),
        ("path.sysfs", config.sysfs),
        ("path.rootfs", config.rootfs),
        ("log.level", config.log_level),
        ("log.format", config.log_format),
        ("state.directory", state or "none: nowhere is writable, so history ends with the process"),
        ("bundle.directory", choose_bundle_directory(config, state)),
        ("bundle.poll-interval", format_duration(config.bundle_poll_interval_s)),
        *describe_web(config.web),
        *describe_distribution(config.distribution),
        *describe_logs(config.logs),
        *describe_episodes(config.episodes),
        *describe_budget(config.budget),
        *describe_suppressors(config.suppressors),
        ("source", config.source),
        *(
            [("node-exporter.url", config.node_exporter_url.partition("?")[0])]
            if uses_exporter(config)
            else []
        ),
        ("collectors off", ", ".join(off) or "none"),
        *([("features.file", config.features_file)] if config.features_file else []),
        *([("own features", ", ".join(own))] if own else []),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([f"ok: {config.file or 'no config file, defaults and flags'}", *lines]) + "\n"


def _features(config: AgentConfig, output: str, matchers: str) -> int:
    from node_anomaly_agent.assembly import build_logs, build_sampler
    from node_anomaly_agent.clock import SystemClock
    from node_anomaly_agent.features_command import complaints, look_at_features, render_features

    sampler = build_sampler(config, build_logs(config))
    try:
        found, collectors = look_at_features(sampler, config.features, SystemClock())
    finally:
        sampler.close()
    print(render_features(found, collectors, output, format_duration(config.window_s), matchers), end="")
    if output == "json":  # which is for programs, and only holds features
        for line in complaints(collectors, missing=False):
            print(line, file=sys.stderr)
    return 0


def _episodes(config: AgentConfig, name: str, *, as_json: bool) -> int:
    from node_anomaly_agent.episode_commands import find_directory, list_episodes, show_episode
    from node_anomaly_agent.state import state_directories

    directory = find_directory(state_directories(config.state_directory, os.environ))
    if name:
        print(show_episode(directory, name, as_json=as_json), end="")
        return 0
    text, complaints = list_episodes(directory, as_json=as_json)
    print(text, end="")
    for line in complaints:
        print(line, file=sys.stderr)
    return 0


def _explain(config: AgentConfig, parsed: Mapping[str, object]) -> int:
    from node_anomaly_agent.explain_command import Access, ask, exit_code, local_url, render

    password, ca = (cast("Path | None", parsed[name]) for name in ("password_file", "ca_file"))
    url = str(parsed["url"]) or local_url(config.listen_address)
    document = ask(Access(url, str(parsed["user"]), password, ca))
    if parsed["output"] == "json":
        print(json.dumps(document, indent=2))
    else:
        print(render(document, max(1, int(str(parsed["top"])))), end="")
    return exit_code(document)


def _bundle(config: AgentConfig, action: str, path: Path) -> int:
    from node_anomaly_agent.bundle_commands import show_table, verify_line

    keys = config.distribution.trusted_keys
    if action == "activate":
        from node_anomaly_agent.bundle_activate import activate_line

        state = choose_state_directory(config, os.environ)
        bundles = choose_bundle_directory(config, state)
        print(activate_line(str(path), bundles, state, config), end="")
    elif action == "verify":
        print(verify_line(path, config.features, keys), end="")
    else:
        print(show_table(path, keys), end="")
    return 0
