"""What deploy/sbom.py makes: it is valid CycloneDX, names every crate that can be told from the program's own bytes and every npm
package of the playground, each with version, licence and checksum, and nothing under a licence that deny.toml does not allow. Not
here: known vulnerabilities.

usage: sbom.py PROGRAM"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import license_expression
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]
# Of npm packages in the playground, beside those of deny.toml: the licence of fonts.
ALSO_OF_PAGES = {"OFL-1.1"}
# Where a panic may begin, the program names the file, in the folder of Cargo's packages.
PANICS = re.compile(rb"/registry/src/[^/]+/([A-Za-z0-9_-]+?)-(\d+\.\d+\.\d+[0-9A-Za-z.+-]*)/")


def main(program):
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("one.json", "two.json")]
        for file in files:
            subprocess.run([sys.executable, ROOT / "deploy/sbom.py", file], check=True)
        text = files[0].read_text()
        assert text == files[1].read_text(), "the same sources give the same document"
    wrong = [str(problem) for problem in [JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)] if problem]
    components = json.loads(text)["components"]
    by_kind = lambda kind: {one["purl"] for one in components if one.get("purl", "").startswith(f"pkg:{kind}/") and one["scope"] == "required"}  # noqa: E731
    inside, pages = by_kind("cargo"), by_kind("npm")
    found = {f"pkg:cargo/{name.decode()}@{version.decode()}" for name, version in PANICS.findall(Path(program).read_bytes())}
    assert len(found) > 30, f"the program names only {len(found)} packages: is it one that was built from Cargo's registry?"
    wrong += [f"{one} is in the program and not in the document" for one in sorted(found) if one.replace("+", "%2B") not in inside]
    policy = tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]
    more = {one["crate"]: set(one["allow"]) for one in policy["exceptions"]}
    for one in components:
        allowed = set(policy["allow"]) | more.get(one["name"], set()) | (ALSO_OF_PAGES if one.get("purl", "").startswith("pkg:npm/") else set())
        wrong += problems_of(one, allowed)
    for terms in ("GPL-3.0-only", "MIT AND AGPL-3.0-only", "Elastic-2.0", "SSPL-1.0"):
        assert not may_be_shipped(terms, set(policy["allow"])), terms
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"sbom: {len(inside)} crates ({len(found)} seen in the program), {len(pages)} packages of the playground, "
          f"{len(components) - len(inside) - len(pages)} of this workspace or for building only: {len(wrong)} problems")
    return 1 if wrong else 0


def problems_of(component, allowed):
    name = f"{component['name']} {component.get('version')}"
    if not component.get("version"):
        yield f"{name}: no version"
    if component.get("purl") and not component.get("hashes"):
        yield f"{name}: no checksum"
    terms = [one.get("expression") or one.get("license", {}).get("id") or one.get("license", {}).get("name") for one in component.get("licenses", [])]
    if len(terms) != 1:
        yield f"{name}: no licence"
    elif not may_be_shipped(terms[0], allowed):
        yield f"{name}: {terms[0]}"


def may_be_shipped(terms, allowed):
    """Whether the licence, or one of those to choose from, is allowed."""
    licensing = license_expression.get_spdx_licensing()

    def holds(part):
        if isinstance(part, licensing.OR):
            return any(map(holds, part.args))
        if isinstance(part, licensing.AND):
            return all(map(holds, part.args))
        return str(part) in allowed

    return holds(licensing.parse(terms, validate=True))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
