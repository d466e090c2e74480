"""The description of the API has every route of it, and no other."""

from multigrain_jax.browse.api import Api
from multigrain_jax.browse.openapi import OPERATIONS, document
from multigrain_jax.browse.review import Review


def test_every_route_is_described():
    review = Review(*[None] * 5, allow_moves=False)
    routes = {
        (method.lower(), route.path.replace(":int", ""))
        for route in [*Api(None).routes(), *review.routes()]
        for method in route.methods - {"HEAD"}
    }
    described = {
        (method, path)
        for path, methods in document()["paths"].items()
        for method in methods
    }
    assert described == routes
    assert len(OPERATIONS) == len(described)


def test_what_is_asked_of_a_path_is_described():
    search = document()["paths"]["/api/search"]["post"]
    assert {p["name"] for p in search["parameters"]} == {
        "num_neighbours",
        "folder",
        "class",
    }
    assert "503" in search["responses"]
    assert search["requestBody"]["content"].keys() >= {
        "image/*",
        "multipart/form-data",
        "application/json",
    }
    row = document()["paths"]["/api/photo/{row}"]["get"]["parameters"][0]
    assert (row["name"], row["in"]) == ("row", "path")
