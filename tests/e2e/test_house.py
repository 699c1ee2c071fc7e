"""The house itself: arrows between rooms point down, lints stand once, and what is packaged agrees with the program."""

import re
import shlex
import subprocess
import tomllib

import pytest
import yaml

from server import MUSTER, REPOSITORY

# From the top; a room uses only rooms on floors below its own. ARCHITECTURE.md draws the same picture.
FLOORS = [{"muster"}, {"control", "bench"}, {"ota", "defender", "shadow"}, {"broker"}, {"fleet"}, {"policy", "ca", "store"}]
# Apart from the house: what each may use, by the features it may ask for.
# `bench` stands where `muster` may use it and uses nothing, so that every broker gets the same load.
APART = {"agent": {"ota"}, "bench": set(), "fuzz": {"broker", "ca", "ota", "policy", "shadow"},
         "instructions": {"broker", "policy"}, "scale": {"broker", "fleet", "store", "ca", "policy"}, "simulate": {"broker", "fleet", "store", "ca", "policy"}}
PURE_ONLY = {("agent", "ota"), ("fuzz", "ota"), ("fuzz", "shadow")}
TABLES = ("dependencies", "dev-dependencies", "build-dependencies")

WORKSPACE = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())
MEMBERS = WORKSPACE["workspace"]["members"]


def room(package):
    return package.removeprefix("muster-")


def manifests():
    """Each member's manifest by the name of its room."""
    read = [tomllib.loads((REPOSITORY / member / "Cargo.toml").read_text()) for member in MEMBERS]
    return {room(manifest["package"]["name"]): manifest for manifest in read}


def arrows(manifest, rooms):
    """The rooms a manifest names in any table of dependencies: (room, table, how it is asked for)."""
    places = [manifest, *manifest.get("target", {}).values()]
    for place in places:
        for table in TABLES:
            for name, how in place.get(table, {}).items():
                named = how.get("package", name) if isinstance(how, dict) else name
                if room(named) in rooms and (named == "muster" or named.startswith("muster-")):
                    yield room(named), table, how if isinstance(how, dict) else {}


def wrong_arrows(all_manifests):
    """What is wrong, one sentence each."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    wrong = [f"{name} stands on no floor" for name in all_manifests if name not in floor and name not in APART]
    for name, manifest in all_manifests.items():
        for target, table, how in arrows(manifest, all_manifests):
            if name in APART:
                if target not in APART[name]:
                    wrong.append(f"{name} is apart and uses {target} ({table})")
                elif (name, target) in PURE_ONLY and ("server" in how.get("features", []) or how.get("default-features") is True):
                    wrong.append(f"{name} uses more of {target} than its pure half ({table})")
            elif name in floor and not floor[name] < floor.get(target, -1):
                wrong.append(f"{name} uses {target}, which is not below it ({table})")
    return wrong


def test_every_arrow_between_rooms_points_down():
    assert wrong_arrows(manifests()) == []


@pytest.mark.parametrize("name, table, target, how", [
    ("fleet", "dependencies", "broker", {}),
    ("store", "dev-dependencies", "fleet", {}),
    ("policy", "dependencies", "ca", {}),
    ("ota", "build-dependencies", "defender", {}),
    ("broker", "dependencies", "ota", {"optional": True}),
    ("broker", "dependencies", "agent", {}),
    ("agent", "dependencies", "policy", {}),
    ("bench", "dependencies", "broker", {}),
    ("control", "dependencies", "bench", {}),
    ("agent", "dependencies", "ota", {"features": ["server"]}),
])
def test_a_wrong_arrow_is_seen(name, table, target, how):
    changed = manifests()
    changed[name].setdefault(table, {})[f"muster-{target}"] = {"workspace": True, **how}
    assert len(wrong_arrows(changed)) == 1


def test_a_renamed_or_platforms_arrow_is_seen_too():
    changed = manifests()
    changed["ca"]["target"] = {"cfg(unix)": {"dependencies": {"hidden": {"package": "muster-broker", "path": "../broker"}}}}
    assert wrong_arrows(changed) == ["ca uses broker, which is not below it (dependencies)"]


def test_the_shared_entry_of_the_agents_dependency_is_the_pure_half():
    """A member that inherits cannot take default features away again: they must be off where they are shared."""
    for name in ("muster-ota", "muster-broker", "muster-shadow"):
        assert WORKSPACE["workspace"]["dependencies"][name]["default-features"] is False


def test_what_muster_is_compared_with_is_none_of_its_dependencies():
    compared = tomllib.loads((REPOSITORY / "tests/compare/Cargo.toml").read_text())
    assert "workspace" in compared and "tests/compare" not in MEMBERS, "it stands apart, with a lock of its own"
    others = set(compared["dependencies"]) - {"muster-policy", "serde_json"}
    locked = {package["name"] for package in tomllib.loads((REPOSITORY / "Cargo.lock").read_text())["package"]}
    assert others and not others & locked


def test_lints_stand_in_the_workspace_and_every_room_takes_them():
    lints = WORKSPACE["workspace"]["lints"]
    assert lints["rust"]["unsafe_code"] == "forbid"
    for name in ("unwrap_used", "expect_used", "panic", "indexing_slicing", "todo"):
        assert lints["clippy"][name] == "deny", name
    assert [name for name, manifest in manifests().items() if manifest.get("lints") != {"workspace": True}] == []


def test_an_exception_from_a_lint_carries_its_reason():
    bare = []
    for source in REPOSITORY.glob("*/src/**/*.rs"):
        for attribute in re.findall(r"#!?\[(?:allow|expect)\((.*?)\)\]", source.read_text(), re.S):
            if "reason" not in attribute:
                bare.append(f"{source.relative_to(REPOSITORY)}: {attribute.strip()}")
    assert bare == []


@pytest.mark.parametrize("member", MEMBERS)
def test_every_room_says_its_job_and_its_neighbours(member):
    source = next(path for name in ("lib.rs", "main.rs") if (path := REPOSITORY / member / "src" / name).exists())
    said = []
    for line in source.read_text().splitlines():
        if not line.startswith("//!") or line.strip() == "//! ```":
            break
        said.append(line.removeprefix("//!").strip())
    words = [line for line in said if line]
    assert 3 <= len(words) <= 7, words
    text = " ".join(words)
    others = {room(name) for name in FLOORS[0].union(*FLOORS[1:])} - {member}
    assert any(f"`{name}`" in text for name in others) or "Neighbours: none" in text, text


# -- what is packaged

def default_ports():
    """The program's own, as its help says them."""
    said = subprocess.run([MUSTER, "serve", "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=True).stdout
    joined = " ".join(said.split())
    found = {flag: int(port) for flag, port in re.findall(r"--(mqtt|wss|https|http) <[^>]*> [^\[]*?\[default: \[::\]:(\d+)\]", joined)}
    assert set(found) == {"mqtt", "wss", "https", "http"}, said
    return found


def accepted(arguments):
    """Whether the program takes this command line; `--help` at its end keeps it from doing anything."""
    done = subprocess.run([MUSTER, *arguments, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    return done.returncode == 0


def flags(arguments):
    """`--flag VALUE` pairs, in order."""
    return [(a, b) for a, b in zip(arguments, arguments[1:], strict=False) if a.startswith("--")]


def help_flags(verb):
    said = subprocess.run([MUSTER, *verb, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=True).stdout
    return set(re.findall(r"--[a-z-]+", said))


@pytest.fixture(scope="module")
def service():
    document = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    assert set(document["services"]) == {"muster"}
    return {**document["services"]["muster"], "declared": document["volumes"]}


@pytest.fixture(scope="module")
def dockerfile():
    """Instructions in order: (word, rest)."""
    text = re.sub(r"\\\n", " ", (REPOSITORY / "Dockerfile").read_text())
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def values(dockerfile, word):
    return [rest for name, rest in dockerfile if name == word]


def test_compose_publishes_the_programs_ports_and_no_other(service):
    published = [entry.split(":") for entry in service["ports"]]
    assert sorted(int(inside) for _, inside in published) == sorted(default_ports().values())
    assert all(outside == inside for outside, inside in published), "a device must find it where the certificate's URLs say"


def test_compose_runs_the_program_with_flags_it_has(service):
    command = service["command"]
    assert command[0] == "serve" and accepted(command[:1])
    assert {flag for flag, _ in flags(command)} <= help_flags(["serve"])
    names = [value for flag, value in flags(command) if flag == "--name"]
    assert names[0] == "localhost", "the health check dials the first name from within"
    assert any("MUSTER_NAME" in name for name in names)


def test_compose_keeps_the_data_on_a_volume(service):
    data = dict(flags(service["command"]))["--data"]
    (volume,) = service["volumes"]
    source, place = volume.split(":")
    assert place == data and source in service["declared"]


def test_composes_health_check_is_a_verb_that_asks_the_same_server(service):
    check = service["healthcheck"]["test"]
    assert check[:2] == ["CMD", "muster"]
    assert accepted(check[2:3]) and dict(flags(check))["--data"] == dict(flags(service["command"]))["--data"]
    grace = int(service["stop_grace_period"].removesuffix("s"))
    drain = int(re.search(r"DRAIN_LIMIT: Duration = Duration::from_secs\((\d+)\)", (REPOSITORY / "muster/src/serve/mod.rs").read_text())[1])
    assert grace > 2 * drain, "requests, then sessions, may take the limit each"


def test_the_dockerfile_builds_and_starts_what_compose_wants(service, dockerfile):
    data = dict(flags(service["command"]))["--data"]
    assert service["build"] == "."
    assert values(dockerfile, "ENTRYPOINT") == ['["muster"]']
    (command,) = values(dockerfile, "CMD")
    command = yaml.safe_load(command)
    assert dict(flags(command))["--data"] == data == values(dockerfile, "VOLUME")[0]
    assert sorted(map(int, values(dockerfile, "EXPOSE")[0].split())) == sorted(default_ports().values())
    rust = re.match(r"rust:([\d.]+)-", values(dockerfile, "FROM")[0])[1]
    assert rust == WORKSPACE["workspace"]["package"]["rust-version"], "built with the toolchain the workspace names"
    copied = next(rest for rest in values(dockerfile, "COPY") if rest.startswith("--from"))
    built = next(rest for rest in values(dockerfile, "RUN") if rest.startswith("cargo build"))
    for package in re.findall(r"-p (\S+)", built):
        assert f"/target/release/{package}" in copied
    assert values(dockerfile, "USER") == ["muster"]
    run = " ".join(values(dockerfile, "RUN"))
    assert f"--home-dir {data} --create-home muster" in run, "the volume must belong to the user that writes to it"


def test_the_image_is_built_without_keys_that_lie_about():
    ignored = {line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")}
    assert {"muster-data", "target", ".git"} <= ignored


def test_the_systemd_unit_starts_the_program_with_flags_it_has(service):
    unit = (REPOSITORY / "packaging/muster.service").read_text()
    options = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    program, *arguments = shlex.split(options["ExecStart"])
    assert program.endswith("/muster") and arguments[0] == "serve"
    assert {flag for flag, _ in flags(arguments)} <= help_flags(["serve"])
    assert dict(flags(arguments))["--data"] == f"/var/lib/{options['StateDirectory']}"
    assert int(options["TimeoutStopSec"]) >= int(service["stop_grace_period"].removesuffix("s"))
