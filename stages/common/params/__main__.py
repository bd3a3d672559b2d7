"""`python -m stages.common.params`: check params.yaml; or print its JSON schema (`--schema`) or a page of docs."""

import json
import sys
from pathlib import Path

from stages.common.errors import AttuneError
from stages.common.params import PARAMS_FILE, Params, load_params
from stages.common.params.reference import reference, tasks_page


def main(arguments: list[str]) -> int:
    """Check the files named (default params.yaml), or print what `--schema`, `--reference` or `--tasks` asks for."""
    try:
        if arguments == ["--schema"]:
            print(json.dumps(Params.model_json_schema(by_alias=True), indent=1, ensure_ascii=False))
        elif arguments == ["--reference"]:
            print(reference(), end="")
        elif arguments == ["--tasks"]:
            print(tasks_page(), end="")
        else:
            for name in arguments or [str(PARAMS_FILE)]:
                load_params(Path(name), complete=True)
    except AttuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
