"""What a release is made of, as a CycloneDX 1.6 document in JSON: every crate whose code is in `xp`, every npm package whose
code is in its playground, and, as `excluded`, the crates that only the build runs (build scripts, macros). The same sources give
the same document. Not here: what the image has beside the program (its C library).

usage: sbom.py [FILE]    needs cargo, and `pip install -r tests/ship/requirements.txt`"""

import base64
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from pathlib import Path

import brotli
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[1]
TARGET = "x86_64-unknown-linux-gnu"
ROOT_PACKAGE = "xp"
# One line for each package in the playground's LICENSES.txt.
BUNDLED = re.compile(r"^={80}\n(\S+) (\S+) \((.*)\)$", re.MULTILINE)


def main(file):
    bom = Bom()
    root, components, edges = crates()
    bom.metadata.component = root
    pages = packages_of_the_playground()
    bom.components = set(components.values()) | set(pages)
    bom.register_dependency(root, pages)
    for component, dependencies in edges:
        bom.register_dependency(component, dependencies)
    bom.metadata.timestamp = moment()
    # Not by chance, so that the same sources give the same document.
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, " ".join(sorted(each.bom_ref.value for each in bom.components)))
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2) + "\n"
    if file:
        Path(file).write_text(text)
    else:
        print(text, end="")


def moment():
    """When the sources were committed."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH") or subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
    ).stdout
    return datetime.fromtimestamp(int(seconds or 0), timezone.utc)


def crates():
    """The program itself, all others by their id, and who needs whom."""
    metadata = json.loads(subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET, "--manifest-path", ROOT / "Cargo.toml"],
        capture_output=True, check=True,
    ).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    is_macro = lambda id: any("proc-macro" in target["kind"] for target in packages[id]["targets"])  # noqa: E731
    start = next(id for id in metadata["workspace_members"] if packages[id]["name"] == ROOT_PACKAGE)
    needed = lambda id, kinds: [  # noqa: E731
        dependency["pkg"] for dependency in nodes[id]["deps"] if any(kind["kind"] in kinds for kind in dependency["dep_kinds"])
    ]
    inside = reached([start], lambda id: [one for one in needed(id, [None]) if not is_macro(one)])
    # What only the features of tests would add is left out.
    inside &= built(packages, "normal,no-proc-macro")
    everything = reached(inside, lambda id: needed(id, [None, "build"])) & built(packages, "normal,build")
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    made = {id: crate(packages[id], checksums, id in inside, id == start) for id in everything}
    edges = [
        (made[id], [made[one] for one in needed(id, [None, "build"]) if one in made]) for id in sorted(everything)
    ]
    return made.pop(start), made, edges


def built(packages, edges):
    """The packages that Cargo compiles for the program over these edges, with the features that it is built with."""
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "--package", ROOT_PACKAGE, "--edges", edges, "--target", TARGET, "--prefix", "none",
         "--format", "{p}", "--manifest-path", ROOT / "Cargo.toml"], capture_output=True, text=True, check=True,
    ).stdout
    names = {tuple(line.split()[:2]) for line in tree.splitlines()}
    return {id for id, package in packages.items() if (package["name"], f"v{package['version']}") in names}


def reached(start, follow):
    found, left = set(), list(start)
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += follow(one)
    return found


def crate(package, checksums, is_inside, is_root):
    name, version = package["name"], package["version"]
    is_own = package["source"] is None
    url = PackageURL("cargo", None, name, version)
    checksum = checksums[(name, version)]
    return Component(
        type=ComponentType.APPLICATION if is_root else ComponentType.LIBRARY, name=name, version=version, bom_ref=url.to_string(),
        purl=None if is_own else url, description=package["description"],
        scope=ComponentScope.REQUIRED if is_inside else ComponentScope.EXCLUDED,
        # Crates of before 2015 separate licences to choose from by a slash.
        licenses=[licence((package["license"] or "").replace("/", " OR "))],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum)] if checksum else [],
        external_references=source_of(package["repository"]),
    )


def packages_of_the_playground():
    """As LICENSES.txt names them, which the bundler's list of modules makes."""
    text = brotli.decompress((ROOT / "playground/dist/LICENSES.txt.br").read_bytes()).decode()
    lock = json.loads((ROOT / "playground/package-lock.json").read_text())["packages"]
    made = []
    for name, version, terms in BUNDLED.findall(text):
        entry = next(entry for place, entry in lock.items() if place.endswith(f"node_modules/{name}") and entry["version"] == version)
        algorithm, _, digest = entry["integrity"].partition("-")
        assert algorithm == "sha512", entry
        namespace, _, short = name.rpartition("/")
        url = PackageURL("npm", namespace or None, short, version)
        made.append(Component(
            type=ComponentType.LIBRARY, group=namespace or None, name=short, version=version, bom_ref=url.to_string(), purl=url,
            scope=ComponentScope.REQUIRED, licenses=[licence(terms)],
            hashes=[HashType(alg=HashAlgorithm.SHA_512, content=base64.b64decode(digest).hex())],
        ))
    assert made, "the playground's packages are named"
    return made


def licence(terms):
    return LicenseFactory().make_from_string(terms)


def source_of(repository):
    return [ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(repository))] if repository else []


if __name__ == "__main__":
    main(*sys.argv[1:2] or [None])
