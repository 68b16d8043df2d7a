# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the project's forge, Galaxy and dependency updates read: workflows, forms, metadata and locks."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[2]
GITHUB = CHECKOUT / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
# as on a command line, also if make runs this test
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def load_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def list_steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load_yaml(path)["jobs"].values() for step in job.get("steps", ())]


def list_make_commands(text: str) -> list[str]:
    return re.findall(r"^(?:.*&& *)?(make [^\n&|;]*)", text, re.MULTILINE)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_starts_on_an_event_and_may_only_read(path: Path) -> None:
    workflow = load_yaml(path)
    assert workflow["name"] == path.stem
    # YAML 1.1 reads the key `on` as true
    assert workflow[True]
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_job_of_a_workflow_can_run(path: Path) -> None:
    jobs = load_yaml(path)["jobs"]
    for name, job in jobs.items():
        needed = job.get("needs", [])
        assert {needed} <= set(jobs) if isinstance(needed, str) else set(needed) <= set(jobs), name
        if "uses" in job:
            assert (CHECKOUT / job["uses"]).is_file()
            continue
        assert job["runs-on"], name
        assert 0 < job["timeout-minutes"] <= 360, name
        assert all(("run" in step) != ("uses" in step) for step in job["steps"]), name
        used = set(re.findall(r"\$\{\{ *matrix\.(\w+)", yaml.safe_dump(job)))
        matrix = job.get("strategy", {}).get("matrix", {})
        rows = [set(row) for row in matrix.get("include", [])] or [set()]
        assert all(used == row | (set(matrix) - {"include"}) for row in rows), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_uses_actions_of_a_fixed_version(path: Path) -> None:
    actions = [step["uses"] for step in list_steps(path) if "uses" in step]
    assert actions
    assert [action for action in actions if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_targets_and_variables_that_make_has(path: Path) -> None:
    commands = [command for step in list_steps(path) for command in list_make_commands(step.get("run", ""))]
    assert commands
    for command in commands:
        plain = re.sub(r"\$\{\{.*?\}\}", "3.13", command)
        done = subprocess.run(
            [*plain.split(), "--dry-run"],
            cwd=CHECKOUT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


def test_workflows_cover_each_supported_release_of_ansible_core_and_python() -> None:
    jobs = load_yaml(GITHUB / "workflows/test.yml")["jobs"]
    required = load_yaml(CHECKOUT / "meta/runtime.yml")["requires_ansible"]
    oldest = required.removeprefix(">=").removesuffix(".0")
    newest = re.findall(r"^ansible-core==(\d+\.\d+)", (CHECKOUT / "requirements.txt").read_text(), re.MULTILINE)[-1]
    pythons = re.search(r"versions=\(([\d. ]+)\)", (CHECKOUT / "tools/venv").read_text())
    assert pythons
    for name in ("sanity", "units"):
        rows = jobs[name]["strategy"]["matrix"]["include"]
        assert {oldest, newest} <= {row["core"] for row in rows}
        assert sorted(row["python"] for row in rows) == sorted(pythons[1].split())
    assert {"lint", "site", "molecule", "nightly"} <= set(jobs)


def test_bug_report_asks_for_the_report_of_the_doctor() -> None:
    form = load_yaml(GITHUB / "ISSUE_TEMPLATE/bug.yml")
    (doctor,) = [field for field in form["body"] if field.get("id") == "doctor"]
    assert "make doctor json=1" in doctor["attributes"]["label"]
    assert doctor["validations"]["required"] is True


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(GITHUB.glob("ISSUE_TEMPLATE/*.yml")) if path.stem != "config"],
    ids=lambda path: path.stem,
)
def test_issue_form_is_complete(path: Path) -> None:
    form = load_yaml(path)
    assert form["name"]
    assert form["description"]
    identifiers = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(set(identifiers)) == len(identifiers) > 0
    for field in form["body"]:
        assert field["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert field["attributes"].get("label") or field["type"] == "markdown"


def test_dependabot_updates_what_is_locked_and_what_workflows_use() -> None:
    updates = load_yaml(GITHUB / "dependabot.yml")["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions"}
    assert all((CHECKOUT / update["directory"].strip("/")).is_dir() for update in updates)


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("requirements*.in")), ids=lambda path: path.stem)
def test_lock_satisfies_the_requirements_that_it_was_made_from(path: Path) -> None:
    lock = path.with_suffix(".txt").read_text()
    locked = re.findall(r"^([\w.-]+)==([\w.]+)", lock, re.MULTILINE)
    assert lock.count("--hash=sha256:") >= len(locked) > 0
    wanted: list[Requirement] = []
    pages = [path]
    while pages:
        page = pages.pop()
        for line in page.read_text().splitlines():
            if line.startswith("-r "):
                pages.append(page.parent / line.removeprefix("-r "))
            elif line and not line.startswith("#"):
                wanted.append(Requirement(line))
    for requirement in wanted:
        versions = [version for name, version in locked if name.lower() == requirement.name.lower()]
        assert versions, requirement
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_each_file_that_galaxy_yml_names_exists() -> None:
    galaxy = load_yaml(CHECKOUT / "galaxy.yml")
    rules = [rule.split() for rule in galaxy["manifest"]["directives"]]
    patterns = [name for kind, *names in rules if kind in ("include", "exclude") for name in names]
    assert [pattern for pattern in patterns if not list(CHECKOUT.glob(pattern))] == []
    for key in ("readme", "license_file"):
        assert (CHECKOUT / galaxy[key]).is_file()


def test_action_group_has_the_modules_that_share_the_options_of_upsd() -> None:
    groups = load_yaml(CHECKOUT / "meta/runtime.yml")["action_groups"]
    sharing = [
        path.stem
        for path in sorted((CHECKOUT / "plugins/modules").glob("*.py"))
        if re.search(r"^  - homelab\.nut\.upsd$", path.read_text(), re.MULTILINE)
    ]
    assert groups == {"upsd": sharing}


def test_each_module_says_whether_it_can_run_in_the_background() -> None:
    """A module with an action plugin can't: Ansible would run the plugin on the controller in the foreground."""
    for path in sorted((CHECKOUT / "plugins/modules").glob("*.py")):
        documentation = yaml.safe_load(re.search(r'DOCUMENTATION = r"""\n(.*?)"""', path.read_text(), re.DOTALL)[1])  # type: ignore[index]
        assert "homelab.nut.attributes" in documentation["extends_documentation_fragment"], path.stem
        has_action = (CHECKOUT / "plugins/action" / path.name).exists()
        support = documentation.get("attributes", {}).get("async", {}).get("support", "full")
        assert support == ("none" if has_action else "full"), path.stem
