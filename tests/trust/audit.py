"""Look for known vulnerabilities of what is installed: `python tests/trust/audit.py`, which `./run check` does.

The advisories come from a service. Where that cannot be reached this says so and ends well: a machine without a network is no
fault of the code. A vulnerability that is found is one.
"""

from __future__ import annotations

import json
import subprocess
import sys

NOT_DONE = "pip-audit: NOT DONE ({why})"
AUDIT = (
    "-m",
    "pip_audit",
    "--local",
    "--skip-editable",
    "--progress-spinner=off",
    "--timeout=10",
    "--format=json",
)


def audit(command: list[str], patience: float = 60.0) -> int:
    """Run it; 1 when something was found."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        print(NOT_DONE.format(why=f"no advisories reachable within {patience:.0f} s"))
        return 0
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        missing = "No module named pip_audit" in done.stderr
        print(NOT_DONE.format(why="pip-audit is not installed" if missing else "no advisories reachable"))
        return 0
    looked_at = [package for package in packages if "skip_reason" not in package]
    for package in looked_at:
        for found in package.get("vulns", ()):
            print(
                f"pip-audit: {package['name']} {package['version']}: {found['id']}: {found.get('fix_versions')}"
            )
    if any(package.get("vulns") for package in looked_at):
        return 1
    if not looked_at:  # a mirror of the packages without their advisories answers, and knows nothing
        print(NOT_DONE.format(why="no advisories reachable"))
        return 0
    left_out = len(packages) - len(looked_at)
    print(
        f"pip-audit: no known vulnerabilities in {len(looked_at)} packages; {left_out} were not to be looked up"
    )
    return 0


if __name__ == "__main__":
    sys.exit(audit([sys.executable, *AUDIT]))
