"""Tables of cases, written as text: a line each, its cells apart by ``|``."""


def rows(text: str) -> list[tuple[str, ...]]:
    """The cells of each line."""
    return [tuple(cell.strip() for cell in line.split("|")) for line in text.strip().splitlines()]


def shapes(text: str) -> dict[str, tuple[int, ...]]:
    """``fc7 10×4096`` → ``{"fc7": (10, 4096)}``, a line each; a name alone is a scalar."""
    named = [line.split() for line in text.strip().splitlines()]
    return {name: tuple(int(dim) for dims in rest for dim in dims.split("×")) for name, *rest in named}
