"""What README.md tells a newcomer to type is there to be typed."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_samples_do_what_readme_says(shared, device, tmp_path):
    lamp = device()
    named = set(re.findall(r"docs/samples/[\w.-]+", README))
    assert named == {f"docs/samples/{file.name}" for file in (ROOT / "docs/samples").iterdir()}
    sample = lambda name: str(ROOT / "docs/samples" / name)  # noqa: E731
    group = "hall"
    shared.cli("policy", "create", "hall", sample("hall.json"))
    shared.cli("policy", "attach", "hall", "--device", lamp.name)
    explain = ("policy", "explain", "--device", lamp.name, "--action", "publish", "--topic")
    assert shared.json(*explain, f"hall/{lamp.name}/x")["decision"] == "Allow"
    assert shared.json(*explain, "hall/another/x")["decision"] != "Allow"
    shared.cli("policy", "simulate", sample("hall-next.json"), "--as", "hall")
    shared.cli("group", "create", group)
    shared.cli("group", "add", group, lamp.name)
    shared.run("policy", "suggest", "--group", group)
    shared.cli("device", "revoke", lamp.name, "--yes")
    shared.cli("device", "replace", lamp.name, "--yes", cwd=tmp_path)
    assert (tmp_path / lamp.name / f"{lamp.name}.key").exists()
    shared.cli("template", "create", "lamps", sample("lamps.json"), "--allow-parameter", "SerialNumber", "--allow-list", sample("serials.txt"))
    shared.cli("claim", "create", "--template", "lamps", "--uses", "5000", "--rate", "60/min", "--source", "192.0.2.0/24", "--lifetime", "30d", cwd=tmp_path)
    shared.cli("policy", "create", "load", sample("load.json"))
    shared.cli("device", "create", "load", "--policy", "load", cwd=tmp_path)
