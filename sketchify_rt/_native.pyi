import numpy as np
from numpy.typing import NDArray

def isas() -> list[str]: ...
def vnni() -> bool: ...
def binarize(gray: NDArray[np.uint8], out: NDArray[np.uint8], threads: int, isa: str) -> None: ...
def dodge(
    gray: NDArray[np.uint8], out: NDArray[np.uint8], strength: int, threads: int, isa: str
) -> None: ...
def compose(
    tones: NDArray[np.float32], out: NDArray[np.uint8], strength: int, threads: int, isa: str
) -> None: ...
def look(
    gray: NDArray[np.uint8],
    out: NDArray[np.uint8],
    black: int,
    tables: NDArray[np.uint8],
    threads: int,
    isa: str,
) -> None: ...
def hint(
    binary: NDArray[np.uint8],
    tones: NDArray[np.uint8],
    out: NDArray[np.uint8],
    threads: int,
    isa: str,
) -> None: ...
