"""Files of deploy/ fit the service: metrics that dashboards and alerts name, manifests, options, paths."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import pocketbert
from pocketbert import cli

DEPLOY = Path(__file__).parents[1] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZATIONS = ("base", "example")
MANIFESTS = sorted(path for path in (KUBERNETES / "base").glob("*.yaml") if path.name != "kustomization.yaml")
FROM_PROMETHEUS = {"instance", "job", "le", "namespace", "pod"}  # labels that the service does not set


@pytest.fixture(scope="module")
def exposed(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The names of all series that a service has after a request, with the names of their labels."""
    pytest.importorskip("fastapi")
    from helpers.service import Inside

    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text("k\n")

    async def ask() -> str:
        await service.ask("/v1/classify", {"inputs": "the film"}, authorization="Bearer k")
        return (await service.ask("/metrics", authorization="Bearer k")).body.decode()

    with Inside(("one", models["classify"]), keys=keys) as service:
        text = asyncio.run(ask())
    series: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        series.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return {name: labels for name, labels in series.items() if not name.endswith("_created")}


def expressions(value: Any) -> Iterator[str]:
    """Every expression of a file, however deep."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key in ("expr", "query", "seriesQuery") and isinstance(one, str):
                yield one
            else:
                yield from expressions(one)
    elif isinstance(value, list):
        for one in value:
            yield from expressions(one)


def written() -> dict[str, list[str]]:
    dashboard = json.loads((DEPLOY / "grafana/pocketbert.json").read_text())
    return {
        "dashboard": list(expressions(dashboard)),
        "alerts": list(expressions(yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text()))),
        "adapter": list(expressions(yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text()))),
    }


@pytest.mark.parametrize("file", ["dashboard", "alerts", "adapter"])
def test_metrics_exist(file: str, exposed: dict[str, set[str]]) -> None:
    found = written()[file]
    assert found
    for expression in found:
        for name in re.findall(r"pocketbert_\w+", expression):
            assert name in exposed, expression
        for name, matchers in re.findall(r"(pocketbert_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)\s*[=!]", matchers))
            assert labels <= exposed[name] | FROM_PROMETHEUS, expression
        for grouped in re.findall(r"\bby \(([\w, ]+)\)", expression):
            known = set().union(*(exposed[name] for name in re.findall(r"pocketbert_\w+", expression)))
            assert {one.strip() for one in grouped.split(",")} <= known | FROM_PROMETHEUS, expression
        assert expression.count("(") == expression.count(")"), expression


def test_the_dashboard_shows_every_metric(exposed: dict[str, set[str]]) -> None:
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"pocketbert_\w+", str(written()))}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed}
    assert {name for name in families if name.startswith("pocketbert_")} - shown == {"pocketbert_key_tokens_total"}


def test_dashboard_panels() -> None:
    dashboard = json.loads((DEPLOY / "grafana/pocketbert.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len({*ids}) == len(ids)
    assert len({*places}) == len(places)


def test_alerts() -> None:
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in ("warning", "critical")


def promtool(*arguments: str | Path, given: str = "") -> None:
    """Have Prometheus's own tool check something."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool, of Prometheus, is not installed")
    done = subprocess.run(["promtool", "check", *arguments], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_alerts() -> None:
    promtool("rules", DEPLOY / "prometheus/alerts.yaml")


@pytest.mark.parametrize("file", ["dashboard", "adapter"])
def test_prometheus_reads_every_expression(file: str, tmp_path: Path) -> None:
    """As rules, with what Grafana and the adapter put in the place of their variables."""
    variables = {
        "$__rate_interval": "5m", "<<.Series>>": "pocketbert_queue_tokens", "<<.LabelMatchers>>": "pod=\"a\"",
        "<<.GroupBy>>": "pod",
    }  # fmt: skip
    rules = []
    for number, expression in enumerate(written()[file]):
        if expression.startswith("label_values("):  # Grafana's own
            continue
        for name, value in variables.items():
            expression = expression.replace(name, value)
        assert "$" not in expression.replace('"$instance"', "")  # within quotation marks it may stay
        assert "<<" not in expression
        rules.append({"record": f"expression:{number}", "expr": expression})
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    promtool("rules", path)


def test_prometheus_reads_the_metrics(models: dict[str, Path]) -> None:
    pytest.importorskip("fastapi")
    from helpers.service import Inside

    async def ask() -> str:
        await service.ask("/v1/classify", {"inputs": "the film"})
        return (await service.ask("/metrics")).body.decode()

    with Inside(("one", models["classify"])) as service:
        promtool("metrics", given=asyncio.run(ask()))


# ── Kubernetes ──


def rendered(folder: str) -> list[dict[str, Any]]:
    """What kustomize makes of a folder."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which has kustomize in it, is not installed")
    done = subprocess.run(["kubectl", "kustomize", KUBERNETES / folder], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


def validate(manifest: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="the schemas of Kubernetes are not here")
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_manifests_have_the_schema_of_kubernetes(folder: str) -> None:
    manifests = rendered(folder)
    assert {"Deployment", "Service", "ConfigMap", "HorizontalPodAutoscaler", "PodDisruptionBudget"} == {
        manifest["kind"] for manifest in manifests
    }
    for manifest in manifests:
        validate(manifest)
    selectors = [m["spec"]["selector"] for m in manifests if m["kind"] in ("Deployment", "PodDisruptionBudget")]
    assert all(selector["matchLabels"] for selector in selectors)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_each_file_has_the_schema(path: Path) -> None:
    """Also where there is no kustomize."""
    for manifest in yaml.safe_load_all(path.read_text()):
        validate(manifest)


def deployment() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((KUBERNETES / "base/deployment.yaml").read_text())
    return found


def test_pods_have_no_rights() -> None:
    pod = deployment()["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert str(pod["securityContext"]["runAsUser"]) in (DEPLOY / "Containerfile").read_text()
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert not pod["enableServiceLinks"]
    assert not pod["automountServiceAccountToken"]


def test_probes_and_the_autoscaler_ask_what_is_there(exposed: dict[str, set[str]]) -> None:
    from pocketbert.serve.middleware import OPEN_PATHS
    from pocketbert.serve.settings import Limits

    pod = deployment()["spec"]["template"]["spec"]
    [container] = pod["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in OPEN_PATHS
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
    assert pod["terminationGracePeriodSeconds"] > Limits().time
    [metric, _] = yaml.safe_load((KUBERNETES / "base/autoscaler.yaml").read_text())["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in exposed


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_options_of_the_service(folder: str) -> None:
    command = cli.app.get_command(click.Context(cli.app), "serve")
    assert command is not None
    arguments = ["--config", str(KUBERNETES / folder / "pocketbert.toml")]
    values = command.make_context("serve", arguments, parent=click.Context(cli.app)).params
    [container] = deployment()["spec"]["template"]["spec"]["containers"]
    assert (values["host"], values["port"]) == ("0.0.0.0", container["ports"][0]["containerPort"])


# ── packages ──


def test_packages_have_the_version_and_the_dependencies() -> None:
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    recipe = yaml.safe_load((DEPLOY / "conda/recipe.yaml").read_text())
    needed = {need.replace("-", "_") for need in project["dependencies"]}
    run = {need.replace(" ", "").replace("-", "_") for need in recipe["requirements"]["run"]}
    assert run == needed | {f"python{project['requires-python']}"}
    assert recipe["context"]["version"] == pocketbert.__version__
    assert f"/pocketbert-{pocketbert.__version__}.tar.gz" in (DEPLOY / "homebrew/pocketbert.rb").read_text()


def test_the_image_has_no_compiler_and_no_rights() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    instructions = "\n".join(line for line in lines if not line.startswith("#"))
    assert "--only-binary :all:" in instructions
    assert "HF_HUB_OFFLINE" not in instructions  # hub names work
    assert "\nUSER 10001\n" in instructions
