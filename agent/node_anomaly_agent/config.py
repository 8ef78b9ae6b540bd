"""The agent's settings: frozen, typed, and checked completely before anything starts.

One table, `KEYS` of config_keys.py, holds every setting's path, default and parser. The YAML file nests what
a flag spells with dots (`web: {listen-address: ":9917"}` is `--web.listen-address=:9917`), so neither can
drift from the other.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node_anomaly_agent.bounded_file import read_given
from node_anomaly_agent.config_budget import BudgetConfig
from node_anomaly_agent.config_distribution import DistributionConfig
from node_anomaly_agent.config_episodes import EpisodesConfig
from node_anomaly_agent.config_keys import KEYS
from node_anomaly_agent.config_logs import LogsConfig
from node_anomaly_agent.config_suppressors import SECTION, Suppressor, parse_suppressors
from node_anomaly_agent.config_values import (
    Address,
    InvalidValue,
    Setting,
    format_duration,
    parse_address,
    parse_duration,
    switch,
)
from node_anomaly_agent.config_web import WebConfig
from node_anomaly_core.errors import ConfigError
from node_anomaly_core.features import CATALOGUE, Feature

if TYPE_CHECKING:
    from node_anomaly_core.own_features import OwnFeature

__all__ = [
    "KEYS",
    "OWN_PROC",
    "RATE_WINDOW_TICKS",
    "Address",
    "AgentConfig",
    "InvalidValue",
    "Setting",
    "format_duration",
    "load_config",
    "parse_address",
    "parse_duration",
    "read_yaml",
]

MAX_FILE_BYTES = 1 << 20
RATE_WINDOW_TICKS = 4
"""Rates span this many intervals: the trainer's PromQL uses the same."""

OWN_PROC = Path("/proc")
"""Where this process finds itself, whatever `path.procfs` says of the host."""


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
    source: str
    node_exporter_url: str
    features_file: Path | None = None
    own_features: tuple[OwnFeature, ...] = ()
    distribution: DistributionConfig = field(default_factory=DistributionConfig)
    logs: LogsConfig = field(default_factory=LogsConfig)
    web: WebConfig = field(default_factory=WebConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    suppressors: tuple[Suppressor, ...] = ()
    systemd_socket: bool | None = None
    file: Path | None = None

    @property
    def window_s(self) -> float:
        """The span of a rate, in seconds."""
        return RATE_WINDOW_TICKS * self.interval_s

    @property
    def features(self) -> tuple[Feature, ...]:
        """Everything this agent can supply to a bundle: the catalogue, then the user's own."""
        return CATALOGUE + tuple(own.feature for own in self.own_features)


_SPELLINGS = {"node_exporter.url": "node-exporter.url"}
"""The exporter is spelt with an underscore everywhere else."""


USUAL_FILE = Path("/etc/node-anomaly/agent.yml")
"""Where an installed agent has its settings: read where it exists and no file is named."""

FROM_ENVIRONMENT = {"HOST_PROC": "path.procfs", "HOST_SYS": "path.sysfs", "HOST_ROOT": "path.rootfs"}
"""Variables that say where a container has the host mounted, as gopsutil spells them."""


def file_of(named: str | None, usual: Path = USUAL_FILE) -> Path | None:
    """The settings file: the one that was named, none for an empty name, else the usual one if it exists."""
    if named is None:
        return usual if os.path.isfile(usual) else None  # noqa: PTH113 -- False, too, where it is forbidden
    return Path(named) if named else None


def load_config(
    path: Path | None,
    overrides: Mapping[str, object],
    collectors: Mapping[str, bool],
    environ: Mapping[str, str] | None = None,
) -> AgentConfig:
    """Defaults, then the environment, then the file, then the flags.

    `overrides` maps dotted paths to raw values as the flags gave them. `collectors` maps each collector's
    name to whether it is on by default. `environ` may hold what FROM_ENVIRONMENT names; empty is not set.

    Raises ConfigError: the file cannot be read, or every problem found in it, each with its key's path.
    """
    document, inline = _without_own({} if path is None else read_yaml(path))
    suppressed: object = None
    if isinstance(document, Mapping):
        suppressed = document.get(SECTION)
        document = {key: value for key, value in document.items() if key != SECTION}
    known = [setting.path for setting in KEYS] + [f"collector.{name}" for name in collectors]
    values: dict[str, object] = {}
    problems: list[ConfigError] = []
    for spelt, value in _flatten(document, [*known, *_SPELLINGS], problems).items():
        key = _SPELLINGS.get(spelt, spelt)
        if key in known:
            values[key] = value
        else:
            problems.append(_unknown(key, [*known, SECTION]))
    values.update(overrides)
    given = {key: (environ or {}).get(variable, "") for variable, key in FROM_ENVIRONMENT.items()}
    parsed: dict[str, Any] = {}
    for setting in KEYS:
        parsed[setting.path] = setting.default
        if setting.path in values:
            _parse(setting.path, setting.parse, values[setting.path], parsed, problems)
        elif given.get(setting.path):
            _parse_variable(setting, given[setting.path], parsed, problems)
    switches: dict[str, bool] = {}
    for name, default in collectors.items():
        switches[name] = default
        key = f"collector.{name}"
        if key in values:
            into: dict[str, bool] = {}
            _parse(key, switch, values[key], into, problems)
            switches[name] = into.get(key, default)
    _check_switches(parsed["source"], switches, collectors, problems)
    own = _own_features(inline, parsed["features.file"], problems)
    names = [feature.name for feature in CATALOGUE] + [one.feature.name for one in own]
    suppressors = parse_suppressors(suppressed, names, problems)
    distribution = DistributionConfig.of(parsed)
    problems += [ConfigError(problem) for problem in distribution.problems()]
    if problems:
        raise _gather(problems, path)
    return AgentConfig(
        interval_s=parsed["interval"],
        listen_address=parsed["web.listen-address"],
        systemd_socket=parsed["web.systemd-socket"],
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
        source=parsed["source"],
        node_exporter_url=parsed["node-exporter.url"],
        features_file=parsed["features.file"],
        own_features=own,
        suppressors=suppressors,
        distribution=distribution,
        logs=LogsConfig.of(parsed),
        web=WebConfig.of(parsed),
        budget=BudgetConfig.of(parsed),
        episodes=EpisodesConfig.of(parsed),
        file=path,
    )


def _without_own(document: object) -> tuple[object, object]:
    """The document without the features described in it, and these: `features` may be a list of them."""
    if not isinstance(document, Mapping) or not isinstance(document.get("features"), list):
        return document, None
    return {key: value for key, value in document.items() if key != "features"}, document["features"]


def _own_features(inline: object, file: Path | None, problems: list[ConfigError]) -> tuple[OwnFeature, ...]:
    """The features of the config file and those of the file that is shared with the trainer."""
    if not inline and file is None:
        return ()
    from node_anomaly_core.own_features import name_clashes, parse_own_document, parse_own_features

    found: list[OwnFeature] = []
    before = len(problems)
    try:
        found += parse_own_features(inline, "features")
    except ConfigError as error:
        problems.append(error)
    try:
        if file is not None:
            found += parse_own_document(read_yaml(file, "features.file"), str(file))
    except ConfigError as error:
        problems.append(error)
    if len(problems) == before:
        clashes = name_clashes([own.feature.name for own in found], "features")
        problems += [ConfigError(clash) for clash in clashes]
    return tuple(found)


def _check_switches(
    source: str, switches: Mapping[str, bool], defaults: Mapping[str, bool], problems: list[ConfigError]
) -> None:
    """A collector that is switched while nothing uses it was meant to do something."""
    if source == "proc":
        return
    for name, enabled in switches.items():
        if enabled != defaults[name]:
            what = "has no effect with source node_exporter: set it there, with its own flags"
            problems.append(ConfigError(f"collector.{name}: {what}"))


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


def _parse_variable(setting: Setting, value: str, into: dict[str, Any], problems: list[ConfigError]) -> None:
    variable = next(name for name, key in FROM_ENVIRONMENT.items() if key == setting.path)
    try:
        into[setting.path] = setting.parse(value)
    except InvalidValue as error:
        problems.append(ConfigError(f"${variable}: {error}", f"correct {variable} in the environment"))


def read_yaml(path: Path, flag: str = "config.file") -> object:
    """What a YAML file of at most 1 MiB holds; `flag` is the setting that named it. Raises ConfigError."""
    what = "config file" if flag == "config.file" else f"{flag}: file"
    try:
        content = read_given(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        raise ConfigError(
            f"{what} {path} does not exist",
            f"correct --{flag}, or leave it out to run with defaults",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{what} {path} cannot be read: {error.strerror}",
            f"point --{flag} at a YAML file that this user may read",
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{what} {path} is larger than 1 MiB", "check that this is the right file")
    import yaml  # 0.9 MiB that an agent without a file does without

    from node_anomaly_agent.yaml_loader import parse_yaml

    try:
        return parse_yaml(content)
    except ConfigError as error:
        raise ConfigError(f"{what} {path}: {error.message}", error.hint) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{what} {path} is not valid YAML: {_one_line(error)}",
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
    hints = {problem.hint for problem in problems}  # one that all of them share says more
    return ConfigError(
        "; ".join(problem.message for problem in problems), (hints.pop() if len(hints) == 1 else "") or where
    )
