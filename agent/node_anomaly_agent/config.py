"""The agent's settings: frozen, typed, and checked completely before anything starts.

One table, `KEYS`, holds every setting's path, default and parser. The YAML file nests what a flag spells with
dots (`web: {listen-address: ":9917"}` is `--web.listen-address=:9917`), so neither can drift from the other.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_anomaly_core.errors import ConfigError

MAX_FILE_BYTES = 1 << 20
RATE_WINDOW_TICKS = 4
"""Rates span this many intervals: the trainer's PromQL uses the same."""

OWN_PROC = Path("/proc")
"""Where this process finds itself, whatever `path.procfs` says of the host."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TELEMETRY_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_RESERVED_PATHS = ("/-/healthy", "/-/ready", "/-/reload")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class InvalidValue(ValueError):  # noqa: N818  # it names the value, the loader makes the error of it
    """A value that its key cannot take; the message says what it should look like."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the web server listens; `host` is empty for every address of the machine."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: its dotted path (also the flag), how its value is read, and what it means."""

    path: str
    parse: Callable[[object], Any]
    default: Any
    help: str
    metavar: str = "VALUE"


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything the agent can be told. Durations are seconds; a path that is None is chosen at start."""

    interval_s: float
    listen_address: Address
    telemetry_path: str
    procfs: Path
    sysfs: Path
    rootfs: Path
    log_level: str
    log_format: str
    state_directory: Path | None
    bundle_directory: Path | None
    bundle_poll_interval_s: float
    node: str
    collectors: Mapping[str, bool]
    file: Path | None = None

    @property
    def window_s(self) -> float:
        """The span of a rate, in seconds."""
        return RATE_WINDOW_TICKS * self.interval_s


def parse_duration(value: object) -> float:
    """Seconds from `15s`, `1m30s`, `500ms` or a plain number.

    Raises InvalidValue with what a duration looks like.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidValue(f"expected a duration such as 15s or 1m, got {value!r}")
    if isinstance(value, str):
        text = value.strip()
        parts = _DURATION.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        raise InvalidValue(f"expected a duration such as 15s or 1m, got {value!r}") from None
    if not math.isfinite(seconds):
        raise InvalidValue(f"expected a duration such as 15s or 1m, got {value!r}")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest spelling that `parse_duration` reads back."""
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.12g}{unit}"
    return f"{seconds:.12g}s"


def parse_address(value: object) -> Address:
    """An address such as `:9917`, `127.0.0.1:9917` or `[::1]:9917`; port 0 lets the system choose one."""
    if not isinstance(value, str):
        raise InvalidValue(f"expected HOST:PORT or :PORT, got {value!r}")
    host, colon, port = value.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed):
        raise InvalidValue(f"expected HOST:PORT, [IPV6]:PORT or :PORT, got {value!r}")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InvalidValue(f"expected a port from 0 to 65535 after the last colon, got {value!r}")
    return Address(host[1:-1] if bracketed else host, int(port))


def _between(low: float, high: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        seconds = parse_duration(value)
        if not low <= seconds <= high:
            limits = f"{format_duration(low)} to {format_duration(high)}"
            raise InvalidValue(f"must be from {limits}, got {value!r}")
        return seconds

    return parse


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = str(value).lower()
        if text not in choices:
            raise InvalidValue(f"must be one of {', '.join(choices)}, got {value!r}")
        return text

    return parse


def _path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise InvalidValue(f"expected a path, got {value!r}")
    path = Path(value)
    if not path.is_absolute():
        raise InvalidValue(f"expected an absolute path, got {str(value)!r}")
    return path


def _flag_path(value: object) -> Path:
    """A path whose meaning must not depend on where the daemon was started, made absolute once."""
    if not isinstance(value, str | Path) or not str(value):
        raise InvalidValue(f"expected a directory, got {value!r}")
    return Path(value).expanduser().absolute()


def _telemetry_path(value: object) -> str:
    if not isinstance(value, str) or not _TELEMETRY_PATH.fullmatch(value):
        raise InvalidValue(f"expected a path such as /metrics, got {value!r}")
    if value in _RESERVED_PATHS:
        raise InvalidValue(f"{value} is taken by a probe")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidValue(f"expected a name, got {value!r}")
    return value.strip()


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise InvalidValue(f"expected true or false, got {value!r}")


KEYS: tuple[Setting, ...] = (
    Setting("interval", _between(0.1, 3600), 15.0, "time between two evaluations", "DURATION"),
    Setting(
        "web.listen-address",
        parse_address,
        Address("", 9917),
        "address to expose metrics and the status page on",
        "[HOST]:PORT",
    ),
    Setting("web.telemetry-path", _telemetry_path, "/metrics", "path of the metrics", "PATH"),
    Setting("path.procfs", _path, Path("/proc"), "procfs mountpoint", "DIR"),
    Setting("path.sysfs", _path, Path("/sys"), "sysfs mountpoint", "DIR"),
    Setting("path.rootfs", _path, Path("/"), "mountpoint of the host's root file system", "DIR"),
    Setting("log.level", _one_of("debug", "info", "warning", "error"), "info", "least severe line", "LEVEL"),
    Setting(
        "log.format",
        _one_of("auto", "json", "console"),
        "auto",
        "form of log lines: json, console, or auto (console on a terminal)",
        "FORMAT",
    ),
    Setting(
        "state.directory",
        _flag_path,
        None,
        "where baselines survive a restart (default: $STATE_DIRECTORY, /var/lib/node-anomaly or "
        "$XDG_STATE_HOME/node-anomaly, the first that is writable)",
        "DIR",
    ),
    Setting(
        "bundle.directory",
        _flag_path,
        None,
        "watched directory that published bundles arrive in (default: bundles in the state directory)",
        "DIR",
    ),
    Setting(
        "bundle.poll-interval",
        _between(1, 86400),
        30.0,
        "how often the directory is looked at besides being watched",
        "DURATION",
    ),
    Setting(
        "node.name",
        _name,
        "",
        "the node's name in the training history (default: $NODE_NAME or the host name)",
        "NAME",
    ),
)


def load_config(
    path: Path | None, overrides: Mapping[str, object], collectors: Mapping[str, bool]
) -> AgentConfig:
    """Defaults, then the file, then the flags.

    `overrides` maps dotted paths to raw values as the flags gave them. `collectors` maps each collector's
    name to whether it is on by default.

    Raises ConfigError: the file cannot be read, or every problem found in it, each with its key's path.
    """
    document = {} if path is None else _read(path)
    known = [setting.path for setting in KEYS] + [f"collector.{name}" for name in collectors]
    values: dict[str, object] = {}
    problems: list[ConfigError] = []
    for key, value in _flatten(document, known, problems).items():
        if key in known:
            values[key] = value
        else:
            problems.append(_unknown(key, known))
    values.update(overrides)
    parsed: dict[str, Any] = {}
    for setting in KEYS:
        parsed[setting.path] = setting.default
        if setting.path in values:
            _parse(setting.path, setting.parse, values[setting.path], parsed, problems)
    switches: dict[str, bool] = {}
    for name, default in collectors.items():
        switches[name] = default
        key = f"collector.{name}"
        if key in values:
            into: dict[str, bool] = {}
            _parse(key, _switch, values[key], into, problems)
            switches[name] = into.get(key, default)
    if problems:
        raise _gather(problems, path)
    return AgentConfig(
        interval_s=parsed["interval"],
        listen_address=parsed["web.listen-address"],
        telemetry_path=parsed["web.telemetry-path"],
        procfs=parsed["path.procfs"],
        sysfs=parsed["path.sysfs"],
        rootfs=parsed["path.rootfs"],
        log_level=parsed["log.level"],
        log_format=parsed["log.format"],
        state_directory=parsed["state.directory"],
        bundle_directory=parsed["bundle.directory"],
        bundle_poll_interval_s=parsed["bundle.poll-interval"],
        node=parsed["node.name"],
        collectors=switches,
        file=path,
    )


def _parse(
    key: str,
    parse: Callable[[object], Any],
    value: object,
    into: dict[str, Any],
    problems: list[ConfigError],
) -> None:
    try:
        into[key] = parse(value)
    except InvalidValue as error:
        problems.append(ConfigError(f"{key}: {error}"))


def _read(path: Path) -> object:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"config file {path} does not exist",
            "correct --config.file, or leave it out to run with defaults",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"config file {path} cannot be read: {error.strerror}",
            "point --config.file at a YAML file that this user may read",
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"config file {path} is larger than 1 MiB", "check that this is the right file")
    import yaml  # 0.9 MiB that an agent without a file does without

    try:
        # RecursionError: safe_load nests as deep as the file does.
        return yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"config file {path} is not valid YAML: {_one_line(error)}",
            "indent with spaces and quote values that start with a special character",
        ) from None


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    what = getattr(error, "problem", None) or str(error) or type(error).__name__
    return where + " ".join(str(what).split())


def _flatten(document: object, known: Collection[str], problems: list[ConfigError]) -> dict[str, object]:
    """Nested mappings to dotted paths. A null section is an empty one, as a commented-out file has it."""
    flat: dict[str, object] = {}
    sections = {path[: match.start()] for path in known for match in re.finditer(r"\.", path)}

    def walk(prefix: str, node: object) -> None:
        if isinstance(node, Mapping):
            for name, child in node.items():
                walk(f"{prefix}.{name}" if prefix else str(name), child)
        elif prefix in sections or not prefix:
            if node is not None:
                where = f"{prefix}: expected" if prefix else "the file must hold"
                problems.append(ConfigError(f"{where} a mapping of settings, got {type(node).__name__}"))
        elif prefix in flat:
            problems.append(ConfigError(f"{prefix}: given twice"))
        else:
            flat[prefix] = node

    walk("", document)
    return flat


def _unknown(key: str, known: Collection[str]) -> ConfigError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if not near:  # `listen-address` means web.listen-address
        near = [path for path in known if path.rpartition(".")[2] == key.rpartition(".")[2]][:1]
    suggestion = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
    return ConfigError(f"{key}: unknown key ({suggestion})")


def _gather(problems: list[ConfigError], path: Path | None) -> ConfigError:
    where = (
        f"correct {path} and run check-config again"
        if path
        else "see --help for the flags and their defaults"
    )
    return ConfigError("; ".join(problem.message for problem in problems), where)
