"""Write palmkit/mini/selftest.json, what `palmkit doctor` compares with. After `make mini`."""

import json

from palmkit.self_test import EXPECTED, compute

if __name__ == "__main__":
    numbers = {
        name: [float(f"{value:.9g}") for value in values] for name, values in compute().items()
    }
    EXPECTED.write_text(json.dumps(numbers, separators=(",", ":")) + "\n")
    print(f"{EXPECTED}: {sum(map(len, numbers.values()))} numbers")
