"""The example notebook: its cells run from the first to the last, and draw."""

import ast
import json
from pathlib import Path

import matplotlib

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "features_and_search.ipynb"


def code_cells():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_with_what_one_run_of_it_shows():
    cells = code_cells()
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    kinds = [[output["output_type"] for output in cell["outputs"]] for cell in cells]
    figure = ["display_data"]
    assert kinds == [[], ["stream"], ["execute_result"], figure, figure]
    text = NOTEBOOK.read_text(encoding="utf-8")
    # It fits a page of a browser, and tells nothing of the machine that it was run on.
    assert len(text) < 200_000
    assert "/home/" not in text and "/tmp/" not in text and "/root/" not in text


def test_the_notebook_runs(tiny_checkpoint, photo_folder):
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first, *rest = code_cells()
    assert first["metadata"]["tags"] == ["parameters"]
    namespace = {}
    exec("".join(first["source"]), namespace)
    given = {"checkpoint", "photos", "test_size", "num_photos"}
    assert given <= namespace.keys()
    namespace |= {"checkpoint": str(tiny_checkpoint), "photos": f"{photo_folder}/train"}
    namespace["test_size"] = 40
    for cell in rest:
        exec("".join(cell["source"]), namespace)
    assert namespace["descriptors"].shape[0] == len(namespace["collection"]) == 18
    # A photo finds itself first.
    assert (namespace["rows"][:, 0] == namespace["queries"]).all()
    assert len(namespace["to_crop"]) == len(namespace["exponents"])
    assert len(plt.get_fignums()) == 2
    plt.close("all")


def test_the_parameters_are_literals():
    """Whoever runs the notebook with others replaces them one by one."""
    tree = ast.parse("".join(code_cells()[0]["source"]))
    for node in tree.body:
        assert isinstance(node, ast.Assign)
        ast.literal_eval(node.value)
