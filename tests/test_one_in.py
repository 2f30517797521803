"""`pytest --one-in N`: a share of the cases, the same ones each time."""

from __future__ import annotations

from types import SimpleNamespace

import conftest


def test_a_share_of_the_cases_has_some_of_every_test() -> None:
    def item(name: str) -> SimpleNamespace:
        return SimpleNamespace(nodeid=name)

    grid = [f"test_a.py::test_many[{kind}-{i}]" for kind in "xyz" for i in range(100)]
    names = ["test_a.py::test_one", *grid, "test_b.py::test_many[x]", "test_b.py::test_few[x-1]"]
    items, left_out = [item(name) for name in names], []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    config = SimpleNamespace(getoption={"--one-in": 3}.get, hook=hook)
    conftest.pytest_collection_modifyitems(config, items)
    kept = [one.nodeid for one in items]
    assert sorted(kept + [one.nodeid for one in left_out]) == sorted(names)
    assert {name.partition("[")[0] for name in kept} == {name.partition("[")[0] for name in names}
    assert 80 < len(kept) < 130
    assert all(20 < sum(f"[{kind}-" in name for name in kept) < 50 for kind in "xyz")
