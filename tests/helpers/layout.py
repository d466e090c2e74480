"""The rules of the layout, read from the source: layers, imports, sizes, idioms.

Each rule is a function of one file that yields complaints.
"""

import ast
import gc
import re
from collections.abc import Iterator
from functools import cached_property

PACKAGE = "multigrain_jax"

# Imports go from a higher number to a lower one. Every import of the package runs its
# root first, in the reading processes too: so it stands at the bottom.
LAYERS = {
    "__init__": -1,
    "errors": -1,
    "bucket_copies": 2,
    "buckets": 0,
    "files": 0,
    "growing_file": 0,
    "terminal": 0,
    "ops": 0,
    "progress": 0,
    "remedies": 0,
    "trees": 0,
    "losses": 1,
    "models": 1,
    "data": 1,
    "bucket_lock": 2,
    "checkpoint": 2,
    "distributed": 2,
    "engines": 2,
    "lock": 2,
    "mesh": 2,
    "metric_writer": 2,
    "mirror": 2,
    "mirrored_files": 2,
    "runtime": 2,
    "workdir": 2,
    "working_copy": 2,
    "convert": 3,
    "descriptors": 3,
    "evaluation": 3,
    "inference": 3,
    "opened_model": 3,
    "pages": 3,
    "preprocessing": 2,
    "train": 3,
    "weights": 3,
    "browse": 4,
    "duplicates": 4,
    "tasks": 5,
    "announce": 6,
    "recipe_files": 6,
    "recipe_text": 6,
    "main": 6,
    "commands": 7,
    "__main__": 8,
}
# Within one layer: (who imports, what).
SIDEWAYS = {
    ("bucket_copies", "lock"),
    ("buckets", "files"),
    ("checkpoint", "bucket_copies"),
    ("convert", "inference"),
    ("convert", "opened_model"),
    ("descriptors", "evaluation"),
    ("descriptors", "opened_model"),
    ("engines", "runtime"),
    ("growing_file", "files"),
    ("inference", "evaluation"),
    ("inference", "opened_model"),
    ("inference", "weights"),
    ("main", "announce"),
    ("main", "recipe_files"),
    ("metric_writer", "workdir"),
    ("mirror", "bucket_lock"),
    ("mirror", "mirrored_files"),
    ("mirrored_files", "lock"),
    ("opened_model", "weights"),
    ("pages", "evaluation"),
    ("train", "weights"),
    ("weights", "convert"),
    ("working_copy", "bucket_lock"),
    ("working_copy", "checkpoint"),
    ("working_copy", "lock"),
    ("working_copy", "mirror"),
    ("working_copy", "mirrored_files"),
}
# library -> the parts that may import it
ONLY_IN = {"orbax": {"checkpoint"}, "torch": {"convert"}}
# part -> what it must not import: arrays of the data are NumPy's
NEVER_IN = {"data": {"jax", "flax", "optax", f"{PACKAGE}.ops", f"{PACKAGE}.trees"}}
# folder -> where it may be imported: recipes build on each other, and tests read all
IMPORTERS = {
    "configs": ("configs/", "tests/"),
    "tools": ("tests/",),
    "measure": ("measure/", "tests/"),
}
# constant of the method -> the one file that states it
HOMES = {
    "GEM_EPSILON": f"{PACKAGE}/ops/pooling.py",
    "NORM_EPSILON": f"{PACKAGE}/ops/pooling.py",
    "DISTANCE_EPSILON": f"{PACKAGE}/losses/margin.py",
}
OUTDATED = {"pmap", "replicate", "unreplicate", "FrozenDict", "PRNGKey", "Optional"}
# Arguments of these names that are mappings are configs.
CONFIG_NAMES = {"config", "settings"}
CONFIG_READERS = (
    "tasks",
    "recipe_files",
    "recipe_text",
    "announce",
    "main",
    "commands",
)
OPAQUE_TYPES = ("Mapping", "dict", "Any", "ConfigDict")
SUPPRESSION = re.compile(
    r"# (?:noqa(?:: [A-Z0-9, ]+\b)?|(?:type|pyright): ignore(?:\[[\w, -]+\])?"
    r"|pragma: \w+)(?P<reason>.*)"
)
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60


class File:
    """One source file: its path in the repository, and what it says."""

    def __init__(self, path: str, text: str):
        self.path = path
        self.text = text
        folder, _, rest = path.partition("/")
        self.in_package = folder == PACKAGE
        # The name in `LAYERS`, for a file of the package.
        self.part = rest.split("/")[0].removesuffix(".py")

    @cached_property
    def tree(self) -> ast.Module:
        # A collection in the middle may report an error that a test has lost, and for
        # that parse its lines: two parses at once fail in CPython before 3.11.5.
        gc.disable()
        try:
            return ast.parse(self.text)
        finally:
            gc.enable()

    @cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef
        return [node for node in ast.walk(self.tree) if isinstance(node, kinds)]

    @cached_property
    def imports(self) -> list[tuple[str, bool]]:
        """The dotted name of everything imported; whether later than the file itself.

        That is in a function, or for the type checker alone.
        """
        for_types = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ]
        late = (*self.functions, *for_types)
        lazy = {node for outer in late for node in ast.walk(outer)}
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(alias.name, node in lazy) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                found += [
                    (f"{module}.{alias.name}", node in lazy) for alias in node.names
                ]
        return found


def is_within(name: str, module: str) -> bool:
    """Is a dotted name that module, or something in it?"""
    return name == module or name.startswith(module + ".")


def check_layers(file: File) -> Iterator[str]:
    """Imports inside the package go down the layers."""
    if not file.in_package:
        return
    if file.part not in LAYERS:
        yield f"{file.part} has no place in LAYERS"
        return
    for name, lazy in file.imports:
        if name.startswith("."):
            yield f"relative import {name}: write the whole name"
        if not is_within(name, PACKAGE):
            continue
        target = name.split(".")[1] if "." in name else "__init__"
        # `from multigrain_jax import load_model` takes a name of the root itself.
        target = target if target in LAYERS else "__init__"
        down = LAYERS[target] < LAYERS[file.part]
        # The root offers names of higher layers; it gets them when they are asked for.
        offered = file.part == "__init__" and lazy
        sideways = target == file.part or (file.part, target) in SIDEWAYS
        if not (down or offered or sideways):
            yield f"{file.part} imports {name}, which is not below it"


def check_libraries(file: File) -> Iterator[str]:
    """Some libraries are known to one part of the package only."""
    for name, lazy in file.imports:
        library = name.split(".")[0]
        if file.in_package and file.part not in ONLY_IN.get(library, {file.part}):
            yield f"{library} is for {', '.join(ONLY_IN[library])} alone"
        if library == "torch" and not lazy:
            yield "torch is imported with the file: import it in the function"
        for banned in NEVER_IN.get(file.part, ()) if file.in_package else ():
            if is_within(name, banned):
                yield f"{file.part} imports {banned}"


def check_configs(file: File) -> Iterator[str]:
    """A config goes no deeper than a task; below stand typed arguments."""
    reads_configs = not file.in_package or file.part in CONFIG_READERS
    for name, _ in file.imports:
        if is_within(name, "ml_collections") and not reads_configs:
            yield "ml_collections outside main.py and tasks/"
        for folder, importers in IMPORTERS.items():
            if is_within(name, folder) and not file.path.startswith(importers):
                yield f"imports {folder}, which is for {' and '.join(importers)}"
    if reads_configs:
        return
    for function in file.functions:
        given = function.args
        for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs):
            if argument.arg in CONFIG_NAMES and is_mapping(argument.annotation):
                yield f"{function.name}({argument.arg}): name the values, with types"
    for node in ast.walk(file.tree):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id in CONFIG_NAMES
            and isinstance(node.slice, ast.Constant)
        ):
            yield f"{ast.unparse(node)}: keys of a config are read in tasks/"


def is_mapping(annotation: ast.expr | None) -> bool:
    """Is an argument without a type, or one whose keys no type checker sees?"""
    words = "" if annotation is None else ast.unparse(annotation)
    return not words or any(kind in words for kind in OPAQUE_TYPES)


def check_suppressions(file: File) -> Iterator[str]:
    """A suppressed warning has its reason on its line."""
    for number, line in enumerate(file.text.splitlines(), start=1):
        found = SUPPRESSION.search(line)
        if found and not found["reason"].strip(" -:"):
            yield f"line {number}: {found[0].strip()} without its reason"


def check_sizes(file: File) -> Iterator[str]:
    """Files and functions stay short.

    A function counts with the functions inside it, and without docstrings. A recipe is
    one list of keys, as long as it must be.
    """
    lines = len(file.text.splitlines())
    if lines > MAX_FILE_LINES:
        yield f"{lines} lines, at most {MAX_FILE_LINES}: look for the seam"
    for function in [] if file.path.startswith("configs/") else file.functions:
        length = own_length(function)
        if length > MAX_FUNCTION_LINES:
            yield f"{function.name}: {length} lines, at most {MAX_FUNCTION_LINES}"


def own_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring and those of the functions inside."""

    def lines(node: ast.stmt) -> set[int]:
        return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))

    own = lines(function)
    for node in ast.walk(function):
        kinds = ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            own -= lines(node.body[0])
    return len(own)


def check_idioms(file: File) -> Iterator[str]:
    """No outdated names, no catch-all arguments in public functions."""
    names = {
        *(node.id for node in ast.walk(file.tree) if isinstance(node, ast.Name)),
        *(node.attr for node in ast.walk(file.tree) if isinstance(node, ast.Attribute)),
        *(part for name, _ in file.imports for part in name.split(".")),
    }
    yield from (f"{name} is outdated" for name in sorted(names & OUTDATED))
    if any(is_within(name, "flax.training") for name, _ in file.imports):
        yield "flax.training is outdated"
    if file.in_package:
        for function in file.functions:
            if function.args.kwarg and not function.name.startswith("_"):
                yield f"{function.name}: name the arguments instead of **"


def check_constants(file: File) -> Iterator[str]:
    """Constants of the method are stated once, and imported elsewhere."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            home = HOMES.get(node.id, file.path)
            if file.in_package and file.path != home:
                yield f"{node.id} is stated in {home}: import it"


RULES = (
    check_layers,
    check_libraries,
    check_configs,
    check_suppressions,
    check_sizes,
    check_idioms,
    check_constants,
)
