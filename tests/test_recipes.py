"""The models of several chapters: trained once, and anew only when they must be."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from course_utils import keys, recipes
from course_utils.data.colours import ColouredImages
from course_utils.data.images import Images, ImageSplits
from course_utils.models.vae import GaussianDecoder
from course_utils.recipes import (
    UNSEEN,
    captioned_digits,
    captions_model,
    digits_vae,
    judge,
    straight_model,
)
from course_utils.training.history import History


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the models in a cache of its own."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    return tmp_path / "models"


def some(count: int, seed: int) -> Images:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 10
    return Images(torch.rand(count, 1, 28, 28, generator=generator), label)


def tiny() -> ImageSplits:
    sets = some(20, 0), some(10, 1), some(10, 2)
    return ImageSplits(*sets, fingerprint="tiny", complete=False)


def reach(modules: Iterable[str]) -> set[str]:
    """These modules and all that they import."""
    return set(keys._code(modules))


def modules_in_the_key(folder: Path, name: str) -> set[str]:
    """Whose change would train a model anew, as its artefact says."""
    (path,) = folder.glob(f"{name}-*.safetensors")
    with safe_open(path, framework="pt") as file:
        return set(json.loads(file.metadata()["key"])["code"])


def unrelated() -> set[str]:
    """Modules that a model of images does not hang on."""
    data = {name for name in keys.SOURCES if name.startswith("course_utils.data.")}
    fetching = {name for name in data if "course_utils.data.download" in reach([name])}
    assert {"course_utils.data.mnist", "course_utils.data.__init__"} <= fetching
    live = {name for name in keys.SOURCES if name.startswith("course_utils.live")}
    drawing = {"course_utils.plotting", "course_utils.notebook", "course_utils.claims"}
    return fetching | live | drawing | {"course_utils.data.rings"}


def test_the_judge_is_trained_once_and_hangs_on_little(folder: Path) -> None:
    (first, history), (again, kept) = judge(tiny()), judge(tiny())
    assert history == kept  # the seconds too: it was not trained again
    x = tiny().test.image
    assert torch.equal(first.log_prob(x), again.log_prob(x))
    modules = modules_in_the_key(folder, "classifier")
    assert "course_utils.data.images" in modules  # of the data that were passed in
    assert not modules & unrelated()


def test_the_vae_is_trained_once_and_hangs_on_little(folder: Path) -> None:
    (first, history), (again, kept) = digits_vae(tiny()), digits_vae(tiny())
    assert history == kept
    assert first.decoder.latent == 200
    assert isinstance(first.decoder, GaussianDecoder)
    assert float(first.decoder.sigma) == pytest.approx(0.4)
    assert list(history.snapshots) == list(kept.snapshots) == [1, 5, 10, 20, 30]
    for name, value in kept.snapshots[30].items():
        assert torch.equal(value, first.state_dict()[name])
        assert torch.equal(value, again.state_dict()[name])
    assert not modules_in_the_key(folder, "vae") & unrelated()


def test_ten_pairs_of_digit_and_colour_never_occur() -> None:
    assert sorted(UNSEEN) == list(range(10))
    coloured = captioned_digits(tiny())
    for images in (coloured.train, coloured.validation, coloured.test):
        assert isinstance(images, ColouredImages)
        assert not (images.colour == torch.tensor(UNSEEN)[images.label]).any()


def test_text_to_image_is_made_of_parts_that_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each part's training is told what it hangs on; here none is trained."""
    told: dict[str, dict[str, Any]] = {}
    built: dict[str, torch.nn.Module] = {}

    def kept(
        name: str,
        build: Callable[[], torch.nn.Module],
        train: Callable[..., History],
        **settings: Any,
    ) -> tuple[torch.nn.Module, History]:
        key = keys.facts(name, 0, build, train, settings)
        told[name] = {"settings": settings, "code": set(key["code"]), "train": train}
        assert json.dumps(key)
        if name not in built:
            torch.manual_seed(0)
            built[name] = build().eval()
        return built[name], History()

    monkeypatch.setattr(recipes, "trained", kept)
    data = captioned_digits(tiny())
    model, _ = captions_model(data)
    assert list(told) == ["coloured-vae", "caption-flow"]
    student, _ = straight_model(data)
    assert list(told) == ["coloured-vae", "caption-flow", "straight-flow"]
    assert model.flow is built["caption-flow"]
    assert student.flow is built["straight-flow"]
    assert model.space.vae is student.space.vae is built["coloured-vae"]
    # what is drawn from later is what the flow was trained in
    space = told["caption-flow"]["settings"]["space"]
    assert torch.equal(space.mean, model.space.mean)
    assert torch.equal(space.std, student.space.std)
    straight = told["straight-flow"]["settings"]
    assert straight["teacher"] is model.flow
    assert straight["never"] == UNSEEN
    captions = told["caption-flow"]["settings"]["captions"]
    assert captions.fingerprint == straight["captions"].fingerprint
    for part in told.values():
        assert not part["code"] & unrelated()
        inspect.signature(part["train"]).bind(None, **part["settings"])
    for one in (model, student):
        x = one.draw(["a red seven", "שבע אדום"], steps=2)
        assert x.shape == (2, 3, 28, 28)


def test_recipes_alone_use_the_cache() -> None:
    """Models do not know that they are kept; studies alone take a kept one."""
    using, taking = set(), set()
    for name, source in keys.SOURCES.items():
        _, imported = keys._parsed(name, source)
        using |= {name} if "course_utils.artifacts" in imported else set()
        taking |= {name} if "course_utils.recipes" in imported else set()
    assert using == {"course_utils.recipes"}
    assert all(name.startswith("course_utils.studies.") for name in taking)
