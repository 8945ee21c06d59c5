from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bbans import zoo
from bbans.errors import InexactDevice
from bbans.exact import selftest
from bbans.exact.selftest import CASES, answers

Folders = dict[int, Path]


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # which PyTorch says of any change to oneDNN
@pytest.mark.parametrize("kind", [0, 2, 3, 8, "1", "L", "RGB"])
def test_answers_depend_on_no_setting(tiny_models: Folders, tiny_thumbnails: dict[str, Path], kind: int | str) -> None:
    folder = tiny_models[kind] if isinstance(kind, int) else tiny_thumbnails[kind]
    network = zoo.load(folder, device="cpu").network
    known = answers(network)
    assert len(set(known)) == len(CASES)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert answers(network) == known
    finally:
        torch.set_num_threads(threads)
    with torch.backends.mkldnn.flags(enabled=False):
        assert answers(network) == known
    assert answers(network.to(memory_format=torch.contiguous_format)) == known
    assert answers(network.double()) == known


def test_the_cases_reach_the_traps() -> None:
    assert any(batch >= 16 for batch, *_ in CASES)
    assert any(height % 2 and width % 2 for _, _, (height, width) in CASES)


def test_a_wrong_answer_leads_to_float64(tiny_models: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    right, asked = selftest.answers, []

    def wrong_in_float32(network: torch.nn.Module) -> list[int]:
        asked.append(next(network.buffers()).dtype)
        return [0] * len(CASES) if asked[-1] == torch.float32 else right(network)

    monkeypatch.setattr(selftest, "answers", wrong_in_float32)
    with pytest.warns(RuntimeWarning, match="float64"):
        model = zoo.load(tiny_models[2])
    assert asked == [torch.float32, torch.float64]
    assert {b.dtype for b in model.network.buffers()} == {torch.float64} and model.device.type == "cpu"


def test_a_machine_that_is_always_wrong_is_refused(tiny_models: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "answers", lambda network: [0] * len(CASES))
    with pytest.raises(InexactDevice):
        zoo.load(tiny_models[2])


@pytest.mark.parametrize("kind", ["photo", "1", "L", "RGB", "plain"])
def test_another_weight_is_another_answer(tiny_models: Folders, tiny_thumbnails: dict[str, Path], kind: str) -> None:
    network = zoo.load(tiny_models[2] if kind == "photo" else tiny_thumbnails[kind], device="cpu").network
    known = answers(network)
    for name, weights in network.named_buffers():
        if name.endswith("bias") and weights.numel():
            change = 1 if kind == "photo" else 1000  # random weights make little of one unit in a deep layer
            weights += change
            assert answers(network) != known, name
            weights -= change
